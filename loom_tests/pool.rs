//! Models of pools: a slot is had by one at a time, comes home once, and wakes who waits; and a pool may go
//! while its slots come home. The bytes of a slot are a cell that loom watches, so is each registration.
#![cfg(not(crossbeam_loom))]

use std::future::Future;
use std::io;
use std::pin::pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use crate::common::keys::{Keys, Pd, parking};
use crate::common::{Bytes, Registrar, exhaust, explore, insist};
use loom::future::block_on;
use loom::thread;
use rdma_mr::op::Begin;
use rdma_mr::registration::{Registered, Registrar as IsRegistrar};
use rdma_mr::{Access, Error, LocalMrReadAccess, MrAccess, MrPool, PoolOptions, PooledMr};

const fn size(slots_per_registration: usize, max_registrations: usize) -> PoolOptions {
    PoolOptions {
        slot_length: 8,
        slots_per_registration,
        max_registrations,
    }
}

/// A pool of one registration, and the bytes of its slots.
struct Slots {
    pool: MrPool,
    first: usize,
    bytes: [Bytes; 2],
}

impl Slots {
    fn new(slots: usize) -> Self {
        let pool = parking().pool(&Registrar::new(), size(slots, 1)).unwrap();
        let taken: Vec<PooledMr> = std::iter::from_fn(|| pool.try_take()).collect();
        let first = taken.iter().map(|slot| slot.addr()).min().unwrap();
        drop(taken);
        Slots {
            pool,
            first,
            bytes: std::array::from_fn(|_| Bytes::new()),
        }
    }

    fn bytes(&self, slot: &PooledMr) -> &Bytes {
        &self.bytes[(slot.addr() - self.first) / 8]
    }

    /// What a user does: nobody else may have the slot, nor its last user be at it still.
    fn use_up(&self, slot: PooledMr) {
        self.bytes(&slot).add(1);
        drop(slot);
    }
}

/// Two slots, and two who take and give them back: also a top that went and came back meanwhile.
/// Shows: POOL-1.
#[test]
fn a_slot_is_had_by_one() {
    explore("a_slot_is_had_by_one", 3, 200, || {
        let slots = Arc::new(Slots::new(2));
        let other = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || {
                let (one, two) = (slots.pool.try_take(), slots.pool.try_take());
                // Back in the order in which they were taken: what was on top is on top, above another.
                one.into_iter()
                    .chain(two)
                    .for_each(|slot| slots.use_up(slot));
            })
        };
        for _ in 0..2 {
            if let Some(slot) = slots.pool.try_take() {
                slots.use_up(slot);
            }
        }
        other.join().unwrap();
        let left: Vec<PooledMr> = std::iter::from_fn(|| slots.pool.try_take()).collect();
        assert_eq!(left.len(), 2);
        assert_ne!(left[0].addr(), left[1].addr());
    });
}

/// Who waits in that way gets the slot that comes back, with all that its last user did.
fn is_woken(take: fn(&MrPool) -> PooledMr) {
    let slots = Arc::new(Slots::new(1));
    let slot = slots.pool.try_take().unwrap();
    let other = {
        let slots = Arc::clone(&slots);
        thread::spawn(move || slots.use_up(slot))
    };
    let slot = take(&slots.pool);
    slots.use_up(slot);
    other.join().unwrap();
    assert_eq!(slots.pool.free(), 1);
}

#[test]
fn a_thread_that_waits_is_woken() {
    exhaust("a_thread_that_waits_is_woken", 3, 10, || {
        is_woken(|pool| pool.take().unwrap());
    });
}

#[test]
fn a_future_that_waits_is_woken() {
    exhaust("a_future_that_waits_is_woken", 3, 10, || {
        is_woken(|pool| block_on(pool.take_async()).unwrap());
    });
}

/// One slot, two who wait for it, one after the other: the first hands it on.
#[test]
fn all_who_wait_are_woken() {
    explore("all_who_wait_are_woken", 2, 100, || {
        let slots = Arc::new(Slots::new(1));
        let slot = slots.pool.try_take().unwrap();
        let others = [(); 2].map(|()| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || slots.use_up(slots.pool.take().unwrap()))
        });
        slots.use_up(slot);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(slots.pool.free(), 1);
    });
}

/// Two slots come back, two wait: each wakes one of its own.
#[test]
fn each_slot_wakes_another_one() {
    explore("each_slot_wakes_another_one", 2, 100, || {
        let slots = Arc::new(Slots::new(2));
        let out = (
            slots.pool.try_take().unwrap(),
            slots.pool.try_take().unwrap(),
        );
        let others = [(); 2].map(|()| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || slots.pool.take().unwrap())
        });
        slots.use_up(out.0);
        slots.use_up(out.1);
        let kept = others.map(|other| other.join().unwrap());
        assert_ne!(kept[0].addr(), kept[1].addr());
    });
}

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A mark of somebody who waits no more is taken off, while somebody else sets it.
#[test]
fn who_marks_while_the_mark_is_taken_off_is_woken() {
    let name = "who_marks_while_the_mark_is_taken_off_is_woken";
    exhaust(name, 3, 20, || {
        let slots = Arc::new(Slots::new(1));
        let slot = slots.pool.try_take().unwrap();
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        {
            let gives_up = pin!(slots.pool.take_async());
            assert!(gives_up.poll(cx).is_pending());
        }
        let other = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || slots.use_up(slot))
        };
        let mine = insist(|| slots.pool.try_take());
        let mut waits = pin!(slots.pool.take_async());
        assert!(waits.as_mut().poll(cx).is_pending());
        slots.use_up(mine);
        other.join().unwrap();
        assert!(woken.0.load(Relaxed) > 0, "it sleeps for ever");
        assert!(waits.as_mut().poll(cx).is_ready());
    });
}

/// The handle goes, and so does the operation: the slot comes home once, after both.
/// Shows: POOL-1, REGION-6, REGION-7.
#[test]
fn an_operation_and_the_handle_bring_it_home_once() {
    let name = "an_operation_and_the_handle_bring_it_home_once";
    exhaust(name, 3, 50, || {
        let slots = Arc::new(Slots::new(1));
        let slot = slots.pool.try_take().unwrap();
        let (hold, second) = (slot.begin_read().unwrap(), slot.begin_read().unwrap());
        let other = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || {
                slots.bytes[0].read(); // the NIC
                drop(hold);
            })
        };
        drop(second);
        drop(slot);
        let slot = slots.pool.take().unwrap();
        assert!(slot.state().is_free() && !slot.state().closed);
        assert!(slots.pool.try_take().is_none(), "it came home twice");
        slots.use_up(slot);
        other.join().unwrap();
        assert_eq!(slots.pool.free(), 1);
    });
}

/// Keys change while a slot comes home by its operation and is taken again.
/// Shows: POOL-1, ROLL-1.
#[test]
fn keys_change_while_a_slot_comes_home() {
    explore("keys_change_while_a_slot_comes_home", 2, 50, || {
        let keys = Keys::new();
        let pd = Arc::new(Pd(Arc::clone(&keys)));
        let pool = Arc::new(parking().pool(&pd, size(1, 1)).unwrap());
        let slot = pool.take().unwrap();
        let operation = {
            let (keys, pool) = (Arc::clone(&keys), Arc::clone(&pool));
            thread::spawn(move || {
                let hold = slot.begin_read().unwrap();
                drop(slot);
                keys.use_key(&hold);
                drop(hold);
                let slot = pool.take().unwrap();
                let hold = slot.begin_write().unwrap();
                keys.use_key(&hold);
                drop(slot);
                drop(hold);
            })
        };
        pool.rotate_keys().unwrap();
        operation.join().unwrap();
        let slot = pool.take().unwrap();
        assert!(slot.state().is_free() && !slot.state().closed);
        keys.use_key(&slot.begin_read().unwrap());
    });
}

/// The pool goes while a slot comes home by the handle, and another by an operation: their registration
/// ends once, after both.
/// Shows: POOL-2, REGION-5, REGION-8.
#[test]
fn a_pool_may_go_while_its_slots_come_home() {
    exhaust("a_pool_may_go_while_its_slots_come_home", 2, 50, || {
        let keys = Keys::new();
        let pd = Arc::new(Pd(Arc::clone(&keys)));
        let pool = parking().pool(&pd, size(2, 1)).unwrap();
        let (one, two) = (pool.take().unwrap(), pool.take().unwrap());
        let other = {
            let keys = Arc::clone(&keys);
            thread::spawn(move || {
                let hold = one.begin_read().unwrap();
                drop(one);
                keys.use_key(&hold);
            })
        };
        drop(pool);
        keys.use_key(&two.begin_read().unwrap());
        drop(two);
        other.join().unwrap();
        assert_eq!(Arc::strong_count(&pd), 1, "all is freed");
    });
}

/// A waiter that finds the slot by itself goes, and so does the pool, while the one who woke it is at it still.
/// Shows: POOL-2.
#[test]
fn who_wakes_keeps_the_pool() {
    explore("who_wakes_keeps_the_pool", 3, 20, || {
        let slots = Arc::new(Slots::new(1));
        let slot = slots.pool.try_take().unwrap();
        let other = thread::spawn(move || drop(slot));
        // In a model a deadline lets the others go on, and is not reached.
        let far = Instant::now() + Duration::from_secs(1000);
        slots.use_up(slots.pool.take_until(far).unwrap());
        drop(slots);
        other.join().unwrap();
    });
}

/// One registers; the other waits for what it brings, and registers again if that is not enough.
#[test]
fn who_waits_while_the_pool_grows_is_woken() {
    exhaust("who_waits_while_the_pool_grows_is_woken", 2, 50, || {
        let pool = parking().pool(&Registrar::new(), size(1, 3)).unwrap();
        let pool = Arc::new(pool);
        let slot = pool.take().unwrap();
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.take().unwrap())
        };
        let mine = pool.take().unwrap();
        let theirs = other.join().unwrap();
        assert!(mine.lkey() == theirs.lkey() && mine.addr() != theirs.addr());
        assert_eq!((pool.registrations(), pool.free()), (3, 0));
        drop(slot);
    });
}

/// Registers once.
struct Once(AtomicUsize);

// SAFETY: REG-1 to REG-3: the other's.
unsafe impl IsRegistrar for Once {
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> io::Result<Registered> {
        if self.0.fetch_add(1, Relaxed) > 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: REG-4: as required of the caller.
        unsafe { Registrar::new().register(addr, length, access) }
    }
}

/// Who waits while another one's registration fails is not left waiting: here nobody else has a slot.
#[test]
fn nobody_hangs_behind_a_registration_that_fails() {
    let name = "nobody_hangs_behind_a_registration_that_fails";
    explore(name, 3, 50, || {
        let once = Arc::new(Once(AtomicUsize::new(0)));
        let pool = Arc::new(parking().pool(&once, size(1, 2)).unwrap());
        let slot = pool.take().unwrap();
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.take().map(drop))
        };
        assert!(matches!(pool.take(), Err(Error::Register(_))));
        drop(slot);
        let theirs = other.join().unwrap();
        assert!(matches!(theirs, Ok(()) | Err(Error::Register(_))));
        assert_eq!(pool.free(), 1);
    });
}
