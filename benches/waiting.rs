//! How long it takes from the release of what is held until a thread that waits for it runs on: when it
//! has waited so shortly that it is still awake, and when it sleeps.

mod shapes;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use shapes::clock::{Tick, keep_to_core};
use shapes::report::Promise;
use shapes::rivals::{Async, Futex, Looked, Rival};
use shapes::spread::{Contest, Contestant, Sample, Taken, contestant};
use shapes::{bench, region};

const SPUN: &str = "floor: a bare word, spun on";
const FUTEX: &str = "floor: a raw futex";

/// The number of a turn, or a moment.
type Note = CachePadded<AtomicU64>;

fn wait_for(note: &Note, value: u64) {
    // Ordering: Acquire pairs with the Release of the other thread's note.
    while note.load(Ordering::Acquire) != value {
        std::hint::spin_loop();
    }
}

/// One thread holds `what` for `nanos` after another has begun to wait for it.
fn wake<T: Rival + 'static>(what: T, nanos: f64) -> Sample {
    let what = CachePadded::new(what);
    Box::new(move |samples| {
        let (held, waiting, woken) = (Note::default(), Note::default(), Note::default());
        let woken_at = Note::default();
        let mut taken = Taken::default();
        std::thread::scope(|scope| {
            keep_to_core(0);
            scope.spawn(|| {
                keep_to_core(1);
                for turn in 1..=samples as u64 {
                    wait_for(&held, turn);
                    // Ordering: Release pairs with the Acquire in `wait_for`, here and below.
                    waiting.store(turn, Ordering::Release);
                    what.shared(|| {
                        let Tick(now) = Tick::now();
                        // Ordering: Relaxed. Published by the next.
                        woken_at.store(now, Ordering::Relaxed);
                    });
                    woken.store(turn, Ordering::Release);
                }
            });
            for turn in 1..=samples as u64 {
                let mut released = Tick(0);
                what.exclusive(|| {
                    held.store(turn, Ordering::Release);
                    wait_for(&waiting, turn);
                    Tick::now().after(nanos).reach();
                    released = Tick::now();
                });
                wait_for(&woken, turn);
                // Ordering: Relaxed. After the turn's note.
                let woken_at = Tick(woken_at.load(Ordering::Relaxed));
                taken.nanos.push(woken_at.since(released));
            }
        });
        taken
    })
}

/// What is compared everywhere.
fn locks(nanos: f64) -> [Contestant; 3] {
    [
        contestant(
            "rival: parking_lot read",
            wake(parking_lot::RwLock::new(0), nanos),
        ),
        contestant("rival: std read", wake(std::sync::RwLock::new(0), nanos)),
        contestant(
            "rival: tokio blocking_read",
            wake(tokio::sync::RwLock::new(0), nanos),
        ),
    ]
}

fn awake() -> Vec<Contestant> {
    const NANOS: f64 = 5_000.0;
    let mut all = vec![
        contestant("as_slice", wake(region(), NANOS)).promised(0.5, Promise::More(100.0)),
        contestant(SPUN, wake(Looked::default(), NANOS)),
    ];
    all.extend(locks(NANOS));
    all
}

fn asleep(nanos: f64) -> Vec<Contestant> {
    let mut all = vec![
        contestant("as_slice", wake(region(), nanos)).promised(0.5, Promise::Ratio(1.1)),
        contestant("as_slice_async, on a thread", wake(Async(region()), nanos)),
        contestant(FUTEX, wake(Futex::default(), nanos)),
    ];
    all.extend(locks(nanos));
    all
}

fn main() -> ExitCode {
    let contest = |title, contestants, baselines, samples| Contest {
        title,
        contestants,
        baselines,
        aside: None,
        rounds: 31,
        samples,
    };
    const OF_SPUN: &[(f64, &str)] = &[(0.5, SPUN), (0.9, SPUN), (0.99, SPUN)];
    const OF_FUTEX: &[(f64, &str)] = &[(0.5, FUTEX), (0.9, FUTEX), (0.99, FUTEX)];
    bench::main(&[
        contest("wake-up after 5 µs", awake, OF_SPUN, 200),
        contest("wake-up after 100 µs", || asleep(100_000.0), OF_FUTEX, 100),
        contest("wake-up after 1 ms", || asleep(1_000_000.0), OF_FUTEX, 20),
    ])
}
