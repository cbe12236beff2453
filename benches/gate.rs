//! What a guard costs, as ratios against what would be used instead: two bare RMWs (the floor of any
//! shared word), and the reader-writer locks of std and parking_lot. One run, one thread.

use std::hint::black_box;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use rdma_mr::backend::soft::Nic;
use rdma_mr::prelude::*;

fn shared(c: &mut Criterion) {
    let pd = Nic::new().alloc_pd();
    let mr = LocalMr::alloc(&pd, 4096).unwrap();
    let bare = AtomicU64::new(0);
    let std = RwLock::new(0u64);
    let parking_lot = parking_lot::RwLock::new(0u64);
    let mut group = c.benchmark_group("shared guard");
    group.bench_function("floor: fetch_add + fetch_sub", |b| {
        b.iter(|| {
            black_box(&bare).fetch_add(1, Ordering::Acquire);
            black_box(&bare).fetch_sub(1, Ordering::Release)
        });
    });
    group.bench_function("as_slice", |b| b.iter(|| black_box(&mr).as_slice()[0]));
    group.bench_function("parking_lot read", |b| {
        b.iter(|| *black_box(&parking_lot).read())
    });
    group.bench_function("std read", |b| b.iter(|| *black_box(&std).read().unwrap()));
    group.finish();
}

fn exclusive(c: &mut Criterion) {
    let pd = Nic::new().alloc_pd();
    let mut mr = LocalMr::alloc(&pd, 4096).unwrap();
    let parking_lot = parking_lot::RwLock::new(0u64);
    let mut group = c.benchmark_group("exclusive guard");
    group.bench_function("as_mut_slice", |b| {
        b.iter(|| black_box(&mut mr).as_mut_slice()[0] = 1);
    });
    group.bench_function("parking_lot write", |b| {
        b.iter(|| *black_box(&parking_lot).write() = 1)
    });
    group.finish();
}

fn refused(c: &mut Criterion) {
    let pd = Nic::new().alloc_pd();
    let mr = LocalMr::alloc(&pd, 4096).unwrap();
    let _in_flight = mr.begin_write().unwrap();
    let parking_lot = parking_lot::RwLock::new(0u64);
    let _held = parking_lot.write();
    let bare = AtomicU64::new(1);
    let mut group = c.benchmark_group("refusal");
    group.bench_function("floor: load", |b| {
        b.iter(|| black_box(&bare).load(Ordering::Relaxed))
    });
    group.bench_function("try_as_slice", |b| {
        b.iter(|| black_box(&mr).try_as_slice().is_none());
    });
    group.bench_function("parking_lot try_read", |b| {
        b.iter(|| black_box(&parking_lot).try_read().is_none());
    });
    group.finish();
}

fn operation(c: &mut Criterion) {
    let pd = Nic::new().alloc_pd();
    let mr = LocalMr::alloc(&pd, 4096).unwrap();
    let bare = AtomicU64::new(0);
    let mut group = c.benchmark_group("operation");
    group.bench_function("floor: two RMWs", |b| {
        b.iter(|| {
            black_box(&bare).fetch_add(1, Ordering::Acquire);
            black_box(&bare).fetch_sub(1, Ordering::Release)
        });
    });
    group.bench_function("begin_read + drop", |b| {
        b.iter(|| black_box(&mr).begin_read())
    });
    group.bench_function("begin_write + drop", |b| {
        b.iter(|| black_box(&mr).begin_write())
    });
    group.bench_function("lkey", |b| b.iter(|| black_box(&mr).lkey()));
    group.finish();
}

criterion_group!(benches, shared, exclusive, refused, operation);
criterion_main!(benches);
