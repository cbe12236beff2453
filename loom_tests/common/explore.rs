//! How models are explored, what they owe, and what they report.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Explores `model` up to a bound of preemptions, and fails if that explored fewer executions than
/// `least`: a model that explores nothing shows nothing.
///
/// `LOOM_MAX_PREEMPTIONS` overrides the bound. `RDMA_MR_LOOM=full`, which `cargo xtask loom --full` sets,
/// raises it by one; `RDMA_MR_LOOM=unbounded` lifts it, for whoever wants to know how far that gets.
pub fn explore(name: &str, bound: usize, least: usize, model: impl Fn() + Send + Sync + 'static) {
    let bound = match mode().as_deref() {
        Some("unbounded") => None,
        Some("full") => Some(bound + 1),
        _ => Some(bound),
    };
    run(name, bound, least, model);
}

/// As [`explore`], of a model that is small enough to be exhausted: `--full` lifts the bound.
pub fn exhaust(name: &str, bound: usize, least: usize, model: impl Fn() + Send + Sync + 'static) {
    let bound = match mode() {
        Some(_) => None,
        None => Some(bound),
    };
    run(name, bound, least, model);
}

fn mode() -> Option<String> {
    std::env::var("RDMA_MR_LOOM").ok()
}

fn run(name: &str, bound: Option<usize>, least: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(bound);
    let bound = builder.preemption_bound;
    if std::env::var_os("LOOM_MAX_BRANCHES").is_none() {
        // The NIC in software takes more steps than loom allows by itself.
        builder.max_branches = 10_000;
    }
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    let start = Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        model();
    });
    let executions = executions.load(Relaxed);
    report(name, bound, executions, start.elapsed());
    assert!(
        executions >= least,
        "{executions} executions, expected at least {least}"
    );
}

/// A line for people, and one for `cargo xtask loom`, which makes a table of them.
fn report(name: &str, bound: Option<usize>, executions: usize, took: Duration) {
    let bound = bound.map_or("none".to_owned(), |bound| bound.to_string());
    println!("{name}: {executions} executions, bound {bound}");
    if let Some(path) = std::env::var_os("RDMA_MR_LOOM_REPORT") {
        let line = format!("{name}\t{bound}\t{executions}\t{}\n", took.as_millis());
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the report");
    }
}
