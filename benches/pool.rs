//! What a slot of a pool costs to take and give back, as ratios against the queue that a pool would be
//! made of (pop and push of `crossbeam_queue::ArrayQueue`), alone and beside a thread that does the
//! same; and against what it spares: a registration.

mod shapes;

use std::hint::black_box;
use std::process::ExitCode;

use crossbeam_queue::ArrayQueue;
use rdma_mr::backend::soft::Nic;
use rdma_mr::op::Begin;
use rdma_mr::prelude::*;
use rdma_mr::{MrOptions, MrPool, PoolOptions};
use shapes::runs::beside;
use shapes::turns::{self, Contestant, alone, contestant};

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
fn queue() -> impl Fn(usize) + Send + Sync {
    let queue = ArrayQueue::new(SLOTS);
    (0..SLOTS).for_each(|slot| queue.push(slot).unwrap());
    move |_| {
        let slot = black_box(&queue).pop().unwrap();
        queue.push(black_box(slot)).unwrap();
    }
}

fn try_take() -> impl Fn(usize) + Send + Sync {
    let pool = pool();
    move |_| drop(black_box(black_box(&pool).try_take().unwrap()))
}

fn take() -> impl Fn(usize) + Send + Sync {
    let pool = pool();
    move |_| drop(black_box(black_box(&pool).take().unwrap()))
}

/// A slot that is in flight when its handle is dropped.
fn operation() -> impl Fn(usize) + Send + Sync {
    let pool = pool();
    move |_| {
        let slot = black_box(&pool).take().unwrap();
        let hold = slot.begin_read().unwrap();
        drop(slot);
        drop(black_box(hold));
    }
}

fn one_thread() -> Vec<Contestant> {
    vec![
        contestant(QUEUE, alone(queue())).baseline(),
        contestant("try_take + drop", alone(try_take())).promised(2.0),
        contestant("take + drop", alone(take())).promised(2.0),
        contestant("take + drop, returned by its operation", alone(operation())),
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
        contestant("take + drop", alone(take())),
    ]
}

fn main() -> ExitCode {
    turns::main(&[
        ("slots, one thread", one_thread),
        ("slots, beside another thread", two_threads),
        ("slots, and what they spare", spared),
    ])
}
