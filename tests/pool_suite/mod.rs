//! Pools of slots, on the NIC in software and on a device: each case a function over a [`Fabric`].

use std::collections::BTreeSet;
use std::thread;

use rdma_mr::op::Begin;
use rdma_mr::work::QpCaps;
use rdma_mr::{
    Error, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions, MrPool, PoolOptions,
    PooledMr,
};

use crate::fabric::{Fabric, finish};

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:expr) => {
        $crate::fabric::tests! { pool_suite [$($attributes)*] $fabric =>
            slots_are_carved_from_one_registration
            a_pool_grows_by_registrations_up_to_its_limit
            r9_a_slot_under_an_operation_is_not_given_out_again
            r9_a_message_arrives_in_a_slot_that_nobody_has
            r14_a_pool_with_slots_out_is_not_closed
            r14_slots_outlive_their_pool
            r1_nobody_else_has_my_slot
            keys_change_under_slots_that_are_out
        }
    };
}
pub(crate) use tests;

/// A pool of `slots` of 64 bytes for each of at most `registrations`.
pub fn pool(fabric: &impl Fabric, slots: usize, registrations: usize) -> MrPool {
    let size = PoolOptions {
        slot_length: 64,
        slots_per_registration: slots,
        max_registrations: registrations,
    };
    MrOptions::new().pool(fabric.pd(), size).unwrap()
}

/// How many registrations there are beside the pool, which has the protection domain itself.
fn registered(fabric: &impl Fabric) -> usize {
    fabric.registered() - 1
}

pub fn slots_are_carved_from_one_registration(fabric: &impl Fabric) {
    let pool = pool(fabric, 4, 2);
    assert_eq!(registered(fabric), 1);
    assert_eq!((pool.slots(), pool.free(), pool.registrations()), (4, 4, 1));
    let mut slots: Vec<PooledMr> = std::iter::from_fn(|| pool.try_take()).collect();
    assert_eq!((slots.len(), pool.free()), (4, 0));
    assert_eq!(registered(fabric), 1, "try_take registers nothing");
    slots.sort_by_key(|slot| slot.addr());
    let first = slots[0].addr();
    for (at, slot) in slots.iter_mut().enumerate() {
        assert_eq!((slot.addr(), slot.length()), (first + at * 64, 64));
        slot.as_mut_slice().fill(at as u8);
    }
    let keys = |slot: &PooledMr| (slot.lkey(), slot.rkey());
    assert!(slots.iter().all(|slot| keys(slot) == keys(&slots[0])));
    // A gate each: an operation on one is nothing to the next.
    let hold = slots[1].begin_write().unwrap();
    assert!(!slots[1].is_readable() && slots[2].is_readable());
    drop(hold);
    for (at, slot) in slots.iter().enumerate() {
        assert!(slot.as_slice().iter().all(|byte| *byte == at as u8));
    }
}

pub fn a_pool_grows_by_registrations_up_to_its_limit(fabric: &impl Fabric) {
    let pool = pool(fabric, 2, 3);
    let mut slots = Vec::new();
    for taken in 1..=6_usize {
        slots.push(pool.take().unwrap());
        assert_eq!(pool.registrations(), taken.div_ceil(2));
        assert_eq!(registered(fabric), taken.div_ceil(2));
        assert_eq!(pool.free(), pool.slots() - taken);
    }
    assert!(pool.try_take().is_none());
    let full = pool.grow();
    assert!(matches!(full, Err(Error::PoolFull { max: 3 })), "{full:?}");
    slots.clear();
    assert_eq!((pool.free(), pool.registrations()), (6, 3), "kept");
    pool.close().unwrap();
    assert_eq!(fabric.registered(), 0);

    let pool = self::pool(fabric, 2, 3);
    pool.grow().unwrap();
    assert_eq!((pool.free(), pool.registrations()), (4, 2));
}

pub fn r9_a_slot_under_an_operation_is_not_given_out_again(fabric: &impl Fabric) {
    let pool = pool(fabric, 1, 1);
    for round in 0..3 {
        let slot = pool.take().unwrap();
        let addr = slot.addr();
        assert!(slot.state().is_free() && !slot.state().closed, "{round}");
        let (first, second) = (slot.begin_read().unwrap(), slot.begin_read().unwrap());
        drop(slot);
        assert!(pool.try_take().is_none());
        drop(first);
        assert!(pool.try_take().is_none(), "the second has it still");
        drop(second);
        let slot = pool.try_take().unwrap();
        assert_eq!(slot.addr(), addr);
        let hold = slot.get(8..).unwrap().begin_write().unwrap();
        drop(slot);
        assert!(pool.try_take().is_none());
        drop(hold);
        assert_eq!(pool.free(), 1);
    }
}

pub fn r9_a_message_arrives_in_a_slot_that_nobody_has(fabric: &impl Fabric) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let pool = pool(fabric, 2, 1);
    for round in 0..10 {
        let mut from = pool.take().unwrap();
        from.as_mut_slice().fill(round);
        let to = pool.take().unwrap();
        let bytes = to.as_ptr_unchecked();
        b.recv(to.begin_write().unwrap()).unwrap();
        a.send(from.begin_read().unwrap(), None).unwrap();
        drop((from, to));
        fabric.act();
        assert!(pool.free() < 2, "nothing was polled");
        assert!(finish(&mut a, 1)[0].status.is_success());
        assert!(finish(&mut b, 1)[0].status.is_success());
        assert_eq!(pool.free(), 2);
        let slots = [pool.take().unwrap(), pool.take().unwrap()];
        let mut there = slots.iter().filter(|slot| slot.as_ptr_unchecked() == bytes);
        assert_eq!(*there.next().unwrap().as_slice(), [round; 64]);
    }
}

pub fn r14_a_pool_with_slots_out_is_not_closed(fabric: &impl Fabric) {
    let pool = pool(fabric, 2, 2);
    let (one, two, three) = (
        pool.take().unwrap(),
        pool.take().unwrap(),
        pool.take().unwrap(),
    );
    let hold = one.begin_write().unwrap();
    drop((one, two));
    let (pool, error) = pool.close().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(error.to_string().starts_with("2 of 4 slots"), "{error}");
    drop(hold);
    let (pool, _) = pool.close().unwrap_err();
    // As it was: the slot that is out, and the others.
    assert_eq!((pool.free(), registered(fabric)), (3, 2));
    drop(three);
    assert_eq!(pool.free(), 4);
    pool.close().unwrap();
    assert_eq!(fabric.registered(), 0);
}

pub fn r14_slots_outlive_their_pool(fabric: &impl Fabric) {
    let pool = pool(fabric, 2, 2);
    let mut slots: Vec<PooledMr> = (0..4).map(|_| pool.take().unwrap()).collect();
    slots.sort_by_key(|slot| slot.lkey());
    let [mut a, b, c, d] = slots.try_into().unwrap_or_else(|_| unreachable!());
    drop(d);
    drop(pool);
    assert_eq!(registered(fabric), 2, "each has a slot out");
    // One whose last slot is under an operation, and whose bytes are used until then.
    let hold = c.begin_write().unwrap();
    drop(c);
    assert_eq!(registered(fabric), 2);
    drop(hold);
    assert_eq!(registered(fabric), 1);
    drop(b);
    assert_eq!(registered(fabric), 1);
    a.as_mut_slice().fill(3);
    assert_eq!(*a.as_slice(), [3; 64]);
    drop(a);
    assert_eq!(fabric.registered(), 0, "the pool, too");
}

/// Threads that take, stamp, look and give back: under the handle, and under an operation that outlives it.
pub fn r1_nobody_else_has_my_slot(fabric: &impl Fabric) {
    const THREADS: u64 = 4;
    let rounds: u64 = if cfg!(miri) { 40 } else { 2000 };
    let pool = pool(fabric, 2, 2);
    let one_round = |stamp: u64| {
        let mut slot = pool.take().unwrap();
        slot.as_mut_slice()[..8].copy_from_slice(&stamp.to_ne_bytes());
        if stamp % 2 == 0 {
            thread::yield_now();
        }
        assert_eq!(slot.as_slice()[..8], stamp.to_ne_bytes());
        if stamp % 3 != 0 {
            return;
        }
        // The NIC, which writes under a hold that outlives the handle.
        let bytes = slot.as_mut_ptr_unchecked().cast::<u64>();
        let hold = slot.begin_write().unwrap();
        drop(slot);
        // SAFETY: PTRMUT-1 to PTRMUT-3: the hold excludes everybody, and keeps the bytes.
        unsafe { bytes.write(!stamp) };
        thread::yield_now();
        // SAFETY: as above.
        assert_eq!(unsafe { bytes.read() }, !stamp);
        drop(hold);
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let one_round = &one_round;
            scope.spawn(move || (0..rounds).for_each(|round| one_round(thread * rounds + round)));
        }
    });
    assert_eq!((pool.free(), pool.slots()), (4, 4), "each came back once");
    let slots: Vec<PooledMr> = std::iter::from_fn(|| pool.try_take()).collect();
    let addresses: BTreeSet<usize> = slots.iter().map(|slot| slot.addr()).collect();
    assert_eq!((slots.len(), addresses.len()), (4, 4));
}

pub fn keys_change_under_slots_that_are_out(fabric: &impl Fabric) {
    let pool = pool(fabric, 2, 2);
    pool.grow().unwrap();
    let slot = pool.take().unwrap();
    let (hold, old) = (slot.begin_write().unwrap(), slot.lkey());
    pool.rotate_keys().unwrap();
    assert_ne!(slot.lkey(), old);
    assert_eq!(hold.sge().lkey, old, "that operation is under way");
    drop(slot);
    drop(hold);
    let slot = pool.take().unwrap();
    let hold = slot.begin_write().unwrap();
    assert_eq!(hold.sge().lkey, slot.lkey());
    drop((slot, hold));
    pool.rotate_keys().unwrap();
    pool.close().unwrap();
    assert_eq!(fabric.registered(), 0);
}
