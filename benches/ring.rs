//! A slot that a NIC fills again and again while a thread reads it whenever it can: how long the write has
//! to wait until it may begin, and what a read costs in between.

mod shapes;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Once};

use crossbeam_utils::CachePadded;
use rdma_mr::gate::{self, ReadBias};
use rdma_mr::op::Begin;
use rdma_mr::prelude::*;
use shapes::clock::{Tick, keep_to_core};
use shapes::report::Promise;
use shapes::rivals::{Exchanged, Looked, Rival};
use shapes::spread::{Contest, Contestant, Sample, Taken, contestant};
use shapes::{allowing_bias, bench, biased, region};

/// For how long the slot is held by a write, and for how long it is free, in nanoseconds.
const HELD: f64 = 2000.0;
const FREE: f64 = 2000.0;

/// Writes before it counts.
const WARM_UP: usize = 16;

const PLAIN: &str = "begin_write";
const EXCHANGED: &str = "floor: a plain compare_exchange, again until it succeeds";
const PARKING_LOT: &str = "rival: parking_lot write";

/// One thread writes, another reads; samples are of how long a write waits for its hold.
fn ring<T: Rival + 'static>(slot: T) -> Sample {
    let slot = CachePadded::new(slot);
    Box::new(move |samples| {
        let (both, over) = (Barrier::new(2), AtomicBool::new(false));
        let reads = CachePadded::new(AtomicU64::new(0));
        let mut taken = Taken::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                keep_to_core(1);
                both.wait();
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    slot.shared(|| ());
                    count += 1;
                    reads.store(count, Ordering::Relaxed);
                }
            });
            keep_to_core(0);
            both.wait();
            let (mut free, mut first) = (0.0, 0);
            let mut released = Tick::now();
            for n in 0..WARM_UP + samples {
                if n == WARM_UP {
                    (free, first) = (0.0, reads.load(Ordering::Relaxed));
                }
                released.after(FREE).reach();
                let asked = Tick::now();
                let mut begun = asked;
                slot.exclusive(|| {
                    begun = Tick::now();
                    begun.after(HELD).reach();
                });
                free += begun.since(released);
                released = Tick::now();
                if n >= WARM_UP {
                    taken.nanos.push(begun.since(asked));
                }
            }
            let reads = reads.load(Ordering::Relaxed) - first;
            taken.aside = Some(free / reads.max(1) as f64);
            over.store(true, Ordering::Relaxed);
        });
        taken
    })
}

fn writes() -> Vec<Contestant> {
    vec![
        contestant(PLAIN, ring(region()))
            .promised(0.5, Promise::More(60.0))
            .promised(0.99, Promise::Ratio(1.0)),
        contestant(EXCHANGED, ring(Exchanged::default())),
        contestant(
            "floor: a compare_exchange, readers only look and count nowhere",
            ring(Looked::default()),
        ),
        contestant(PARKING_LOT, ring(parking_lot::RwLock::new(0))),
        contestant("rival: std write", ring(std::sync::RwLock::new(0))),
    ]
}

/// Bias is of no use here: it must not come back.
fn allowed() -> Vec<Contestant> {
    let allowing = || {
        let mr = allowing_bias(ReadBias::default());
        drop(mr.begin_write().unwrap());
        mr
    };
    vec![
        contestant(PLAIN, ring(region())),
        contestant("begin_write, bias allowed", ring(allowing()))
            .promised(0.5, Promise::Ratio(1.1)),
    ]
}

/// With this one, 64 threads have read so, and are there still: in the whole process, whoever asks.
fn readers() {
    static READ: Once = Once::new();
    READ.call_once(|| {
        let mr = biased(gate::Barrier::Fence);
        drop(mr.as_slice());
        let both = Arc::new((mr, Barrier::new(64)));
        for _ in 1..64 {
            let both = Arc::clone(&both);
            std::thread::spawn(move || {
                drop(both.0.as_slice());
                both.1.wait();
                loop {
                    std::thread::park();
                }
            });
        }
        both.1.wait();
    });
}

/// How long a write has to wait of a region that nobody reads at the moment.
fn alone(mr: LocalMr) -> Sample {
    readers();
    Box::new(move |samples| {
        let mut taken = Taken::default();
        keep_to_core(0);
        for _ in 0..samples {
            // Is biased again by that, if it may be.
            drop(mr.as_slice());
            let asked = Tick::now();
            let hold = mr.begin_write().unwrap();
            taken.nanos.push(Tick::now().since(asked));
            drop(hold);
        }
        taken
    })
}

fn revocations() -> Vec<Contestant> {
    vec![
        contestant(PLAIN, alone(region())),
        contestant(
            "begin_write, biased, 64 threads have read so",
            alone(biased(gate::Barrier::Fence)),
        )
        .promised(0.5, Promise::Value(200.0)),
        contestant(
            "begin_write, biased by membarrier, 64 threads have read so",
            alone(biased(gate::Barrier::Membarrier)),
        ),
    ]
}

fn main() -> ExitCode {
    let contest = |title, contestants| Contest {
        title,
        contestants,
        baselines: &[(0.5, PLAIN), (0.99, PLAIN)],
        aside: None,
        rounds: 31,
        samples: 1000,
    };
    bench::main(&[
        Contest {
            baselines: &[(0.5, EXCHANGED), (0.9, EXCHANGED), (0.99, PARKING_LOT)],
            aside: Some(("a read in between", PARKING_LOT)),
            ..contest("ring, exclusive acquire", writes)
        },
        contest("ring, bias allowed", allowed),
        contest("exclusive acquire of a biased region", revocations),
    ])
}
