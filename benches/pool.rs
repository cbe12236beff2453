//! What a slot of a pool costs to take and give back, as ratios against the queue that a pool would be
//! made of (pop and push of `crossbeam_queue::ArrayQueue`), alone and beside other threads; and against what
//! it spares: a registration.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use rdma_mr::backend::soft::Nic;
use rdma_mr::prelude::*;
use rdma_mr::{MrOptions, MrPool, PoolOptions};

const SLOTS: usize = 64;

fn pool() -> MrPool {
    let size = PoolOptions {
        slot_length: 4096,
        slots_per_registration: SLOTS,
        max_registrations: 1,
    };
    MrOptions::new().pool(&Nic::new().alloc_pd(), size).unwrap()
}

fn queue() -> ArrayQueue<usize> {
    let queue = ArrayQueue::new(SLOTS);
    (0..SLOTS).for_each(|slot| queue.push(slot).unwrap());
    queue
}

fn turn(queue: &ArrayQueue<usize>) {
    let slot = queue.pop().unwrap();
    queue.push(black_box(slot)).unwrap();
}

fn one_thread(c: &mut Criterion) {
    let (pool, queue) = (pool(), queue());
    let mut group = c.benchmark_group("take and return");
    group.bench_function("ArrayQueue pop + push", |b| {
        b.iter(|| turn(black_box(&queue)));
    });
    group.bench_function("try_take + drop", |b| {
        b.iter(|| drop(black_box(black_box(&pool).try_take().unwrap())));
    });
    group.bench_function("take + drop", |b| {
        b.iter(|| drop(black_box(black_box(&pool).take().unwrap())));
    });
    group.bench_function("take + drop, returned by its operation", |b| {
        b.iter(|| {
            let slot = black_box(&pool).take().unwrap();
            let hold = slot.begin_read().unwrap();
            drop(slot);
            drop(black_box(hold));
        });
    });
    group.finish();

    let pd = Nic::new().alloc_pd();
    let mut group = c.benchmark_group("what it spares");
    group.bench_function("LocalMr::alloc + drop", |b| {
        b.iter(|| LocalMr::alloc(&pd, 4096).unwrap());
    });
    group.finish();
}

/// Runs `f` beside a thread that does nothing else.
fn beside(f: impl Fn() + Sync, measured: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                f();
            }
        });
        measured();
        stop.store(true, Ordering::Relaxed);
    });
}

fn two_threads(c: &mut Criterion) {
    let (pool, queue) = (pool(), queue());
    let mut group = c.benchmark_group("take and return, beside another thread");
    let take = || drop(black_box(black_box(&pool).try_take().unwrap()));
    beside(
        || turn(&queue),
        || {
            group.bench_function("ArrayQueue pop + push", |b| {
                b.iter(|| turn(black_box(&queue)));
            });
        },
    );
    beside(take, || {
        group.bench_function("try_take + drop", |b| b.iter(take));
    });
    group.finish();
}

criterion_group!(benches, one_thread, two_threads);
criterion_main!(benches);
