//! What ends a lease, and what it keeps until then.

use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future::block_on;
use rdma_mr::lease::{Reaper, reap};
use rdma_mr::work::{QpCaps, RemoteAddr, WcStatus};
use rdma_mr::{Error, Lease, Lend, LocalMrReadAccess, MrAccess, MrOptions, PoolOptions, RemoteMr};

use crate::fabric::{Fabric, LONG};
use crate::suite::{HOUR, READ, WRITE, alone, at, read, write, write_once};

pub fn r05_only_the_end_of_the_registration_gives_the_bytes_back<F: Fabric>(fabric: &F) {
    let _alone = alone();
    let mr = fabric.region(&[1; 16]);
    let lease = mr.lease(.., WRITE, HOUR).unwrap();
    let (mut a, b) = fabric.pair(QpCaps::default());
    assert!(write(fabric, &mut a, &[2; 16], at(lease.token(), 0)).is_success());
    // Neither a token that is gone, nor the peer, nor a look by who has nothing to end.
    let _gone = RemoteMr::new(lease.token()).unwrap();
    assert!(write(fabric, &mut a, &[2; 4], RemoteAddr { addr: 0, rkey: 1 }) != WcStatus::Success);
    drop((a, b));
    reap();
    assert!(mr.try_as_slice().is_none() && !lease.is_revoked());
    assert!(write_once(fabric, &[3; 16], at(lease.token(), 0)).is_success());
    lease.revoke().unwrap();
    lease.revoke().unwrap();
    assert!(lease.is_revoked());
    assert_eq!(*mr.try_as_slice().unwrap(), [3; 16]);
    let token = lease.token();
    assert_eq!(
        write_once(fabric, &[4; 16], at(token, 0)),
        WcStatus::RemAccessErr
    );
    let token = mr.lease(.., WRITE, HOUR).unwrap().token(); // dropped
    assert_eq!(
        write_once(fabric, &[4; 16], at(token, 0)),
        WcStatus::RemAccessErr
    );
    assert_eq!(*mr.try_as_slice().unwrap(), [3; 16]);
}

pub fn r05_an_expired_lease_is_dead_though_its_token_is_held<F: Fabric>(fabric: &F) {
    let _alone = alone();
    let mr = fabric.region(&[1; 16]);
    let short = Duration::from_millis(50);
    let lease = mr.lease(.., WRITE, short).unwrap();
    let token = lease.token();
    // Time alone does nothing.
    thread::sleep(short * 2);
    assert!(token.is_expired() && Instant::now() > lease.expires());
    assert!(write_once(fabric, &[2; 16], at(token, 0)).is_success());
    assert!(mr.try_as_slice().is_none());
    reap();
    assert!(lease.is_revoked());
    assert_eq!(*mr.try_as_slice().unwrap(), [2; 16]);
    assert_eq!(
        write_once(fabric, &[3; 16], at(token, 0)),
        WcStatus::RemAccessErr
    );
    assert!(matches!(RemoteMr::new(token), Err(Error::TokenExpired)));
    // The same by a thread: who waits for the bytes gets them when the time has passed.
    let reaper = Reaper::spawn("reaper").unwrap();
    let lease = mr.lease(.., WRITE, short).unwrap();
    assert_eq!(*mr.as_slice(), [2; 16]);
    assert!(Instant::now() >= lease.expires());
    let token = lease.token();
    assert_eq!(
        write_once(fabric, &[3; 16], at(token, 0)),
        WcStatus::RemAccessErr
    );
    drop(reaper);
}

pub fn r05_a_reaper_ends_leases_in_the_order_of_their_ends<F: Fabric>(fabric: &F) {
    let _alone = alone();
    let _reaper = Reaper::spawn("reaper").unwrap();
    let [late, soon, never] = [0, 1, 2].map(|_| fabric.alloc(16));
    let long = never.lease(.., WRITE, HOUR).unwrap();
    // It sleeps for an hour, and is told of those that end before, each time.
    for _ in 0..5 {
        let later = late.lease(.., WRITE, Duration::from_millis(40)).unwrap();
        let sooner = soon.lease(.., WRITE, Duration::from_millis(10)).unwrap();
        let ended = |lease: &Lease| lease.is_revoked() && Instant::now() >= lease.expires();
        drop(soon.as_slice_until(Instant::now() + LONG).unwrap());
        assert!(ended(&sooner));
        drop(late.as_slice_until(Instant::now() + LONG).unwrap());
        assert!(ended(&later));
    }
    assert!(!long.is_revoked());
}

pub fn r05_a_lease_that_was_forgotten_ends_when_its_time_has_passed<F: Fabric>(fabric: &F) {
    let _alone = alone();
    let mr = fabric.alloc(16);
    let lease = mr.lease(.., WRITE, Duration::ZERO).unwrap();
    let token = lease.token();
    std::mem::forget(lease);
    reap();
    assert!(mr.try_as_slice().is_some());
    assert_eq!(
        write_once(fabric, &[3; 16], at(token, 0)),
        WcStatus::RemAccessErr
    );
    // The forgotten one's few bytes are all that is lost.
    assert_eq!(fabric.registered(), 1);
}

pub fn r09_a_lease_keeps_the_memory_when_the_region_is_gone<F: Fabric>(fabric: &F) {
    let mr = fabric.region(&[1; 64]);
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (one, other) = (
        mr.lease(.., READ, HOUR).unwrap(),
        mr.lease(..8, READ, HOUR).unwrap(),
    );
    let refused = mr.close();
    let (mr, error) = refused.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(mr);
    drop(other);
    let (status, bytes) = read(fabric, &mut a, 64, at(one.token(), 0));
    assert!(status.is_success());
    assert_eq!(bytes, [1; 64]);
    assert_eq!(fabric.registered(), 1);
    one.revoke().unwrap();
    assert_eq!(fabric.registered(), 0);
    let (status, _) = read(fabric, &mut a, 64, at(one.token(), 0));
    assert_eq!(status, WcStatus::RemAccessErr);
}

pub fn r09_a_slot_under_a_lease_is_not_given_out_again<F: Fabric>(fabric: &F) {
    let size = PoolOptions {
        slot_length: 64,
        slots_per_registration: 2,
        max_registrations: 1,
    };
    let pool = MrOptions::new().pool(fabric.pd(), size).unwrap();
    let (slot, other) = (pool.take().unwrap(), pool.take().unwrap());
    let lease = slot.lease(8..24, WRITE, HOUR).unwrap();
    let addr = slot.addr();
    assert_eq!(lease.token().addr(), addr as u64 + 8);
    drop(slot);
    assert!(pool.try_take().is_none());
    assert!(write_once(fabric, &[2; 16], at(lease.token(), 0)).is_success());
    lease.revoke().unwrap();
    let slot = pool.try_take().expect("it has come back");
    assert_eq!((slot.addr(), &slot.as_slice()[8..24]), (addr, &[2; 16][..]));
    let denied = write_once(fabric, &[3; 16], at(lease.token(), 0));
    assert_eq!(denied, WcStatus::RemAccessErr);
    // The pool goes first, and the memory with what is left.
    let lease = slot.lease(.., READ, HOUR).unwrap();
    drop((pool, slot, other));
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (status, bytes) = read(fabric, &mut a, 64, at(lease.token(), 0));
    assert!(status.is_success());
    assert_eq!(bytes[8..24], [2; 16]);
    lease.revoke().unwrap();
    drop((a, _b));
    assert_eq!(fabric.registered(), 0);
}

pub fn a_lease_outlives_a_rotation<F: Fabric>(fabric: &F) {
    let mr = fabric.region(&[1; 16]);
    let lease = mr.lease(.., WRITE, HOUR).unwrap();
    mr.rotate_keys().unwrap();
    assert!(write_once(fabric, &[2; 16], at(lease.token(), 0)).is_success());
    assert!(matches!(mr.try_retire(), Err(Error::Held { .. })));
    lease.revoke().unwrap();
    mr.retire().unwrap();
    assert_eq!((mr.registrations(), fabric.registered()), (1, 1));
    assert_eq!(*mr.as_slice(), [2; 16]);
}

pub fn revoked_by_many_it_ends_once<F: Fabric>(fabric: &F) {
    let _alone = alone();
    let mr = fabric.alloc(16);
    let _reaper = Reaper::spawn("reaper").unwrap();
    for round in 0..100 {
        // Some come while the reaper does it.
        let lease = &mr
            .lease(.., WRITE, Duration::from_micros(round * 5))
            .unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    lease.revoke().unwrap();
                    assert!(lease.is_revoked());
                    assert!(mr.try_as_slice().is_some(), "free for whoever was told");
                });
            }
            scope.spawn(|| block_on(lease.revoke_async()).unwrap());
        });
        assert!(mr.state().is_free());
    }
    assert_eq!(fabric.registered(), 1);
}
