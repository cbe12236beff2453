//! A stress of random operations, cancellations and failures, from a seed, on what
//! [`Fabric`](crate::fabric::Fabric) offers: each region's bytes are compared with a reference at every
//! release and in between, and each hold is accounted for at the end.
//!
//! - `book`: what the bytes of a region must be; `region`: regions with a book.
//! - `record`: an operation and what follows from its end; `hub`: those of one poller.
//! - `holds`, `ops`, `recvs`, `lists`: what is posted; `lane`: where; `ends`: how queue pairs come to their end.
//! - `tasks`: operations as futures; `raw`: queues that are kept by hand.
//! - `rotation`: keys that change meanwhile; `shared`: memory that peers may write at any moment;
//!   `peers`: who does.
//! - `readers`: who looks and writes meanwhile; `world`: what all of them share.
//!
//! `RDMA_MR_SEED` and `RDMA_MR_SECONDS` say what and how long. Threads meet as they like, so a seed
//! gives the same choices, not the same run.

mod book;
mod ends;
mod holds;
mod hub;
mod lane;
mod lists;
mod observed;
mod ops;
mod peers;
pub mod random;
mod raw;
mod readers;
mod record;
mod recvs;
mod region;
pub mod report;
mod rotation;
mod shared;
mod tasks;
mod work;
mod world;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fabric::Fabric;
use random::{Random, from_env};
use report::{counted, failed, failure, progressed};
pub use work::AtWork;
use work::Working;
pub use world::World;

/// How long nothing may move.
const STALL: Duration = Duration::from_secs(20);

/// How much longer it may take until all kinds have happened.
const GRACE: Duration = Duration::from_secs(60);

/// Never drops it, which costs its memory for good: not where memory is looked at.
fn forget<T>(value: T) {
    if !report::SPARING.load(Ordering::Relaxed) {
        std::mem::forget(value);
    }
}

/// What a device is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "a real device has one of them")]
pub enum Role {
    /// All of it.
    Plain,
    /// It refuses to register, to deregister, and to destroy queue pairs, now and then.
    Refusing,
    /// It loses completions, or repeats them, now and then.
    Lossy,
}

/// A fabric that can be made to fail.
pub trait Victim: Fabric {
    /// How long a round of futures is waited for.
    const PATIENCE: Duration;
    /// What must have happened at the end, besides what must on any fabric.
    const KINDS: &'static [&'static str];

    fn devices(seed: u64) -> Vec<(Role, Self)>;

    /// Makes something fail, soon.
    fn trouble(&self, role: Role, random: &mut Random);

    /// Nothing fails any more.
    fn calm(&self);

    /// How many registrations there are, if the device can tell.
    fn registrations(&self) -> Option<usize>;
}

/// What must have happened at the end on any fabric.
const KINDS: &[&str] = &[
    "op RECV",
    "op SEND",
    "op WRITE",
    "op WRITE_WITH_IMM",
    "op READ",
    "op FETCH_ADD",
    "op CMP_SWAP",
    "op inline",
    "op shared RECV",
    "op raw RECV",
    "op raw SEND",
    "op future RECV",
    "op future SEND",
    "op future WRITE",
    "op future WRITE_WITH_IMM",
    "op future READ",
    "op future FETCH_ADD",
    "op future CMP_SWAP",
    "list posted",
    "list partly posted",
    "refused full",
    "refused held",
    "cancel deadline passed",
    "cancel hold future dropped",
    "cancel hold future forgotten",
    "cancel gather future dropped",
    "cancel hold given back",
    "cancel operation's future dropped",
    "cancel operation's future forgotten",
    "cancel prepared dropped",
    "cancel prepared taken back",
    "cancel chain dropped",
    "handle dropped free",
    "handle dropped in flight",
    "failed operations",
    "failure bad key",
    "failure queue pair to ERR",
    "failure peer gone",
    "end dropped",
    "end closed",
    "end drained",
    "end drain dropped",
    "end drained until a deadline",
    "end drained with progress",
    "end drain future dropped",
    "end shared queue",
    "pair own pollers",
    "pair two queues each",
    "pair shared poller",
    "pair shared receive queue",
    "pair small completion queues",
    "pair raw, by wr_id",
    "pair raw, by rings",
    "pair futures",
    "pair gone round its rings",
    "rotation of keys",
    "rotation retired",
    "rotation held up",
    "rotation held up until a deadline",
    "rotation abandoned as a future",
    "pair over shared memory",
    "shared record whole",
    "shared record being written",
    "shared record written here",
    "shared record by atomics",
    "shared record by WRITEs",
    "shared record READ",
    "shared record left odd",
    "shared integer",
    "shared place written",
    "shared message",
    "shared dropped in flight",
    "shared pair broken",
    "reader looked",
    "reader looked twice",
    "reader wrote",
    "checks",
    "checks fetched values",
];

/// The whole of it, for `seconds` unless the environment says otherwise.
#[allow(dead_code, reason = "the soak is told otherwise when it ends")]
pub fn run<F: Victim>(seconds: u64) {
    let seed = random::seed();
    let seconds = from_env("RDMA_MR_SECONDS").unwrap_or(seconds);
    println!("RDMA_MR_SEED={seed} RDMA_MR_SECONDS={seconds}");
    let end = Instant::now() + Duration::from_secs(seconds);
    go::<F>(seed, &[], || {
        let now = Instant::now();
        now >= end && (missing::<F>().is_empty() || now >= end + GRACE)
    });
    report::print();
    if let Some(failure) = failure() {
        panic!("RDMA_MR_SEED={seed}: {failure}");
    }
    let missing = missing::<F>();
    assert!(missing.is_empty(), "never happened: {missing:?}");
}

/// What somebody does beside all that: a thread until it is told to end.
pub type Work<F> = fn(&World<F>, Random, &AtWork<'_>);

/// Goes on until it is over, or something failed; `is_over` is asked again and again. What was not
/// accounted for at the end.
pub fn go<F: Victim>(seed: u64, beside: &[Work<F>], is_over: impl FnMut() -> bool) -> u64 {
    let mut random = Random(seed);
    let leaks = rdma_mr::leaks();
    let devices = F::devices(random.next());
    let worlds: Vec<World<F>> = devices
        .into_iter()
        .map(|(role, fabric)| World::new(role, fabric, &mut random))
        .collect();
    let (working, stop) = (Working::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let (working, stop) = (&working, &stop);
        for world in &worlds {
            scope.spawn(move || work::poll(world, stop));
            let workers = if world.role == Role::Plain { 2 } else { 1 };
            for _ in 0..workers {
                let (random, at_work) = (Random(random.next()), working.start());
                scope.spawn(move || work::work(world, random, &at_work));
            }
            for run in beside.iter().copied().chain([readers::run::<F> as Work<F>]) {
                let (random, at_work) = (Random(random.next()), working.start());
                scope.spawn(move || run(world, random, &at_work));
            }
        }
        watch(&worlds, working, is_over);
        stop.store(true, Ordering::SeqCst);
    });
    let before = report::failures();
    world::account(worlds, leaks);
    report::failures() - before
}

/// What has not happened yet.
fn missing<F: Victim>() -> Vec<&'static str> {
    let all = KINDS.iter().chain(F::KINDS).copied();
    all.filter(|what| counted(what) == 0).collect()
}

/// Tells the workers when it is time, and returns when nobody works any more; ends the process if
/// nothing moves.
fn watch<F: Victim>(worlds: &[World<F>], working: &Working, mut is_over: impl FnMut() -> bool) {
    let (mut seen, mut since) = (progressed(), Instant::now());
    while working.is_anybody() {
        thread::sleep(Duration::from_millis(20));
        if is_over() || failed() {
            working.stop();
        }
        if progressed() != seen {
            (seen, since) = (progressed(), Instant::now());
        }
        if since.elapsed() > STALL {
            println!("nothing has moved for {STALL:?}; failed: {}", failed());
            // Those that can tell of their queue pairs.
            working.describe();
            thread::sleep(Duration::from_secs(1));
            worlds.iter().for_each(World::describe);
            report::print();
            std::process::exit(101);
        }
    }
}
