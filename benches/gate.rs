//! What a hold costs, as ratios against what would be used instead: bare RMWs (the floor of any shared
//! word), and the reader-writer locks that there are; on one thread, and on two at one region or at
//! one each.
//!
//! All read or write one byte of what they hold, which lies elsewhere, and all are reached through an
//! `Arc`, or what a region has in its place. A guard by `*_arc` owns what it locks, as the hold of an
//! operation does.

mod shapes;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use crossbeam_utils::sync::ShardedLock;
use rdma_mr::prelude::*;
use shapes::paths::{self, in_flight, look};
use shapes::runs::{Threads, apart, sixteen};
use shapes::turns::{self, Contestant, alone, contestant};
use shapes::{Memory, bare, behind, load, swap_in, swap_out, word};

type ParkingLot = parking_lot::RwLock<Memory>;
type Std = std::sync::RwLock<Memory>;
type Tokio = tokio::sync::RwLock<Memory>;

const ADD_SUB: &str = "floor: fetch_add + fetch_sub";
const TWO_SWAPS: &str = "floor: two compare_exchange";
const PARKING_LOT_READ: &str = "rival: parking_lot read";
const PARKING_LOT_WRITE: &str = "rival: parking_lot write";

/// `saa::Lock` has no guards and no data.
fn saa() -> Arc<(saa::Lock, Memory)> {
    behind(|memory| (saa::Lock::new(), memory))
}

/// The values are looked at, as a lock has to: a processor has other instructions where nobody does.
fn add_sub() -> impl Fn(usize) {
    look(bare(), |bare| {
        // Nobody changes where the bytes are.
        let bytes = &*bare.1.bytes;
        let before = bare.0.fetch_add(1, Ordering::Acquire);
        let read = bytes[0];
        before + u64::from(read) + bare.0.fetch_sub(1, Ordering::Release)
    })
}

fn add_sub_unseen() -> impl Fn(usize) {
    look(bare(), |bare| {
        bare.0.fetch_add(1, Ordering::Acquire);
        bare.0.fetch_sub(1, Ordering::Release);
    })
}

fn parking_lot_read() -> impl Fn(usize) {
    look(behind(ParkingLot::new), |lock| lock.read().bytes[0])
}

fn other_readers(threads: Threads) -> Vec<Contestant> {
    vec![
        contestant(
            "the floor's sums without a look, nor at the byte",
            threads.run(add_sub_unseen),
        ),
        contestant("try_as_slice", threads.run(paths::try_as_slice)),
        contestant(
            "rival: parking_lot read_arc",
            threads.run(|| look(behind(ParkingLot::new), |lock| lock.read_arc().bytes[0])),
        ),
        contestant(
            "rival: std read",
            threads.run(|| look(behind(Std::new), |lock| lock.read().unwrap().bytes[0])),
        ),
        contestant(
            "rival: tokio try_read",
            threads.run(|| look(behind(Tokio::new), |lock| lock.try_read().unwrap().bytes[0])),
        ),
        contestant(
            "rival: saa share",
            threads.run(|| {
                look(saa(), |saa| {
                    saa.0.share_sync();
                    let read = saa.1.bytes[0];
                    saa.0.release_share();
                    read
                })
            }),
        ),
        contestant(
            "rival: crossbeam ShardedLock read",
            threads.run(|| {
                look(behind(ShardedLock::new), |lock| {
                    lock.read().unwrap().bytes[0]
                })
            }),
        ),
        contestant(
            "rival: arc-swap load, which keeps nobody from writing",
            threads.run(|| look(behind(ArcSwap::from_pointee), |swap| swap.load().bytes[0])),
        ),
    ]
}

fn read_alone() -> Vec<Contestant> {
    let one = Threads::One;
    let mut all = vec![
        contestant(ADD_SUB, one.run(add_sub)).baseline(),
        contestant("as_slice", one.run(paths::as_slice)).promised(1.1),
        contestant(PARKING_LOT_READ, one.run(parking_lot_read)),
    ];
    all.extend(other_readers(one));
    all
}

fn read_against_parking_lot() -> Vec<Contestant> {
    let one = Threads::One;
    vec![
        contestant(PARKING_LOT_READ, one.run(parking_lot_read)).baseline(),
        contestant("as_slice", one.run(paths::as_slice)).promised(0.8),
    ]
}

fn read_by_two(threads: Threads, promised: f64) -> Vec<Contestant> {
    let mut all = vec![
        contestant(PARKING_LOT_READ, threads.run(parking_lot_read)).baseline(),
        contestant("as_slice", threads.run(paths::as_slice)).promised(promised),
        contestant(ADD_SUB, threads.run(add_sub)),
    ];
    all.extend(other_readers(threads));
    all
}

fn read_the_same() -> Vec<Contestant> {
    read_by_two(Threads::Same, 0.85)
}

fn read_apart() -> Vec<Contestant> {
    read_by_two(Threads::Apart, 1.0)
}

fn two_swaps() -> impl Fn(usize) {
    look(bare(), |bare| {
        let bytes = &*bare.1.bytes;
        swap_in(&bare.0);
        // Not written: that would be unsafe.
        let read = bytes[0];
        swap_out(&bare.0);
        read
    })
}

fn parking_lot_write() -> impl Fn(usize) {
    look(behind(ParkingLot::new), |lock| lock.write().bytes[0] = 1)
}

fn other_writers(threads: Threads) -> Vec<Contestant> {
    vec![
        contestant(TWO_SWAPS, threads.run(two_swaps)),
        contestant(
            "rival: parking_lot write_arc",
            threads.run(|| {
                look(behind(ParkingLot::new), |lock| {
                    lock.write_arc().bytes[0] = 1
                })
            }),
        ),
        contestant(
            "rival: std write",
            threads.run(|| look(behind(Std::new), |lock| lock.write().unwrap().bytes[0] = 1)),
        ),
        contestant(
            "rival: tokio try_write",
            threads.run(|| {
                look(behind(Tokio::new), |lock| {
                    lock.try_write().unwrap().bytes[0] = 1
                })
            }),
        ),
        contestant(
            "rival: crossbeam ShardedLock write",
            threads.run(|| {
                look(behind(ShardedLock::new), |lock| {
                    lock.write().unwrap().bytes[0] = 1
                })
            }),
        ),
    ]
}

fn write_alone() -> Vec<Contestant> {
    let mut all = vec![
        contestant(PARKING_LOT_WRITE, alone(parking_lot_write())).baseline(),
        contestant("as_mut_slice", alone(paths::as_mut_slice())).promised(1.05),
    ];
    all.extend(other_writers(Threads::One));
    all
}

/// On one region there are no two: who writes has its handle.
fn write_apart() -> Vec<Contestant> {
    let mut all = vec![
        contestant(PARKING_LOT_WRITE, apart(parking_lot_write)).baseline(),
        contestant("as_mut_slice", apart(paths::as_mut_slice)).promised(1.05),
    ];
    all.extend(other_writers(Threads::Apart));
    all
}

fn refusals() -> Vec<Contestant> {
    let parking_lot = || {
        let lock = behind(ParkingLot::new);
        std::mem::forget(lock.write());
        lock
    };
    let std = behind(Std::new);
    std::mem::forget(std.write());
    let tokio = behind(Tokio::new);
    std::mem::forget(tokio.try_write());
    let saa = saa();
    saa.0.lock_sync();
    vec![
        contestant("overhead: the loop", sixteen!((), |()| 0)).overhead(),
        contestant(
            "floor: an atomic load through an Arc",
            sixteen!(Arc::new(word()), |word| load(word)),
        )
        .baseline(),
        contestant(
            "try_as_slice",
            sixteen!(in_flight(), |mr| mr.try_as_slice().is_none()),
        )
        .promised(1.3),
        contestant("is_readable", sixteen!(in_flight(), |mr| mr.is_readable())),
        contestant(
            "rival: parking_lot try_read",
            sixteen!(parking_lot(), |lock| lock.try_read().is_none()),
        ),
        contestant(
            "rival: parking_lot try_read_arc",
            sixteen!(parking_lot(), |lock| lock.try_read_arc().is_none()),
        ),
        contestant(
            "rival: std try_read",
            sixteen!(std, |lock| lock.try_read().is_err()),
        ),
        contestant(
            "rival: tokio try_read",
            sixteen!(tokio, |lock| lock.try_read().is_err()),
        ),
        contestant(
            "rival: saa try_share",
            sixteen!(saa, |saa| saa.0.try_share().is_err()),
        ),
    ]
}

fn main() -> ExitCode {
    turns::main(&[
        ("read guard, one thread", read_alone),
        (
            "read guard against parking_lot, one thread",
            read_against_parking_lot,
        ),
        ("read guard, two threads, one region", read_the_same),
        ("read guard, two threads, a region each", read_apart),
        ("write guard, one thread", write_alone),
        ("write guard, two threads, a region each", write_apart),
        ("refusal, sixteen, the loop taken off", refusals),
    ])
}
