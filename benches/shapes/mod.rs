//! The shapes of an operation, from begin over the post's bookkeeping to the completion, each once:
//! ours, what they replace, and the floor under all. The benches time them and count their instructions.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub mod bench;
pub mod clock;
pub mod fake;
pub mod paths;
pub mod report;
pub mod rivals;
pub mod runs;
pub mod spread;
pub mod turns;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::{ArcRwLockWriteGuard, RawRwLock, RwLock};
use rdma_mr::MrOptions;
use rdma_mr::backend::soft::Nic;
use rdma_mr::gate::{Barrier, ReadBias};
use rdma_mr::op::{Begin, Hold, recv_slots, send_ring};
use rdma_mr::prelude::*;
use rdma_mr::work::{SendFlags, Sge, WcStatus};

/// How many regions are used in turn: more than are ever outstanding, so that nobody waits for one.
pub const REGIONS: usize = 128;

/// What the queues take.
pub const DEPTH: u32 = 128;

/// What stands for the work request being written, after the hold has been had.
pub fn hand_to_the_device(wr_id: u64, sge: Sge) {
    black_box((wr_id, sge));
}

/// Two compare-exchanges: to `1`, and back.
pub fn swap_in(word: &AtomicU64) {
    swap(word, 0, 1, Ordering::Acquire);
}

pub fn swap_out(word: &AtomicU64) {
    swap(word, 1, 0, Ordering::Release);
}

fn swap(word: &AtomicU64, from: u64, to: u64, order: Ordering) {
    let swapped = word.compare_exchange(from, to, order, Ordering::Relaxed);
    assert!(swapped.is_ok());
}

/// One of each, used in turn.
pub struct Each<T>(Box<[T; REGIONS]>);

impl<T> Each<T> {
    pub fn new(make: impl FnMut() -> T) -> Self {
        let all: Vec<T> = std::iter::repeat_with(make).take(REGIONS).collect();
        Each(all.try_into().unwrap_or_else(|_| unreachable!()))
    }

    pub fn nth(&self, n: usize) -> &T {
        &self.0[n % REGIONS]
    }
}

pub fn region() -> LocalMr {
    LocalMr::alloc(&Nic::new().alloc_pd(), 4096).unwrap()
}

/// A region that begins biased, and is so again at the first read after an exclusive hold.
pub fn biased(barrier: Barrier) -> LocalMr {
    allowing_bias(ReadBias {
        quiet: Duration::ZERO,
        barrier,
    })
}

pub fn allowing_bias(bias: ReadBias) -> LocalMr {
    let options = MrOptions::new().read_bias(bias);
    options.alloc(&Nic::new().alloc_pd(), 4096).unwrap()
}

/// What a key would be that stands alone.
pub fn word() -> AtomicU64 {
    AtomicU64::new(7)
}

pub fn load(word: &AtomicU64) -> u32 {
    word.load(Ordering::Relaxed) as u32
}

pub fn regions() -> Each<LocalMr> {
    let pd = Nic::new().alloc_pd();
    Each::new(|| LocalMr::alloc(&pd, 4096).unwrap())
}

/// A side that begins and posts, with the work request's id as the result, and one that has polled a
/// completion with that id.
macro_rules! sides {
    () => { (impl FnMut(usize) -> u64 + Send, impl FnMut(u64) + Send) };
}

/// Two RMWs on a line of each region's own, and an id that leads there.
pub fn floor() -> sides!() {
    let words = Arc::new(Each::new(|| CachePadded::new(AtomicU64::new(0))));
    let theirs = Arc::clone(&words);
    let post = move |n| {
        swap_in(words.nth(n));
        let wr_id = (n + 1) as u64;
        hand_to_the_device(wr_id, Sge::default());
        wr_id
    };
    let complete = move |wr_id| swap_out(theirs.nth(wr_id as usize - 1));
    (post, complete)
}

/// The hold itself as the id.
pub fn hold_as_wr_id() -> sides!() {
    let regions = regions();
    let post = move |n| {
        let hold = regions.nth(n).begin_write().unwrap();
        let sge = hold.sge();
        let wr_id = hold.into_wr_id();
        hand_to_the_device(wr_id, sge);
        wr_id
    };
    // SAFETY: WRID-1 to WRID-3: it comes from the other side, once, and nothing was posted.
    let complete = |wr_id| drop(unsafe { Hold::from_wr_id(wr_id) });
    (post, complete)
}

/// A ring beside the queue.
pub fn ring() -> sides!() {
    let regions = regions();
    let (mut poster, mut completer) = send_ring(DEPTH, 1);
    let post = move |n| {
        let hold = regions.nth(n).begin_write().unwrap();
        let prepared = poster.prepare(hold, SendFlags::SIGNALED).unwrap();
        hand_to_the_device(prepared.wr_id(), prepared.sges()[0]);
        prepared.commit().wr_id()
    };
    let complete = move |wr_id| {
        // SAFETY: COMPLETE-1: it comes from the other side, once, and nothing was posted.
        let over = unsafe { completer.complete(wr_id, WcStatus::Success) }.unwrap();
        black_box(over.count());
    };
    (post, complete)
}

/// The slots of a shared receive queue.
pub fn slots() -> sides!() {
    let regions = regions();
    let (mut poster, completer) = recv_slots(DEPTH, 1);
    let post = move |n| {
        let hold = regions.nth(n).begin_write().unwrap();
        let prepared = poster.prepare(hold).unwrap();
        hand_to_the_device(prepared.wr_id(), prepared.sges()[0]);
        prepared.commit().wr_id()
    };
    let complete = move |wr_id| {
        // SAFETY: COMPLETE-1: it comes from the other side, once, and nothing was posted.
        let over = unsafe { completer.complete(wr_id, WcStatus::Success) }.unwrap();
        black_box(over.count());
    };
    (post, complete)
}

/// Bytes as those have them who keep them behind a lock: a region's are elsewhere, too. So long that
/// what two threads have lies on lines apart.
pub struct Memory {
    pub bytes: Box<[u8]>,
    lkey: u32,
    _apart: [u8; 256],
}

impl Memory {
    pub fn sge(&self) -> Sge {
        Sge {
            addr: self.bytes.as_ptr() as u64,
            length: self.bytes.len() as u32,
            lkey: self.lkey,
        }
    }
}

/// A lock of some kind over bytes, in the `Arc` that an operation's guard needs.
pub fn behind<L>(lock: impl Fn(Memory) -> L) -> Arc<L> {
    Arc::new(lock(Memory {
        bytes: vec![0; 4096].into(),
        lkey: 7,
        _apart: [0; 256],
    }))
}

/// A word beside the bytes, and nothing that is decided by it.
pub fn bare() -> Arc<(AtomicU64, Memory)> {
    behind(|memory| (AtomicU64::new(0), memory))
}

/// What a region is to those who keep it behind a lock.
#[derive(Default)]
pub struct Locked {
    pub addr: u64,
    pub length: u32,
    pub lkey: u32,
}

type Guards = HashMap<u64, ArcRwLockWriteGuard<RawRwLock, Locked>>;

/// The mutex around the guards.
pub trait Table: Default + Send + Sync + 'static {
    fn with<R>(&self, f: impl FnOnce(&mut Guards) -> R) -> R;
}

impl Table for std::sync::Mutex<Guards> {
    fn with<R>(&self, f: impl FnOnce(&mut Guards) -> R) -> R {
        f(&mut self.lock().unwrap())
    }
}

impl Table for parking_lot::Mutex<Guards> {
    fn with<R>(&self, f: impl FnOnce(&mut Guards) -> R) -> R {
        f(&mut self.lock())
    }
}

/// What is replaced: a write guard that owns its region, in a map by the work request's id, with the
/// mutex of the standard library.
pub fn guards_with_std() -> sides!() {
    guards_in_a_map::<std::sync::Mutex<Guards>>()
}

/// As [`guards_with_std`], with parking_lot's mutex.
pub fn guards_with_parking_lot() -> sides!() {
    guards_in_a_map::<parking_lot::Mutex<Guards>>()
}

fn guards_in_a_map<T: Table>() -> sides!() {
    let regions = Each::new(|| {
        Arc::new(RwLock::new(Locked {
            addr: 1 << 20,
            length: 4096,
            lkey: 7,
        }))
    });
    let outstanding = Arc::new(T::default());
    outstanding.with(|guards| guards.reserve(DEPTH as usize));
    let theirs = Arc::clone(&outstanding);
    let mut wr_id = 0;
    let post = move |n| {
        let guard = regions.nth(n).write_arc();
        let sge = Sge {
            addr: guard.addr,
            length: guard.length,
            lkey: guard.lkey,
        };
        wr_id += 1;
        outstanding.with(|guards| guards.insert(wr_id, guard));
        hand_to_the_device(wr_id, sge);
        wr_id
    };
    let complete = move |wr_id| {
        let guard = theirs.with(|guards| guards.remove(&wr_id));
        drop(guard.unwrap());
    };
    (post, complete)
}
