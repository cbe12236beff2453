//! Models of keys that change: no operation uses a key whose registration has been ended, and who
//! waits for that end is woken. A registration is a cell that every use reads and its end writes, so
//! that loom tells of a use that is not over before the end. (The published snapshot itself is
//! crossbeam-epoch's, which these models run without loom's notion of it.)
#![cfg(loom)]

mod common;

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::explore;
use loom::cell::UnsafeCell;
use loom::thread;
use rdma_mr::op::{Begin, Hold};
use rdma_mr::registration::{Deregister, Registered, Registrar};
use rdma_mr::{Access, LocalMr, MrOptions};

/// The registrations that there have been, by their keys: whether each has ended.
struct Keys {
    ended: [UnsafeCell<bool>; 4],
    next: AtomicU32,
}

// SAFETY: that they are used in order is what loom is asked.
unsafe impl Sync for Keys {}
// SAFETY: as above.
unsafe impl Send for Keys {}

impl Keys {
    fn new() -> Arc<Self> {
        Arc::new(Keys {
            ended: std::array::from_fn(|_| UnsafeCell::new(false)),
            next: AtomicU32::new(0),
        })
    }

    /// What the NIC does with a work request that names the key.
    fn use_key(&self, hold: &Hold) {
        self.ended[hold.sge().lkey as usize].with(|ended| {
            // SAFETY: as for Sync above.
            assert!(!unsafe { *ended }, "a key that is no more");
        });
    }
}

struct Pd(Arc<Keys>);

// SAFETY: REG-1 to REG-3: there is no NIC.
unsafe impl Registrar for Pd {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, _: Access) -> io::Result<Registered> {
        let key = self.0.next.fetch_add(1, Relaxed);
        Ok(Registered {
            lkey: key,
            rkey: key,
            handle: Box::new(Handle(Arc::clone(&self.0), key)),
        })
    }
}

struct Handle(Arc<Keys>, u32);

// SAFETY: DEREG-1 to DEREG-3: there is no NIC.
unsafe impl Deregister for Handle {
    fn deregister(&mut self) -> io::Result<()> {
        self.0.ended[self.1 as usize].with_mut(|ended| {
            // SAFETY: as for Sync of `Keys`.
            unsafe { *ended = true };
        });
        Ok(())
    }
}

/// A region whose waiters park at once.
fn region(keys: &Arc<Keys>) -> LocalMr {
    let patience = rdma_mr::gate::Patience {
        spin: std::time::Duration::ZERO,
        ..Default::default()
    };
    let options = MrOptions::new().patience(patience);
    options
        .register(&Arc::new(Pd(Arc::clone(keys))), vec![0; 8])
        .unwrap()
}

/// Two operations of that kind one after the other, beside `rotate`.
fn beside_operations(begin: fn(&LocalMr) -> Hold, rotate: fn(&LocalMr)) {
    let keys = Keys::new();
    let mr = Arc::new(region(&keys));
    let operations = {
        let (keys, mr) = (Arc::clone(&keys), Arc::clone(&mr));
        thread::spawn(move || {
            for _ in 0..2 {
                let hold = begin(&mr);
                keys.use_key(&hold);
                drop(hold);
            }
        })
    };
    rotate(&mr);
    operations.join().unwrap();
    mr.try_retire().unwrap();
    assert_eq!(mr.registrations(), 1);
    assert!(mr.state().is_free());
}

#[test]
fn no_read_uses_a_key_that_has_ended() {
    explore("no_read_uses_a_key_that_has_ended", 3, 50, || {
        beside_operations(
            |mr| mr.begin_read().unwrap(),
            |mr| mr.rotate_keys().unwrap(),
        );
    });
}

#[test]
fn no_write_uses_a_key_that_has_ended() {
    explore("no_write_uses_a_key_that_has_ended", 3, 50, || {
        beside_operations(
            |mr| mr.begin_write().unwrap(),
            |mr| mr.rotate_keys().unwrap(),
        );
    });
}

/// A read that began while one registration was retired is an old one when the next is.
#[test]
fn no_new_read_is_forgotten_by_the_next_retirement() {
    let name = "no_new_read_is_forgotten_by_the_next_retirement";
    explore(name, 3, 50, || {
        let keys = Keys::new();
        let mr = Arc::new(region(&keys));
        let old = mr.begin_read().unwrap();
        mr.rotate_keys().unwrap();
        let operation = {
            let (keys, mr) = (Arc::clone(&keys), Arc::clone(&mr));
            thread::spawn(move || {
                let hold = mr.begin_read().unwrap();
                keys.use_key(&hold);
                drop(hold);
            })
        };
        keys.use_key(&old);
        drop(old);
        let _ = mr.try_retire();
        mr.rotate_keys().unwrap();
        operation.join().unwrap();
        mr.try_retire().unwrap();
        assert_eq!(mr.registrations(), 1);
    });
}

/// Who waits until the old ones are over is woken by the last of them.
fn is_woken(begin: fn(&LocalMr) -> Hold) {
    beside_operations(begin, |mr| {
        mr.rotate_keys().unwrap();
        mr.retire().unwrap();
    });
}

#[test]
fn who_waits_for_reads_is_woken() {
    explore("who_waits_for_reads_is_woken", 2, 50, || {
        is_woken(|mr| mr.begin_read().unwrap());
    });
}

#[test]
fn who_waits_for_writes_is_woken() {
    explore("who_waits_for_writes_is_woken", 2, 50, || {
        is_woken(|mr| mr.begin_write().unwrap());
    });
}

/// A part that comes to its end with an operation in flight, while the keys change.
#[test]
fn a_part_may_go_meanwhile() {
    explore("a_part_may_go_meanwhile", 2, 20, || {
        let keys = Keys::new();
        let mut mr = region(&keys);
        let part = mr.split_off(4).unwrap();
        let operation = {
            let keys = Arc::clone(&keys);
            thread::spawn(move || {
                let hold = part.begin_read().unwrap();
                drop(part);
                keys.use_key(&hold);
            })
        };
        mr.rotate_keys().unwrap();
        mr.retire().unwrap();
        operation.join().unwrap();
        assert_eq!(mr.registrations(), 1);
    });
}
