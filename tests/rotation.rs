//! Keys that change while readers read them and operations use them (R7, R8).
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
mod rotation_load;
mod util;

use std::time::Duration;

use fabric::{Fabric, Soft};
use rdma_mr::op::{Begin, Gather, Hold};
use rdma_mr::{Access, Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions};
use util::*;

#[test]
fn r7_new_keys_and_rights_are_in_force_at_once_and_together() {
    let pair = Pair::stepped();
    let mr = pair.alloc(64);
    let old = mr.read_inner();
    mr.reregister(Access::LOCAL_WRITE | Access::REMOTE_READ)
        .unwrap();
    let new = mr.read_inner();
    assert_ne!((old.lkey(), old.rkey()), (new.lkey(), new.rkey()));
    assert_eq!((new.lkey(), new.rkey()), (mr.lkey(), mr.rkey()));
    assert_eq!(new.access(), Access::LOCAL_WRITE | Access::REMOTE_READ);
    assert_eq!((new.addr(), new.length()), (old.addr(), old.length()));
    assert_eq!(mr.registrations(), 1, "nothing used the old one");
    mr.rotate_keys().unwrap();
    assert_eq!(mr.access(), new.access());
    assert_ne!(mr.lkey(), new.lkey());
    assert_eq!(pair.nic.stats().registrations, 1);
}

#[test]
fn r8_operations_under_way_complete_under_the_old_key() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&pattern(1, 64)), pair.alloc(64));
    pair.start_message(&from, &to);
    from.rotate_keys().unwrap();
    to.rotate_keys().unwrap();
    assert_eq!((from.registrations(), to.registrations()), (2, 2));
    assert!(matches!(from.try_retire(), Err(Error::Held { state }) if state.nic_reads == 1));
    assert!(matches!(to.try_retire(), Err(Error::Held { state }) if state.writer.is_some()));
    assert!(matches!(
        to.retire_until(past()),
        Err(Error::Deadline { .. })
    ));
    pair.finish(2);
    assert_eq!(*to.as_slice(), pattern(1, 64));
    from.try_retire().unwrap();
    to.try_retire().unwrap();
    // And under the new one.
    pair.start_message(&from, &to);
    pair.finish(2);
    assert_eq!(pair.nic.stats().registrations, 2);
}

#[test]
fn operations_that_begin_meanwhile_are_not_waited_for() {
    let mr = Pair::stepped().alloc(64);
    let old = [(); 3].map(|()| mr.begin_read().unwrap());
    mr.rotate_keys().unwrap();
    let new = [(); 3].map(|()| mr.begin_read().unwrap());
    assert!(old.iter().all(|hold| hold.sge().lkey != mr.lkey()));
    assert!(new.iter().all(|hold| hold.sge().lkey == mr.lkey()));
    assert_eq!(mr.state().nic_reads, 6);
    drop(old);
    mr.try_retire().unwrap();
    assert_eq!((mr.registrations(), mr.state().nic_reads), (1, 3));
    // The next one waits for those; while it does, it can't tell others from the ones before them.
    mr.rotate_keys().unwrap();
    let newer = mr.begin_read().unwrap();
    assert!(mr.try_retire().is_err());
    drop(new);
    assert!(mr.try_retire().is_err());
    let newest = mr.begin_read().unwrap();
    drop(newer);
    mr.try_retire().unwrap();
    assert_eq!(mr.registrations(), 1);
    drop(newest);
    assert!(mr.state().is_free());
}

#[test]
fn an_exclusive_operation_may_follow_another() {
    let mr = Pair::stepped().alloc(64);
    for _ in 0..3 {
        let hold = mr.begin_write().unwrap();
        mr.rotate_keys().unwrap();
        assert!(mr.try_retire().is_err());
        drop(hold);
        let _next = mr.begin_write().unwrap();
        mr.try_retire().unwrap();
        assert_eq!(mr.registrations(), 1);
    }
    // Nor does the CPU matter.
    let guard = mr.as_slice();
    mr.rotate_keys().unwrap();
    assert_eq!(mr.registrations(), 1);
    drop(guard);
}

#[test]
fn a_hold_knows_how_it_was_counted_as_a_wr_id_too() {
    let mr = Pair::stepped().alloc(64);
    let old = mr.begin_read().unwrap();
    mr.rotate_keys().unwrap();
    let new = mr.begin_read().unwrap().into_wr_id();
    drop(old);
    mr.retire().unwrap();
    // SAFETY: WRID-1 to WRID-3: made just now, turned back once, nothing was posted.
    let new = unsafe { Hold::from_wr_id(new) };
    assert_eq!(new.holder(), rdma_mr::gate::Holder::NicRead);
    drop(new);
    assert!(mr.state().is_free());
    let _all = mr.begin_write().unwrap();
}

#[test]
fn rights_that_are_gone_are_missed_by_operations_that_waited() {
    let mut mr = Pair::stepped().alloc(64);
    let hold = mr.begin_read().unwrap();
    let waits = Driven::pending(mr.begin_write_async());
    mr.reregister(Access::empty()).unwrap();
    drop(hold);
    let refused = waits.ready();
    assert!(
        matches!(refused, Err(Error::MissingRight { .. })),
        "{refused:?}"
    );
    assert!(mr.state().is_free());
    assert!(matches!(mr.begin_write(), Err(Error::MissingRight { .. })));
    assert!(Gather::new([&mr]).begin_write().is_err());
    let _read = mr.begin_read().unwrap();
    mr.try_as_mut_slice()
        .ok_or("the CPU's rights are its own")
        .unwrap_err();
}

#[test]
fn operations_of_every_part_count() {
    let pair = Pair::stepped();
    let mut tail = pair.alloc(64);
    let (head, lone) = (tail.split_to(16).unwrap(), tail.split_off(32).unwrap());
    let hold = head.begin_read().unwrap();
    tail.rotate_keys().unwrap();
    assert!(head.lkey() == tail.lkey() && hold.sge().lkey != head.lkey());
    assert!(tail.try_retire().is_err());
    // Also of one whose handle is gone.
    drop(head);
    assert!(tail.try_retire().is_err());
    // Parts come and go meanwhile.
    let more: Vec<LocalMr> = lone.chunks_of(4).unwrap().collect();
    assert!(more.iter().all(|part| part.lkey() == tail.lkey()));
    let late = more[3].begin_read().unwrap();
    drop(more);
    drop(hold);
    tail.try_retire().unwrap();
    assert_eq!(
        (tail.registrations(), pair.nic.stats().registrations),
        (1, 1)
    );
    drop((late, tail));
    assert_eq!(pair.nic.stats().registrations, 0);
}

#[test]
fn r18_whoever_waits_is_woken_by_the_last_old_one() {
    let mr = Pair::stepped().alloc(64);
    for write in [false, true] {
        let begin = || {
            if write {
                mr.begin_write()
            } else {
                mr.begin_read()
            }
        };
        let hold = begin().unwrap();
        mr.rotate_keys().unwrap();
        let future = Driven::pending(mr.retire_async());
        assert_eq!(future.wakes(), 0);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| mr.retire());
            let until = scope.spawn(|| mr.retire_until(far()));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waits.is_finished() && !until.is_finished());
            drop(hold);
            waits.join().unwrap().unwrap();
            until.join().unwrap().unwrap();
        });
        future.ready().unwrap();
        assert_eq!(mr.registrations(), 1);
        let mut hold = Some(begin().unwrap());
        mr.rotate_keys().unwrap();
        mr.retire_with(|| drop(hold.take())).unwrap();
    }
}

#[test]
fn r6_rights_with_which_peers_write_are_not_had_by_the_back_door() {
    let pair = Pair::stepped();
    let mr = pair.alloc(64);
    let before = mr.read_inner();
    let refused = mr.reregister(Access::all());
    assert!(matches!(refused, Err(Error::RemoteWriteNeedsUnsafe { .. })));
    let refused = mr.reregister(Access::REMOTE_WRITE);
    assert!(refused.is_err());
    assert_eq!(mr.read_inner(), before);
    // SAFETY: REMOTE-1, REMOTE-2: there is no peer.
    let granted = unsafe { MrOptions::new().grant_remote_write() };
    let mr = granted.alloc(&pair.pd, 64).unwrap();
    mr.reregister(Access::all()).unwrap();
    assert_eq!(mr.access(), Access::all());
}

#[test]
fn r14_the_end_of_the_last_part_ends_all() {
    let pair = Pair::stepped();
    let mr = pair.alloc(64);
    let hold = mr.begin_read().unwrap();
    for _ in 0..3 {
        mr.rotate_keys().unwrap();
    }
    assert_eq!((mr.registrations(), pair.nic.stats().registrations), (4, 4));
    let (mr, error) = mr.close().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(mr);
    assert_eq!(pair.nic.stats().registrations, 4);
    drop(hold);
    assert_eq!(pair.nic.stats().registrations, 0);
    let mr = pair.alloc(64);
    let hold = mr.begin_read().unwrap();
    mr.rotate_keys().unwrap();
    drop(hold);
    assert_eq!(mr.close().map_err(|(_, error)| error).unwrap().length(), 64);
    assert_eq!(pair.nic.stats().registrations, 0);
}

#[test]
fn r7_rotations_under_load_fail_no_operation_and_mix_no_keys() {
    rotation_load::run(&Soft::open(), 10_000);
}
