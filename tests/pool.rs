//! Pools of slots: on the NIC in software, and what only it can be made to do (registrations that fail, or
//! take as long as the test says).
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
mod pool_growth;
mod pool_suite;
mod util;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_lite::future::block_on;
use rdma_mr::backend::soft::{Fault, Nic, ProtectionDomain, When};
use rdma_mr::gate::Patience;
use rdma_mr::op::Begin;
use rdma_mr::registration::Registrar;
use rdma_mr::{
    Access, Error, LocalMrReadAccess, LocalMrWriteAccess, MrOptions, MrPool, PoolOptions, PooledMr,
};
use util::*;

pool_suite::tests! { [] *fabric::Checked::<fabric::Soft>::open() }

const fn size(slots_per_registration: usize, max_registrations: usize) -> PoolOptions {
    PoolOptions {
        slot_length: 64,
        slots_per_registration,
        max_registrations,
    }
}

/// A pool whose waiters park at once.
fn pool<R: Registrar>(registrar: &Arc<R>, size: PoolOptions) -> MrPool {
    let patience = Patience {
        spin: Duration::ZERO,
        ..Patience::default()
    };
    let options = MrOptions::new().patience(patience);
    options.pool(registrar, size).unwrap()
}

fn nic() -> (Nic, Arc<ProtectionDomain>) {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    (nic, pd)
}

/// Waits until somebody who found no slot is about to park.
fn waits(pool: &MrPool) {
    eventually("somebody waits", || {
        format!("{pool:?}").contains("waiting: true")
    });
}

#[test]
fn a_slot_can_be_sent_and_shared() {
    send_and_sync::<(MrPool, PooledMr)>();
    fn is_send<T: Send>(_: &T) {}
    let pool = pool(&nic().1, size(1, 1));
    is_send(&pool.take_async());
}

#[test]
fn r19_sizes_that_no_pool_has() {
    let (nic, pd) = nic();
    let refused = |size: PoolOptions| MrOptions::new().pool(&pd, size).unwrap_err();
    for size in [
        size(0, 1),
        size(1, 0),
        size(1 << 22, 1),
        size(usize::MAX, 2),
    ] {
        let error = refused(size);
        assert!(matches!(error, Error::PoolSize { .. }), "{error}");
    }
    let no_bytes = PoolOptions {
        slot_length: 0,
        ..size(1, 1)
    };
    assert!(matches!(refused(no_bytes), Error::ZeroLength));
    let too_long = PoolOptions {
        slot_length: usize::MAX / 2,
        ..size(4, 1)
    };
    assert!(matches!(refused(too_long), Error::TooLong { .. }));
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
    let error = MrOptions::new()
        .access(access)
        .pool(&pd, size(1, 1))
        .unwrap_err();
    assert!(
        matches!(error, Error::RemoteWriteNeedsUnsafe { .. }),
        "{error}"
    );
    nic.inject(Fault::Register, When::Nth(1));
    assert!(matches!(refused(size(1, 1)), Error::Register(_)));
    assert_eq!((nic.stats().registrations, Arc::strong_count(&pd)), (0, 1));
}

#[test]
fn r19_a_registration_that_fails_is_an_error_and_no_more() {
    let (nic, pd) = nic();
    let pool = pool(&pd, size(1, 3));
    let slot = pool.take().unwrap();
    nic.inject(Fault::Register, When::Nth(1));
    let error = pool.take().unwrap_err();
    assert!(matches!(error, Error::Register(_)), "{error}");
    nic.inject(Fault::Register, When::Nth(1));
    assert!(matches!(pool.grow(), Err(Error::Register(_))));
    nic.inject(Fault::Register, When::Nth(1));
    assert!(matches!(
        block_on(pool.take_async()),
        Err(Error::Register(_))
    ));
    nic.inject(Fault::Register, When::Nth(1));
    assert!(matches!(pool.take_with(|| ()), Err(Error::Register(_))));
    assert_eq!((pool.slots(), pool.free(), pool.registrations()), (1, 0, 1));
    assert_eq!(nic.stats().registrations, 1);
    // As it was: the next one may have more luck.
    let second = pool.take().unwrap();
    let third = block_on(pool.take_async()).unwrap();
    assert_eq!((pool.slots(), nic.stats().registrations), (3, 3));
    drop((slot, second, third));
    pool.close().unwrap();
}

#[test]
fn r14_what_cannot_be_deregistered_stays() {
    let (nic, pd) = nic();
    let pool = pool(&pd, size(2, 3));
    pool.grow().unwrap();
    pool.grow().unwrap();
    nic.inject(Fault::Deregister, When::Nth(2));
    let (pool, error) = pool.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert_eq!(
        (pool.slots(), pool.free(), nic.stats().registrations),
        (2, 2, 1)
    );
    // It is a pool as before, and grows where it had to shrink.
    let mut slots: Vec<PooledMr> = (0..6).map(|_| pool.take().unwrap()).collect();
    assert!(pool.try_take().is_none() && pool.grow().is_err());
    for (stamp, slot) in slots.iter_mut().enumerate() {
        slot.as_mut_slice().fill(stamp as u8);
    }
    for (stamp, slot) in slots.iter().enumerate() {
        assert_eq!(*slot.as_slice(), [stamp as u8; 64]);
    }
    drop(slots);
    pool.close().unwrap();
    assert_eq!((nic.stats().registrations, Arc::strong_count(&pd)), (0, 1));
}

#[test]
fn r9_a_forgotten_slot_is_out_for_ever() {
    let (nic, pd) = nic();
    let pool = pool(&pd, size(2, 1));
    let hold = pool.take().unwrap().begin_write().unwrap();
    std::mem::forget(hold);
    std::mem::forget(pool.take().unwrap());
    assert!(pool.try_take().is_none());
    let (pool, error) = pool.close().unwrap_err();
    assert!(error.to_string().starts_with("2 of 2 slots"), "{error}");
    drop(pool);
    assert_eq!(nic.stats().registrations, 1, "the NIC may use it still");
}

#[test]
fn r18_who_waits_is_woken_by_a_slot_that_comes_back() {
    let (_nic, pd) = nic();
    let pool = pool(&pd, size(1, 1));
    let takes: [fn(&MrPool) -> PooledMr; 4] = [
        |pool| pool.take().unwrap(),
        |pool| pool.take_until(far()).unwrap(),
        |pool| pool.take_with(thread::yield_now).unwrap(),
        |pool| block_on(pool.take_async()).unwrap(),
    ];
    for (form, take) in takes.into_iter().enumerate() {
        let slot = pool.take().unwrap();
        let hold = slot.begin_read().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| drop(take(&pool)));
            if form != 2 {
                waits(&pool);
            }
            drop(slot);
            thread::yield_now();
            assert!(!waiter.is_finished(), "an operation has it");
            drop(hold);
        });
        assert_eq!(pool.free(), 1);
    }
}

#[test]
fn r18_a_deadline_ends_the_wait() {
    let (_nic, pd) = nic();
    let pool = pool(&pd, size(3, 1));
    let slots: Vec<_> = (0..3).map(|_| pool.take().unwrap()).collect();
    for deadline in [past(), past() + Duration::from_millis(5)] {
        let error = pool.take_until(deadline).unwrap_err();
        assert!(matches!(error, Error::PoolEmpty { slots: 3 }), "{error}");
        assert_eq!(io::Error::from(error).kind(), ErrorKind::TimedOut);
    }
    drop(slots);
    assert!(pool.take_until(past()).is_ok(), "nobody has to wait");
}

#[test]
fn r18_one_slot_wakes_one_and_no_wake_up_is_lost() {
    let (_nic, pd) = nic();
    let pool = pool(&pd, size(2, 1));
    let slots = (pool.take().unwrap(), pool.take().unwrap());
    let first = Driven::pending(pool.take_async());
    let second = Driven::pending(pool.take_async());
    let third = Driven::pending(pool.take_async());
    drop(slots.0);
    assert_eq!((first.wakes(), second.wakes(), third.wakes()), (1, 0, 0));
    // Two that come back before anybody looks wake two.
    drop(slots.1);
    assert_eq!((first.wakes(), second.wakes(), third.wakes()), (1, 1, 0));
    // What the first one gets and gives back is the third one's.
    drop(first.ready());
    assert_eq!(third.wakes(), 1);
    drop((second.ready(), third.ready()));
    assert_eq!(pool.free(), 2);
}

#[test]
fn r18_a_dropped_future_passes_its_wake_up_on() {
    let (_nic, pd) = nic();
    let pool = pool(&pd, size(1, 1));
    let slot = pool.take().unwrap();
    let first = Driven::pending(pool.take_async());
    let second = Driven::pending(pool.take_async());
    drop(slot);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first);
    drop(second.ready());
    // And one that was not woken leaves nothing behind but a mark that the next one takes off.
    let slot = pool.take().unwrap();
    drop(Driven::pending(pool.take_async()));
    drop(slot);
    assert!(format!("{pool:?}").contains("waiting: false"));
}

/// Slots come back from many threads while their pool goes.
#[test]
fn r14_slots_come_home_while_their_pool_goes() {
    let (nic, pd) = nic();
    for _ in 0..200 {
        let pool = pool(&pd, size(4, 2));
        let slots: Vec<PooledMr> = (0..8).map(|_| pool.take().unwrap()).collect();
        thread::scope(|scope| {
            for slot in slots {
                scope.spawn(move || {
                    let hold = slot.begin_read().unwrap();
                    drop(slot);
                    drop(hold);
                });
            }
            drop(pool);
        });
        assert_eq!((nic.stats().registrations, Arc::strong_count(&pd)), (0, 1));
    }
}
