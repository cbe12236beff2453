//! What a slot of a pool costs to take and give back, as ratios against the queue that a pool would be
//! made of (pop and push of `crossbeam_queue::ArrayQueue`), alone and beside a thread that does the
//! same; and against what it spares: a registration.

mod shapes;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use rdma_mr::backend::soft::Nic;
use rdma_mr::op::Begin;
use rdma_mr::prelude::*;
use rdma_mr::{MrOptions, MrPool, PoolOptions};
use shapes::turns::{self, Contestant, Run, alone, contestant};

const SLOTS: usize = 64;

const QUEUE: &str = "floor: ArrayQueue pop + push";

fn pool() -> MrPool {
    let size = PoolOptions {
        slot_length: 4096,
        slots_per_registration: SLOTS,
        max_registrations: 1,
    };
    MrOptions::new().pool(&Nic::new().alloc_pd(), size).unwrap()
}

/// A queue of numbers: there and back.
fn queue() -> impl Fn() + Sync {
    let queue = ArrayQueue::new(SLOTS);
    (0..SLOTS).for_each(|slot| queue.push(slot).unwrap());
    move || {
        let slot = black_box(&queue).pop().unwrap();
        queue.push(black_box(slot)).unwrap();
    }
}

fn try_take() -> impl Fn() + Sync {
    let pool = pool();
    move || drop(black_box(black_box(&pool).try_take().unwrap()))
}

fn take() -> impl Fn() + Sync {
    let pool = pool();
    move || drop(black_box(black_box(&pool).take().unwrap()))
}

/// A slot that is in flight when its handle is dropped.
fn operation() -> impl Fn() + Sync {
    let pool = pool();
    move || {
        let slot = black_box(&pool).take().unwrap();
        let hold = slot.begin_read().unwrap();
        drop(slot);
        drop(black_box(hold));
    }
}

fn once(turn: impl Fn() + 'static) -> Run {
    alone(move |_| turn())
}

/// Beside a thread that does nothing else.
fn beside(turn: impl Fn() + Sync + 'static) -> Run {
    Box::new(move |count| {
        let (both, over) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                while !over.load(Ordering::Relaxed) {
                    turn();
                }
            });
            both.wait();
            let start = Instant::now();
            (0..count).for_each(|_| turn());
            let took = start.elapsed();
            over.store(true, Ordering::Relaxed);
            took
        })
    })
}

fn one_thread() -> Vec<Contestant> {
    vec![
        contestant(QUEUE, once(queue())).baseline(),
        contestant("try_take + drop", once(try_take())).promised(2.0),
        contestant("take + drop", once(take())).promised(2.0),
        contestant("take + drop, returned by its operation", once(operation())),
    ]
}

fn two_threads() -> Vec<Contestant> {
    vec![
        contestant(QUEUE, beside(queue())).baseline(),
        contestant("try_take + drop", beside(try_take())).promised(2.0),
        contestant("take + drop", beside(take())).promised(2.0),
        contestant(
            "take + drop, returned by its operation",
            beside(operation()),
        ),
    ]
}

fn spared() -> Vec<Contestant> {
    let pd = Nic::new().alloc_pd();
    let alloc = move |_| drop(black_box(LocalMr::alloc(&pd, 4096).unwrap()));
    vec![
        contestant("LocalMr::alloc + drop", alone(alloc)).baseline(),
        contestant("take + drop", once(take())),
    ]
}

fn main() -> ExitCode {
    turns::main(&[
        ("slots, one thread", one_thread),
        ("slots, beside another thread", two_threads),
        ("slots, and what they spare", spared),
    ])
}
