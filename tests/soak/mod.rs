//! How long, what is told meanwhile, and the verdict.
//!
//! - `leases`, `slots`, `bias`, `parts`: what goes on beside the torture, a thread each; `peer`: the two
//!   ends that each of them has.
//! - `line`: what is told each second; `memory`: whether memory grew.

mod bias;
mod leases;
mod line;
mod memory;
mod parts;
mod peer;
mod slots;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdma_mr::{Counts, counts};

use crate::torture::random::{self, from_env};
use crate::torture::{Victim, go, report};
use line::Line;
use memory::Growth;

/// As the program's own check.
const SECONDS: u64 = 4;

/// How much longer it may take until all kinds have happened.
const GRACE: Duration = Duration::from_secs(60);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends the run in order the first time, the program the second time.
fn end_when_interrupted() {
    extern "C" fn interrupted(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::SeqCst);
        // SAFETY: may be called in a handler; the default needs no function.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    }
    let handler: extern "C" fn(libc::c_int) = interrupted;
    // SAFETY: the handler does what a handler may: an atomic store, and `signal`.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}

/// All leaks as one number.
fn leaked(counts: Counts) -> u64 {
    counts.leaks.holds + counts.leaks.registrations
}

pub fn run<F: Victim>() {
    let seed = random::seed();
    let seconds = from_env("RDMA_MR_SOAK_SECONDS").unwrap_or(SECONDS);
    println!("RDMA_MR_SEED={seed} RDMA_MR_SOAK_SECONDS={seconds}");
    report::SPARING.store(true, Ordering::SeqCst);
    end_when_interrupted();
    memory::keep_one_heap();
    let before = counts();
    let mut line = Line::new(Duration::from_secs(seconds), before);
    let beside = [
        leases::work::<F>,
        slots::work::<F>,
        bias::work::<F>,
        parts::work::<F>,
    ];
    let interrupted = || INTERRUPTED.load(Ordering::SeqCst);
    let unaccounted = go::<F>(seed, &beside, || {
        let over = line.tick();
        interrupted() || over && (missing().is_empty() || line.passed(GRACE))
    });
    let samples = line.end();
    report::print();
    let growth = Growth::judge(&samples);
    let counts = counts().since(before);
    let (mismatches, leaked) = (report::mismatches(), leaked(counts));
    println!(
        "soak: seed {seed}, {} s: {} operations, {} waits, {mismatches} mismatches, {leaked} leaks, \
         {unaccounted} holds unaccounted; RSS: {growth}",
        samples.len(),
        report::progressed(),
        counts.waits,
    );
    if let Some(failure) = report::failure() {
        panic!("RDMA_MR_SEED={seed}: {failure}");
    }
    assert_eq!((mismatches, leaked, unaccounted), (0, 0, 0));
    assert!(!growth.has_grown(), "memory grew: {growth}");
    let missing = missing();
    assert!(
        missing.is_empty() || interrupted(),
        "never happened: {missing:?}"
    );
}

/// What has not happened yet, of what is beside the torture.
fn missing() -> Vec<&'static str> {
    let kinds = ["lease written", "lease expired", "slot", "biased", "part"];
    (kinds.into_iter().filter(|kind| report::counted(kind) == 0)).collect()
}
