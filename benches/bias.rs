//! What a guard costs at a region whose readers are biased, as ratios against parking_lot, and against
//! itself on one thread. What exclusive sides pay for it stands with the ring (`ring.rs`).

mod shapes;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

use crossbeam_utils::CachePadded;
use rdma_mr::gate::Barrier;
use shapes::paths::{self, look};
use shapes::runs::Threads;
use shapes::turns::{self, Contestant, contestant};
use shapes::{bare, behind};

const PARKING_LOT: &str = "rival: parking_lot read";

fn biased_read() -> impl Fn(usize) {
    paths::biased(Barrier::Fence)
}

fn biased_read_by_membarrier() -> impl Fn(usize) {
    paths::biased(Barrier::Membarrier)
}

fn parking_lot_read() -> impl Fn(usize) {
    look(behind(parking_lot::RwLock::new), |lock| {
        lock.read().bytes[0]
    })
}

/// What every slot of a reader's own asks for: it is filled, the order is kept, the word is looked at, and
/// it is emptied.
fn slot(order: fn()) -> impl Fn(usize) {
    let slot = || CachePadded::new(AtomicU64::new(0));
    look((bare(), slot()), move |(bare, slot)| {
        slot.store(1, Ordering::Relaxed);
        order();
        assert_eq!(bare.0.load(Ordering::Acquire), 0);
        let read = bare.1.bytes[0];
        slot.store(0, Ordering::Release);
        read
    })
}

fn slot_and_fence() -> impl Fn(usize) {
    slot(|| fence(Ordering::SeqCst))
}

fn slot_alone() -> impl Fn(usize) {
    slot(|| compiler_fence(Ordering::SeqCst))
}

fn reads(threads: Threads, promised: f64) -> Vec<Contestant> {
    vec![
        contestant(PARKING_LOT, threads.run(parking_lot_read)).baseline(),
        contestant("as_slice, biased", threads.run(biased_read)).promised(promised),
        contestant(
            "as_slice, biased by membarrier",
            threads.run(biased_read_by_membarrier),
        ),
        contestant("as_slice", threads.run(paths::as_slice)),
    ]
}

fn alone() -> Vec<Contestant> {
    let mut all = reads(Threads::One, 0.5);
    all.extend([
        contestant(
            "floor: a slot and a fence",
            Threads::One.run(slot_and_fence),
        ),
        contestant("floor: a slot alone", Threads::One.run(slot_alone)),
    ]);
    all
}

fn the_same() -> Vec<Contestant> {
    reads(Threads::Same, 0.1)
}

fn one_and_two() -> Vec<Contestant> {
    vec![
        contestant("one thread", Threads::One.run(biased_read)).baseline(),
        contestant("two threads, one region", Threads::Same.run(biased_read)).promised(1.2),
        contestant(
            "two threads, a region each",
            Threads::Apart.run(biased_read),
        ),
        contestant(
            "floor: a slot and a fence, one thread",
            Threads::One.run(slot_and_fence),
        ),
        contestant(
            "floor: a slot and a fence, two threads, each its own",
            Threads::Apart.run(slot_and_fence),
        ),
    ]
}

fn main() -> ExitCode {
    turns::main(&[
        ("biased read guard, one thread", alone),
        ("biased read guard, two threads, one region", the_same),
        (
            "biased read guard, against itself on one thread",
            one_and_two,
        ),
    ])
}
