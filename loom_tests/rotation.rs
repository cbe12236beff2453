//! Models of keys that change: no operation uses a key whose registration has been ended, and who
//! waits for that end is woken. A registration is a cell that every use reads and its end writes, so
//! that loom tells of a use that is not over before the end. (The published snapshot itself is
//! crossbeam-epoch's, which these models run without loom's notion of it.)
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;

use crate::common::keys::{Keys, Pd, parking};
use crate::common::{exhaust, explore};
use loom::thread;
use rdma_mr::LocalMr;
use rdma_mr::op::{Begin, Hold};

/// A region whose waiters park at once.
fn region(keys: &Arc<Keys>) -> LocalMr {
    let pd = Arc::new(Pd(Arc::clone(keys)));
    parking().register(&pd, vec![0; 8]).unwrap()
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

/// Shows: HOLD-1, ROLL-1, LOCKED-1.
#[test]
fn no_read_uses_a_key_that_has_ended() {
    exhaust("no_read_uses_a_key_that_has_ended", 3, 50, || {
        beside_operations(
            |mr| mr.begin_read().unwrap(),
            |mr| mr.rotate_keys().unwrap(),
        );
    });
}

/// Shows: HOLD-1, ROLL-1, LOCKED-1.
#[test]
fn no_write_uses_a_key_that_has_ended() {
    exhaust("no_write_uses_a_key_that_has_ended", 3, 50, || {
        beside_operations(
            |mr| mr.begin_write().unwrap(),
            |mr| mr.rotate_keys().unwrap(),
        );
    });
}

/// A read that began while one registration was retired is an old one when the next is.
/// Shows: ROLL-1.
#[test]
fn no_new_read_is_forgotten_by_the_next_retirement() {
    let name = "no_new_read_is_forgotten_by_the_next_retirement";
    exhaust(name, 3, 50, || {
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
/// Shows: ROLL-1, ROLL-2, ROLL-4, REGION-4.
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

/// Two change the keys of a region whose keys never changed: the roll of one of them is used by both.
/// Shows: ROLL-2, ROLL-3.
#[test]
fn two_rotate_for_the_first_time() {
    explore("two_rotate_for_the_first_time", 3, 50, || {
        let keys = Keys::new();
        let mr = Arc::new(region(&keys));
        let other = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || mr.rotate_keys().unwrap())
        };
        mr.rotate_keys().unwrap();
        other.join().unwrap();
        mr.try_retire().unwrap();
        assert_eq!(mr.registrations(), 1);
    });
}

/// One has changed the keys for the first time; another, who may know nothing of that, ends what is retired.
/// Shows: ROLL-3.
#[test]
fn who_finds_a_roll_finds_all_of_it() {
    exhaust("who_finds_a_roll_finds_all_of_it", 3, 50, || {
        let keys = Keys::new();
        let mr = Arc::new(region(&keys));
        let other = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || mr.try_retire().unwrap())
        };
        mr.rotate_keys().unwrap();
        other.join().unwrap();
        assert_eq!(mr.registrations(), 1);
    });
}
