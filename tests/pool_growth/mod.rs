//! Pools that grow while others wait, over a registrar that takes as long as the test says.

use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rdma_mr::backend::soft::{Fault, Nic, ProtectionDomain, When};
use rdma_mr::registration::{Registered, Registrar};
use rdma_mr::{Access, Error, MrAccess};

use crate::util::*;
use crate::{nic, pool, size, waits};

/// A protection domain that registers when it is let.
struct Slow {
    nic: Nic,
    pd: Arc<ProtectionDomain>,
    /// How many may go on, and how many have come.
    turns: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Slow {
    fn new() -> Arc<Self> {
        let (nic, pd) = nic();
        Arc::new(Slow {
            nic,
            pd,
            turns: Mutex::new((1, 0)),
            changed: Condvar::new(),
        })
    }

    fn let_one_go_on(&self) {
        self.turns.lock().unwrap().0 += 1;
        self.changed.notify_all();
    }

    /// Waits until that many have come.
    fn come(&self, count: usize) {
        let turns = self.turns.lock().unwrap();
        let came = |turns: &mut (usize, usize)| turns.1 < count;
        let (_turns, timeout) = self.changed.wait_timeout_while(turns, LONG, came).unwrap();
        assert!(!timeout.timed_out());
    }
}

// SAFETY: REG-1 to REG-3: the other's.
unsafe impl Registrar for Slow {
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> io::Result<Registered> {
        let mut turns = self.turns.lock().unwrap();
        turns.1 += 1;
        self.changed.notify_all();
        let mut turns = self
            .changed
            .wait_while(turns, |turns| turns.0 == 0)
            .unwrap();
        turns.0 -= 1;
        drop(turns);
        // SAFETY: REG-4: as required of the caller.
        unsafe { self.pd.register(addr, length, access) }
    }
}

#[test]
fn r18_a_future_does_not_register_on_the_thread_that_polls_it() {
    let slow = Slow::new();
    let pool = pool(&slow, size(1, 2));
    let slot = pool.take().unwrap();
    let future = Driven::pending(pool.take_async());
    slow.come(2); // the first one was at the start
    slow.let_one_go_on();
    eventually("it is woken", || future.wakes() > 0);
    drop((future.ready(), slot));
    assert_eq!((pool.free(), pool.registrations()), (2, 2));
}

#[test]
fn r18_what_a_dropped_future_registers_comes_to_the_pool() {
    let slow = Slow::new();
    let pool = pool(&slow, size(1, 2));
    let slot = pool.take().unwrap();
    let future = Driven::pending(pool.take_async());
    let waiter = Driven::pending(pool.take_async());
    slow.come(2);
    drop(future);
    slow.let_one_go_on();
    eventually("another one is woken", || waiter.wakes() > 0);
    drop((waiter.ready(), slot));
    pool.close().unwrap();
}

/// One at a time registers; the others wait for what it brings, or for a slot that comes back.
#[test]
fn r18_who_waits_while_the_pool_grows_is_woken() {
    let slow = Slow::new();
    let pool = pool(&slow, size(2, 3));
    let slots = (pool.take().unwrap(), pool.take().unwrap());
    thread::scope(|scope| {
        let grower = scope.spawn(|| pool.take().unwrap());
        slow.come(2);
        // Four more than the registration under way will serve: the last ones have to register again.
        let waiters: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| pool.take().unwrap()))
            .collect();
        waits(&pool);
        slow.let_one_go_on();
        slow.come(3);
        slow.let_one_go_on();
        let taken: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap()).collect();
        let first = grower.join().unwrap();
        assert_eq!((pool.registrations(), pool.free()), (3, 0));
        assert!(taken.iter().all(|slot| slot.addr() != first.addr()));
    });
    drop(slots);
    assert_eq!(pool.free(), 6);
}

/// What fails is told to who asked. Who waited for it is not left waiting, but asks in its turn.
#[test]
fn r19_a_registration_that_fails_is_told_to_who_asked() {
    let slow = Slow::new();
    let pool = pool(&slow, size(1, 2));
    let slot = pool.take().unwrap();
    let first = Driven::pending(pool.take_async());
    slow.come(2);
    let mut second = Driven::pending(pool.take_async());
    slow.nic.inject(Fault::Register, When::Nth(1));
    slow.let_one_go_on();
    eventually("it is told", || first.wakes() > 0);
    assert!(matches!(first.ready(), Err(Error::Register(_))));
    assert_eq!((second.wakes(), pool.registrations()), (1, 1));
    assert!(second.poll().is_pending());
    slow.come(3);
    slow.let_one_go_on();
    eventually("it has its slot", || second.wakes() > 1);
    drop((second.ready().unwrap(), slot));
    assert_eq!(pool.free(), 2);
}

#[test]
fn a_pool_may_go_while_a_future_of_it_registers() {
    let slow = Slow::new();
    let pool = pool(&slow, size(2, 2));
    let slots = (pool.take().unwrap(), pool.take().unwrap());
    let future = Driven::pending(pool.take_async());
    slow.come(2);
    drop(future);
    drop(pool);
    slow.let_one_go_on();
    drop(slots);
    eventually("all is freed", || Arc::strong_count(&slow) == 1);
    assert_eq!(Arc::strong_count(&slow.pd), 1);
}
