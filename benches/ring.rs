//! A slot that a NIC fills again and again while a thread reads it whenever it can: how long the write has
//! to wait until it may begin, and what a read costs in between.

mod shapes;

use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use shapes::clock::{Tick, keep_to_core};
use shapes::report::Promise;
use shapes::rivals::{Exchanged, Looked, Rival};
use shapes::spread::{Contest, Contestant, Sample, Taken, contestant};
use shapes::{bench, region};

/// For how long the slot is held by a write, and for how long it is free, in nanoseconds.
const HELD: f64 = 2000.0;
const FREE: f64 = 2000.0;

/// Writes before it counts.
const WARM_UP: usize = 16;

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
        contestant("begin_write", ring(region()))
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

fn main() -> ExitCode {
    bench::main(&[Contest {
        title: "ring, exclusive acquire",
        contestants: writes,
        baselines: &[(0.5, EXCHANGED), (0.9, EXCHANGED), (0.99, PARKING_LOT)],
        aside: Some(("a read in between", PARKING_LOT)),
        rounds: 31,
        samples: 1000,
    }])
}
