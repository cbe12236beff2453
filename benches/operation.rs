//! What an operation costs from begin over the post's bookkeeping to its completion, as ratios against
//! the shape that this crate replaces: a write guard that owns its region, in a map behind a mutex.
//!
//! Criterion times each by itself. A table follows in which all take turns within one run: read the
//! ratios off there, on a machine that does other things as well.

mod shapes;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use rdma_mr::op::Begin;
use rdma_mr::work::Sge;
use shapes::clock::keep_to_core;
use shapes::paths::{self, both, look};
use shapes::runs::Threads;
use shapes::turns::{self, Contestant, Run, alone, contestant};
use shapes::{bare, behind, hand_to_the_device, region, swap_in, swap_out};

const STD: &str = "rival: write_arc in a std Mutex<HashMap>";
const PARKING_LOT: &str = "rival: write_arc in a parking_lot Mutex<HashMap>";

/// Begun, told to the device, and ended on the same thread.
fn write_hold() -> impl Fn(usize) {
    look(region(), |mr| {
        let hold = mr.begin_write().unwrap();
        hand_to_the_device(0, hold.sge());
    })
}

fn read_hold() -> impl Fn(usize) {
    look(region(), |mr| {
        let hold = mr.begin_read().unwrap();
        hand_to_the_device(0, hold.sge());
    })
}

fn two_swaps() -> impl Fn(usize) {
    look(bare(), |bare| {
        swap_in(&bare.0);
        hand_to_the_device(0, Sge::default());
        swap_out(&bare.0);
    })
}

/// The values are looked at, as a lock has to.
fn add_sub() -> impl Fn(usize) {
    look(bare(), |bare| {
        let before = bare.0.fetch_add(1, Ordering::Acquire);
        hand_to_the_device(0, Sge::default());
        before + bare.0.fetch_sub(1, Ordering::Release)
    })
}

fn write_arc() -> impl Fn(usize) {
    look(behind(parking_lot::RwLock::new), |lock| {
        let guard = lock.write_arc();
        hand_to_the_device(0, guard.sge());
    })
}

fn read_arc() -> impl Fn(usize) {
    look(behind(parking_lot::RwLock::new), |lock| {
        let guard = lock.read_arc();
        hand_to_the_device(0, guard.sge());
    })
}

/// With the floor, ours and `parking_lot` in that order first: alone beside the floor, and with another
/// thread beside what one would use instead.
fn holds(threads: Threads, first: [Contestant; 3], tokio: Contestant) -> Vec<Contestant> {
    let [floor, ours, parking_lot] = first;
    match threads {
        Threads::One => vec![floor.baseline(), ours.promised(1.15), parking_lot, tokio],
        _ => vec![parking_lot.baseline(), ours.promised(0.85), floor, tokio],
    }
}

fn write_holds(threads: Threads) -> Vec<Contestant> {
    let first = [
        contestant("floor: two compare_exchange", threads.run(two_swaps)),
        contestant("begin_write + drop", threads.run(write_hold)),
        contestant("rival: parking_lot write_arc", threads.run(write_arc)),
    ];
    let tokio = || {
        look(behind(tokio::sync::RwLock::new), |lock| {
            let guard = Arc::clone(lock).try_write_owned().unwrap();
            hand_to_the_device(0, guard.sge());
        })
    };
    let tokio = contestant("rival: tokio try_write_owned", threads.run(tokio));
    holds(threads, first, tokio)
}

fn read_holds(threads: Threads) -> Vec<Contestant> {
    let first = [
        contestant("floor: fetch_add + fetch_sub", threads.run(add_sub)),
        contestant("begin_read + drop", threads.run(read_hold)),
        contestant("rival: parking_lot read_arc", threads.run(read_arc)),
    ];
    let tokio = || {
        look(behind(tokio::sync::RwLock::new), |lock| {
            let guard = Arc::clone(lock).try_read_owned().unwrap();
            hand_to_the_device(0, guard.sge());
        })
    };
    let tokio = contestant("rival: tokio try_read_owned", threads.run(tokio));
    holds(threads, first, tokio)
}

fn on_one_thread() -> Vec<Contestant> {
    vec![
        contestant("floor: two RMWs", alone(both(shapes::floor()))),
        contestant("hold as wr_id", alone(both(shapes::hold_as_wr_id()))).promised(0.18),
        contestant("ring", alone(both(shapes::ring()))).promised(0.3),
        contestant("slots", alone(both(shapes::slots()))),
        contestant("Endpoint on no device", alone(paths::endpoint())),
        contestant(STD, alone(both(shapes::guards_with_std()))).baseline(),
        contestant(PARKING_LOT, alone(both(shapes::guards_with_parking_lot()))).baseline(),
    ]
}

fn from_poster_to_poller() -> Vec<Contestant> {
    let bare = (|n| n as u64 + 1, |_| ());
    vec![
        contestant("floor: the bare pipe", piped(bare)),
        contestant("floor: two RMWs", piped(shapes::floor())),
        contestant("hold as wr_id", piped(shapes::hold_as_wr_id())).promised(0.2),
        contestant("ring", piped(shapes::ring())).promised(0.45),
        contestant("slots", piped(shapes::slots())),
        contestant(STD, piped(shapes::guards_with_std())).baseline(),
        contestant(PARKING_LOT, piped(shapes::guards_with_parking_lot())).baseline(),
    ]
}

/// One thread posts, another completes; between them is what stands for the device.
fn piped<P, C>((mut post, mut complete): (P, C)) -> Run
where
    P: FnMut(usize) -> u64 + Send + 'static,
    C: FnMut(u64) + Send + 'static,
{
    Box::new(move |count| {
        let pipe = Pipe::default();
        let ready = Barrier::new(2);
        std::thread::scope(|scope| {
            let poller = scope.spawn(|| {
                keep_to_core(1);
                ready.wait();
                let mut end = pipe.end();
                for _ in 0..count {
                    complete(end.take());
                }
                Instant::now()
            });
            keep_to_core(0);
            ready.wait();
            let start = Instant::now();
            let mut end = pipe.end();
            for n in 0..count {
                end.put(post(n as usize));
            }
            poller.join().expect("the poller completes all") - start
        })
    })
}

/// Stands for the device and its completion queue: ids that are put in come out.
struct Pipe {
    entries: [Entry; Pipe::CAPACITY as usize],
    head: CachePadded<AtomicU64>,
}

/// As large as an entry of most devices; a mark says that it is there, as the owner bit does.
#[derive(Default)]
#[repr(align(64))]
struct Entry {
    id: AtomicU64,
    /// How often it was written.
    round: AtomicU64,
}

impl Pipe {
    const CAPACITY: u64 = 64;
    /// How many are taken before the other side is told so, as drivers do with a queue's consumer
    /// index. Told of each, a poster that waits for room would take turns with the poller at one line,
    /// and that would be what is measured.
    const BATCH: u64 = 16;

    fn end(&self) -> End<'_> {
        End {
            pipe: self,
            at: 0,
            limit: Self::CAPACITY,
        }
    }

    fn entry(&self, at: u64) -> &Entry {
        &self.entries[(at % Self::CAPACITY) as usize]
    }
}

impl Default for Pipe {
    fn default() -> Self {
        Pipe {
            entries: std::array::from_fn(|_| Entry::default()),
            head: CachePadded::default(),
        }
    }
}

/// One end of the pipe, and how far it is.
struct End<'p> {
    pipe: &'p Pipe,
    at: u64,
    /// Of the end where ids are put in: how far there is room, by what it last saw.
    limit: u64,
}

impl End<'_> {
    fn put(&mut self, id: u64) {
        if self.at == self.limit {
            self.limit = wait(&self.pipe.head, |head| head + Pipe::CAPACITY > self.at);
            self.limit += Pipe::CAPACITY;
        }
        let entry = self.pipe.entry(self.at);
        // Ordering: Relaxed. Published by the mark.
        entry.id.store(id, Ordering::Relaxed);
        let round = 1 + self.at / Pipe::CAPACITY;
        // Ordering: Release pairs with the Acquire in `wait`.
        entry.round.store(round, Ordering::Release);
        self.at += 1;
    }

    fn take(&mut self) -> u64 {
        let entry = self.pipe.entry(self.at);
        wait(&entry.round, |round| round > self.at / Pipe::CAPACITY);
        // Ordering: Relaxed. Published by the mark.
        let id = entry.id.load(Ordering::Relaxed);
        self.at += 1;
        if self.at % Pipe::BATCH == 0 {
            // Ordering: Release pairs with the Acquire in `wait`.
            self.pipe.head.store(self.at, Ordering::Release);
        }
        id
    }
}

/// Until the other end has written what is waited for.
fn wait(word: &AtomicU64, enough: impl Fn(u64) -> bool) -> u64 {
    let mut looks = 0;
    loop {
        // Ordering: Acquire pairs with the Release of `put` and `take`.
        let value = word.load(Ordering::Acquire);
        if enough(value) {
            return value;
        }
        looks += 1;
        // The other thread may have lost its core.
        if looks % 1000 == 0 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

fn main() -> ExitCode {
    turns::main(&[
        ("hold that writes, one thread", || write_holds(Threads::One)),
        ("hold that writes, two threads, a region each", || {
            write_holds(Threads::Apart)
        }),
        ("hold that reads, one thread", || read_holds(Threads::One)),
        ("hold that reads, two threads, one region", || {
            read_holds(Threads::Same)
        }),
        ("operation, one thread", on_one_thread),
        ("operation, poster to poller", from_poster_to_poller),
    ])
}
