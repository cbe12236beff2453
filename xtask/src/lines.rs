//! `cargo xtask lines`: how often a line of the cache has to come from elsewhere per operation, with 1 to 16
//! threads, on a machine that has no 16 cores. Each thread's accesses are recorded by valgrind's lackey, and
//! replayed beside each other's in a simulation.
//!
//! What is recorded is an operation that nobody is in the way of, so a loop around a compare-exchange goes
//! round once: with threads at work it may go round more often, and the lines with it. And a line may be taken
//! away after any access, as if each took as long as the way of a line: a processor that has it gets further
//! before the next one has it. So the figures are for comparing shapes, and how they grow.

mod caches;
mod trace;

use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::figures::{Curves, Points, Report};
use crate::packages::{self, Use};
use crate::process;
use crate::report;
use crate::workspace;
use caches::Caches;
use trace::Access;

const THREADS: usize = 16;

/// Operations of each thread that are replayed, once all lines have been had before.
const OPERATIONS: usize = 2000;

/// The same figures on every run.
const SEED: u64 = 7;

pub fn run() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        println!("lines are counted on x86-64 only");
        return Ok(());
    }
    packages::ensure(&[Use::Count])?;
    let program = &workspace::bench("lines")?;
    let names = process::text(Command::new(program).arg("names"))?;

    println!("lines that come from elsewhere, per operation, by threads");
    let counts = [1, 2, 4, 8, 16];
    println!("{}", counts.map(|count| format!("{count:>6}")).concat());
    let mut series = Vec::new();
    for name in names.lines() {
        let traces = record(program, name).with_context(|| format!("recording `{name}`"))?;
        let costs: Vec<f64> = (1..=THREADS).map(|count| cost(&traces[..count])).collect();
        let row = counts.map(|count| format!("{:>6.2}", costs[count - 1]));
        println!("{}  {name}", row.concat());
        series.push(Points {
            name: name.into(),
            points: (1..).map(f64::from).zip(costs).collect(),
        });
    }
    let report = Report {
        bench: "lines".into(),
        curves: vec![Curves {
            title: "one region, read by all".into(),
            x: "threads".into(),
            y: "lines per operation".into(),
            log_x: false,
            series,
        }],
        ..Report::default()
    };
    Ok(report.write(&report::directory()?.join("lines.json"))?)
}

/// What each of the threads touches in an operation.
fn record(program: &Path, shape: &str) -> Result<Vec<Vec<Access>>> {
    let mut child = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--log-fd=1"])
        .arg(program)
        .args(["run", shape, &THREADS.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run `valgrind`")?;
    let output = child.stdout.take().context("no pipe")?;
    let traces = trace::read(BufReader::new(output))?;
    let status = child.wait()?;
    ensure!(status.success(), "valgrind failed: {status}");
    ensure!(
        traces.len() == THREADS,
        "{} threads left a trace",
        traces.len()
    );
    Ok(traces)
}

/// Lines that come from elsewhere, per operation: in each step any one of the threads does its next access.
fn cost(traces: &[Vec<Access>]) -> f64 {
    let mut any = SmallRng::seed_from_u64(SEED);
    let steps: usize = traces.iter().map(Vec::len).sum();
    let mut replay = Replay::new(traces);
    let mut go_on = |operations: usize| {
        for _ in 0..operations * steps {
            replay.step(any.random_range(0..traces.len()));
        }
        (replay.caches.fetched, replay.operations)
    };
    let before = go_on(OPERATIONS / 10);
    let after = go_on(OPERATIONS);
    (after.0 - before.0) as f64 / (after.1 - before.1) as f64
}

/// Threads that do their operations over and over.
struct Replay<'a> {
    /// What each does, and where in there it is.
    threads: Vec<(&'a [Access], usize)>,
    caches: Caches,
    operations: u64,
}

impl<'a> Replay<'a> {
    fn new(traces: &'a [Vec<Access>]) -> Self {
        Replay {
            threads: traces.iter().map(|trace| (&trace[..], 0)).collect(),
            caches: Caches::default(),
            operations: 0,
        }
    }

    /// One access of that thread.
    fn step(&mut self, thread: usize) {
        let (trace, at) = &mut self.threads[thread];
        if let Some(access) = trace.get(*at) {
            self.caches.touch(thread, *access);
        }
        *at += 1;
        if *at >= trace.len() {
            *at = 0;
            self.operations += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn access(line: u64, writes: bool) -> Access {
        Access { line, writes }
    }

    /// Two RMWs on one line, and something of the thread's own.
    fn two_rmws(thread: u64) -> Vec<Access> {
        vec![access(1, true), access(100 + thread, true), access(1, true)]
    }

    #[test]
    fn one_thread_has_all_its_lines() {
        assert_eq!(cost(&[two_rmws(0)]), 0.0);
    }

    #[test]
    fn each_in_turn_takes_the_line_from_the_other() {
        let traces = [two_rmws(0), two_rmws(1)];
        let mut replay = Replay::new(&traces);
        // Their own lines, once.
        (0..6).for_each(|step| replay.step(step % 2));
        let (fetched, operations) = (replay.caches.fetched, replay.operations);
        (0..600).for_each(|step| replay.step(step % 2));
        // In a round of three steps each: two of either are on the common line.
        assert_eq!(replay.operations - operations, 200);
        assert_eq!(replay.caches.fetched - fetched, 2 * 200);
    }

    /// The one before was another's with a chance of (n - 1) / n: so often the line is away.
    #[test]
    fn by_chance_it_is_away_as_often_as_another_was_before() {
        for threads in [2, 4, 16] {
            let traces: Vec<_> = (0..threads).map(|_| vec![access(1, true); 2]).collect();
            let expected = 2.0 * (threads - 1) as f64 / threads as f64;
            let found = cost(&traces);
            assert!((found - expected).abs() < 0.05, "{threads}: {found}");
        }
    }

    #[test]
    fn lines_that_all_read_or_nobody_else_touches_stay() {
        let own = |thread: u64| vec![access(1, false), access(100 + thread, true)];
        assert_eq!(cost(&[own(0), own(1), own(2)]), 0.0);
    }
}
