//! How much memory things take: a region in all, a part, a slice, a guard, a hold. Bytes of the heap as
//! they are asked for, counted for this thread, and bytes of the handle; what is mapped for the payload
//! is the user's and does not count.
#![cfg(all(feature = "soft", not(loom)))]

mod alloc_counter;
mod util;

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use alloc_counter::cost;
use rdma_mr::gate::Gate;
use rdma_mr::op::{Begin, Endpoint, Poller};
use rdma_mr::registration::{Deregister, Registered, Registrar};
use rdma_mr::work::QpCaps;
use rdma_mr::{
    Access, LocalMr, LocalMrInner, LocalMrReadAccess, LocalMrWriteAccess, MrOptions, PoolOptions,
    SharedMr,
};
use util::*;

/// A registration, with a region in it.
const REGION: usize = 168;
/// A part has a pair of lines for itself, and leaves a word of them to the allocator.
const PART: usize = 120;
/// In a pool it has them all.
const SLOT: usize = 128;
/// A registration has one when it has had two regions, or other keys.
const ROLL: usize = 32 + size_of::<Gate>();
/// Where it is, and how long.
const OWNED: usize = 16;
const HANDLE: usize = size_of::<LocalMr>();

/// Has nothing to keep of a registration: what is counted is this crate's.
struct Numbers;

struct Ended;

// SAFETY: REG-1, REG-2: there is no NIC, and no key names anything. REG-3: it never fails.
unsafe impl Registrar for Numbers {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, _: Access) -> io::Result<Registered> {
        Ok(Registered {
            lkey: 1,
            rkey: 2,
            handle: Box::new(Ended),
        })
    }
}

// SAFETY: DEREG-1, DEREG-2, DEREG-3: there is no NIC.
unsafe impl Deregister for Ended {
    fn deregister(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn one() -> LocalMr {
    LocalMr::alloc(&Arc::new(Numbers), 4096).unwrap()
}

#[test]
fn region_memory_in_all() {
    let pd = Arc::new(Numbers);
    let (mr, allocations, bytes) = cost(|| LocalMr::alloc(&pd, 4096).unwrap());
    assert_eq!((allocations, bytes), (1, REGION));
    // What was promised.
    assert!(bytes + HANDLE <= 192);
    // Also of one that peers write.
    let (_shared, _, same) = cost(|| SharedMr::alloc(&pd, 64, Access::all()).unwrap());
    assert_eq!((same, HANDLE), (bytes, 16));
    let (_, _, left) = cost(|| drop(LocalMr::alloc(&pd, 4096).unwrap()));
    assert_eq!(left, 0);
    // Memory of the user's has a box, for its owner.
    let (_mr, _, with_owner) = cost(|| LocalMr::register(&pd, vec![0; 1000]).unwrap());
    assert_eq!(with_owner, bytes + 1000 + OWNED + size_of::<Vec<u8>>());
    drop(mr);
}

#[test]
fn region_memory_of_a_part() {
    let mut mr = one();
    let (part, allocations, bytes) = cost(|| mr.split_to(64).unwrap());
    // With the roll, which is of all of them.
    assert_eq!((allocations, bytes), (2, PART + ROLL));
    const { assert!(PART + HANDLE <= 160) };
    let (parts, _, bytes) = cost(|| {
        let mut parts = Vec::with_capacity(63);
        parts.extend(mr.chunks_of(64).unwrap());
        parts
    });
    // The last one is the region itself.
    assert_eq!(bytes, 62 * PART + 63 * HANDLE);
    drop((part, parts));
}

#[test]
fn region_memory_of_what_borrows_and_holds() {
    let mut mr = one();
    assert_eq!(size_of_val(&mr.get(..8).unwrap()), 24);
    assert_eq!(size_of_val(&mr.get_mut(..8).unwrap()), 24);
    assert_eq!(size_of_val(&mr.begin_read().unwrap()), 24);
    assert_eq!(size_of_val(&mr.as_slice()), 40);
    assert_eq!(size_of_val(&mr.as_mut_slice()), 32);
}

/// What a rotation leaves behind is the published state, once.
#[test]
fn region_memory_after_rotations() {
    let rotate = |mr: &LocalMr| {
        mr.rotate_keys().unwrap();
        mr.retire().unwrap();
    };
    // The thread's part of the epochs is made once.
    rotate(&one());
    let pd = Arc::new(Numbers);
    let (mr, _, bytes) = cost(|| {
        let mr = LocalMr::alloc(&pd, 4096).unwrap();
        rotate(&mr);
        mr
    });
    let state = size_of::<LocalMrInner>();
    assert_eq!(bytes, REGION + ROLL + state);
    drop(mr);
}

#[test]
fn region_memory_of_a_slot() {
    let size = PoolOptions {
        slot_length: 64,
        slots_per_registration: 1000,
        max_registrations: 1,
    };
    let pd = Arc::new(Numbers);
    let (pool, _, bytes) = cost(|| MrOptions::new().pool(&pd, size).unwrap());
    let each = bytes / 1000;
    // Its region, and its place in the list of free ones.
    assert_eq!(each, SLOT + 8, "{bytes}");
    drop(pool);
}

/// Room is set apart for all slots that there may be, and is not touched before it is used.
#[cfg(target_os = "linux")]
#[test]
fn region_memory_of_slots_that_may_never_be() {
    let size = PoolOptions {
        slot_length: 64,
        slots_per_registration: 1000,
        max_registrations: 4000,
    };
    let pd = Arc::new(Numbers);
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    };
    let before = resident();
    let pool = MrOptions::new().pool(&pd, size).unwrap();
    let grown = resident().saturating_sub(before);
    assert_eq!(pool.free(), 1000);
    let room = size.slots_per_registration * size.max_registrations * SLOT;
    // Other tests use memory beside this one.
    assert!(grown < room / 4, "{grown} bytes of {room}");
}

/// The NIC in software has a table of keys, and what is in it.
#[test]
fn region_memory_of_the_software_nics_own() {
    let pair = Pair::stepped();
    let _others: Vec<LocalMr> = (0..100).map(|_| pair.alloc(64)).collect();
    let (_mr, _, bytes) = cost(|| pair.alloc(64));
    assert!(bytes <= REGION + 88, "{bytes}");
}

/// Eight times the parts take eight times as long to make and to drop, in any order; more, when they leave the
/// caches or the machine does other things. If each looked at the others it would be 64 times.
#[test]
fn splitting_is_linear() {
    let turn = |parts: usize, backwards: bool| {
        let mr = LocalMr::alloc(&Arc::new(Numbers), 8 * parts).unwrap();
        let start = Instant::now();
        let mut parts: Vec<_> = mr.chunks_of(8).unwrap().collect();
        if backwards {
            parts.reverse();
        }
        drop(parts);
        start.elapsed()
    };
    for backwards in [false, true] {
        let fastest = |parts| (0..7).map(|_| turn(parts, backwards)).min().unwrap();
        let (few, many) = (fastest(5_000), fastest(20_000));
        assert!(
            many < 8 * few,
            "{few:?}, and {many:?} for four times as many"
        );
    }
}

/// What is gone leaves its number behind, which is used again as late as can be, and not its rings.
#[test]
fn a_poller_keeps_little_of_queue_pairs_that_are_gone() {
    const MANY: usize = 1000;
    let pair = Pair::stepped();
    let cq = pair.nic.create_cq(64).unwrap();
    let poller = Poller::new(cq.clone());
    let come_and_go = || {
        let qp = pair.pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
        drop(Endpoint::attach(qp, &poller).map_err(|rejected| rejected.error));
    };
    come_and_go();
    let ((), _, bytes) = cost(|| (0..MANY).for_each(|_| come_and_go()));
    assert!(bytes <= 32 * MANY, "{} bytes each", bytes / MANY);
}
