//! Leases: what they cover and what they exclude, in all forms. On the NIC in software and on a device; what ends
//! them is in `ends`, the peers that go on regardless in `peers`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future::block_on;
use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, RemoteAddr, WcStatus};
use rdma_mr::{
    Access, Error, Lease, Lend, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions,
    MrToken, RemoteMr, SharedMr, SharedMrAccess,
};

use crate::fabric::{Fabric, LONG, finish};

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:expr) => {
        $crate::fabric::tests! { suite [$($attributes)*] $fabric =>
            r04_a_lease_is_exactly_its_bytes_and_rights
            r04_default_rights_need_not_contain_what_is_lent
            r01_readers_wait_for_a_lease_to_write_and_see_what_was_written
            r01_leases_to_read_are_beside_readers_and_exclude_writers
            r18_leases_in_all_forms
            r19_what_can_not_be_lent_is_said_and_nothing_is_held
            leases_of_slices_parts_and_shared_memory
        }
        $crate::fabric::tests! { ends [$($attributes)*] $fabric =>
            r05_only_the_end_of_the_registration_gives_the_bytes_back
            r05_an_expired_lease_is_dead_though_its_token_is_held
            r05_a_reaper_ends_leases_in_the_order_of_their_ends
            r05_a_lease_that_was_forgotten_ends_when_its_time_has_passed
            r09_a_lease_keeps_the_memory_when_the_region_is_gone
            r09_a_slot_under_a_lease_is_not_given_out_again
            a_lease_outlives_a_rotation
            revoked_by_many_it_ends_once
        }
        $crate::fabric::tests! { peers [$($attributes)*] $fabric =>
            r05_a_peer_that_never_stops_is_refused_once_it_is_revoked
            r05_the_same_as_futures
        }
    };
}
pub(crate) use tests;

pub const HOUR: Duration = Duration::from_secs(3600);
pub const WRITE: Access = Access::REMOTE_WRITE;
pub const READ: Access = Access::REMOTE_READ;

/// Reapers serve the whole process: for those who have one, and those who want none.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first bytes that the token names, and `by` more.
pub fn at(token: MrToken, by: isize) -> RemoteAddr {
    RemoteAddr {
        addr: token.addr().wrapping_add_signed(by as i64),
        rkey: token.rkey(),
    }
}

/// How a WRITE of these bytes there ends.
pub fn write<F: Fabric>(
    fabric: &F,
    end: &mut Endpoint<F::Qp>,
    bytes: &[u8],
    to: RemoteAddr,
) -> WcStatus {
    let from = fabric.region(bytes);
    end.write(from.begin_read().unwrap(), to, None).unwrap();
    finish(end, 1)[0].status
}

/// How a READ of that many bytes from there ends, and what has come.
pub fn read<F: Fabric>(
    fabric: &F,
    end: &mut Endpoint<F::Qp>,
    length: usize,
    from: RemoteAddr,
) -> (WcStatus, Vec<u8>) {
    let to = fabric.alloc(length);
    end.read(to.begin_write().unwrap(), from).unwrap();
    let status = finish(end, 1)[0].status;
    (status, to.as_slice().to_vec())
}

/// How a WRITE there ends, by a queue pair that is used for nothing else.
pub fn write_once<F: Fabric>(fabric: &F, bytes: &[u8], to: RemoteAddr) -> WcStatus {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    write(fabric, &mut a, bytes, to)
}

pub fn r04_a_lease_is_exactly_its_bytes_and_rights<F: Fabric>(fabric: &F) {
    let mr = fabric.region(&[1; 192]);
    let lease = mr.lease(64..128, WRITE, HOUR).unwrap();
    let token = lease.token();
    assert_eq!(token.addr(), mr.addr() as u64 + 64);
    assert_eq!((token.length(), token.access()), (64, WRITE));
    assert_ne!(token.rkey(), mr.rkey());
    assert!(token.deadline() > std::time::SystemTime::now() + HOUR / 2);
    let denied = WcStatus::RemAccessErr;
    for (bytes, by) in [
        (65, 0),
        (1, 64),
        (2, 63),
        (1, -1),
        (65, -1),
        (1, -64),
        (128, -64),
    ] {
        let status = write_once(fabric, &vec![2; bytes], at(token, by));
        assert_eq!(status, denied, "{bytes} bytes at {by:+}");
    }
    let (mut a, _b) = fabric.pair(QpCaps::default());
    assert_eq!(read(fabric, &mut a, 64, at(token, 0)).0, denied);
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let number = fabric.alloc(8);
    a.fetch_add(number.begin_write().unwrap(), at(token, 0), 1)
        .unwrap();
    assert_eq!(finish(&mut a, 1)[0].status, denied);
    // The peer's own side knows as much.
    let mut remote = RemoteMr::new(token).unwrap();
    assert!(matches!(
        remote.get_mut(..65),
        Err(Error::RangeOutside { .. })
    ));
    let whole = fabric.region(&[3; 64]);
    let (mut a, _b) = fabric.pair(QpCaps::default());
    a.write(whole.begin_read().unwrap(), &mut remote, None)
        .unwrap();
    assert!(finish(&mut a, 1)[0].status.is_success());
    lease.revoke().unwrap();
    let bytes = mr.as_slice();
    assert!(bytes[..64].iter().chain(&bytes[128..]).all(|b| *b == 1));
    assert!(bytes[64..128].iter().all(|b| *b == 3));
}

pub fn r04_default_rights_need_not_contain_what_is_lent<F: Fabric>(fabric: &F) {
    let mr = fabric.region(&7_u64.to_ne_bytes());
    assert_eq!(mr.access(), Access::LOCAL_WRITE);
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let lease = mr.lease(.., Access::REMOTE, HOUR).unwrap();
    let token = lease.token();
    assert_eq!(token.access(), Access::REMOTE);
    let number = fabric.alloc(8);
    a.fetch_add(number.begin_write().unwrap(), at(token, 0), 3)
        .unwrap();
    assert!(finish(&mut a, 1)[0].status.is_success());
    let (status, bytes) = read(fabric, &mut a, 8, at(token, 0));
    assert!(status.is_success());
    assert_eq!(bytes, 10_u64.to_ne_bytes());
    // The key of the region itself is none for peers.
    let own = RemoteAddr {
        addr: token.addr(),
        rkey: mr.rkey(),
    };
    assert_eq!(write(fabric, &mut a, &[0; 8], own), WcStatus::RemAccessErr);
    drop(lease);
    assert_eq!(*mr.as_slice(), 10_u64.to_ne_bytes());
}

pub fn r01_readers_wait_for_a_lease_to_write_and_see_what_was_written<F: Fabric>(fabric: &F) {
    let mut mr = fabric.region(&[1; 64]);
    let (mut a, _b) = fabric.pair(QpCaps::default());
    for (access, round) in [(WRITE, 2), (Access::REMOTE_ATOMIC, 3), (WRITE | READ, 4)] {
        let lease = mr.lease(8..16, access, HOUR).unwrap();
        let state = mr.state();
        assert!(state.writer.is_some() && !state.is_free(), "{state}");
        assert!(mr.try_as_slice().is_none() && mr.try_begin_read().is_err());
        let refused = mr.try_lease(.., READ, HOUR);
        assert!(matches!(refused, Err(Error::Held { .. })), "{refused:?}");
        thread::scope(|scope| {
            let seen = scope.spawn(|| mr.as_slice()[8..16].to_vec());
            let start = Instant::now();
            while !mr.state().waiting_shared && !seen.is_finished() {
                assert!(start.elapsed() < LONG, "it does not wait");
                thread::yield_now();
            }
            assert!(!seen.is_finished(), "it has not waited");
            if access.contains(WRITE) {
                let status = write(fabric, &mut a, &[round; 8], at(lease.token(), 0));
                assert!(status.is_success());
            } else {
                let number = fabric.alloc(8);
                let add = u64::from_ne_bytes([round - 2; 8]);
                a.fetch_add(number.begin_write().unwrap(), at(lease.token(), 0), add)
                    .unwrap();
                assert!(finish(&mut a, 1)[0].status.is_success());
            }
            assert!(!seen.is_finished(), "the lease is in force");
            lease.revoke().unwrap();
            assert_eq!(seen.join().unwrap(), [round; 8]);
        });
        assert!(mr.try_as_mut_slice().is_some());
    }
}

pub fn r01_leases_to_read_are_beside_readers_and_exclude_writers<F: Fabric>(fabric: &F) {
    let mut mr = fabric.region(&[5; 64]);
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let one = mr.lease(..32, READ, HOUR).unwrap();
    let other = mr.lease(16..64, READ, HOUR).unwrap();
    assert_eq!(mr.state().nic_reads, 2);
    assert_eq!(*mr.try_as_slice().unwrap(), [5; 64]);
    drop(mr.begin_read().unwrap());
    assert!(mr.try_begin_write().is_err());
    assert!(mr.try_as_mut_slice().is_none());
    for token in [one.token(), other.token()] {
        let (status, bytes) = read(fabric, &mut a, 32, at(token, 0));
        assert!(status.is_success());
        assert_eq!(bytes, [5; 32]);
    }
    one.revoke().unwrap();
    assert!(mr.try_as_mut_slice().is_none(), "the other one is in force");
    let (status, _) = read(fabric, &mut a, 48, at(other.token(), 0));
    assert!(status.is_success());
    other.revoke().unwrap();
    assert!(mr.try_as_mut_slice().is_some());
    for token in [one.token(), other.token()] {
        let (mut a, _b) = fabric.pair(QpCaps::default());
        let status = read(fabric, &mut a, 1, at(token, 0)).0;
        assert_eq!(status, WcStatus::RemAccessErr);
    }
}

pub fn r18_leases_in_all_forms<F: Fabric>(fabric: &F) {
    let mr = &fabric.region(&[1; 16]);
    let wrote = &|lease: &Lease| write_once(fabric, &[2; 16], at(lease.token(), 0)).is_success();
    let lease = mr.try_lease(.., WRITE, HOUR).unwrap();
    assert!(wrote(&lease));
    assert!(matches!(
        mr.try_lease(.., WRITE, HOUR),
        Err(Error::Held { .. })
    ));
    let late = mr.lease_until(.., WRITE, HOUR, Instant::now());
    assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");
    // Those that wait get it when it is there, one after the other.
    thread::scope(|scope| {
        let check = |lease: Result<Lease, Error>| assert!(wrote(&lease.unwrap()));
        let far = Instant::now() + LONG;
        scope.spawn(move || check(mr.lease_until(.., WRITE, HOUR, far)));
        scope.spawn(move || check(mr.lease(.., WRITE, HOUR)));
        scope.spawn(move || check(block_on(mr.lease_async(.., WRITE, HOUR))));
        while mr.waits() < 4 {
            thread::yield_now();
        }
        let mut lease = Some(lease);
        check(mr.lease_with(.., WRITE, HOUR, || lease = None));
    });
    let lease = block_on(mr.lease_async(.., WRITE, HOUR)).unwrap();
    assert!(wrote(&lease));
    block_on(lease.revoke_async()).unwrap();
    assert_eq!(*mr.try_as_slice().unwrap(), [2; 16]);
    block_on(lease.revoke_async()).unwrap();
    // A future that was not polled has neither lent nor revoked.
    let lease = mr.lease(.., WRITE, HOUR).unwrap();
    drop(lease.revoke_async());
    assert!(!lease.is_revoked());
    drop(lease);
    drop(mr.lease_async(.., WRITE, HOUR));
    assert!(mr.state().is_free());
}

pub fn r19_what_can_not_be_lent_is_said_and_nothing_is_held<F: Fabric>(fabric: &F) {
    let mr = fabric.alloc(64);
    for access in [Access::empty(), Access::LOCAL_WRITE] {
        let refused = mr.lease(.., access, HOUR);
        assert!(matches!(refused, Err(Error::NothingLent { access: a }) if a == access));
    }
    let outside = mr.get(16..32).unwrap().lease(..17, READ, HOUR);
    let inside = |error| {
        matches!(
            error,
            Err(Error::RangeOutside {
                end: 17,
                length: 16,
                ..
            })
        )
    };
    assert!(inside(outside));
    assert!(matches!(
        mr.lease(8..8, READ, HOUR),
        Err(Error::EmptyRange { start: 8 })
    ));
    for access in [READ, WRITE] {
        let forever = mr.lease(.., access, Duration::MAX);
        assert!(
            matches!(forever, Err(Error::DeadlineOverflow)),
            "{forever:?}"
        );
        let forever = block_on(mr.lease_async(.., access, Duration::MAX));
        assert!(
            matches!(forever, Err(Error::DeadlineOverflow)),
            "{forever:?}"
        );
    }
    let read_only = MrOptions::new()
        .access(READ)
        .alloc(fabric.pd(), 64)
        .unwrap();
    let refused = read_only.lease(.., WRITE, HOUR);
    assert!(
        matches!(refused, Err(Error::MissingRight { .. })),
        "{refused:?}"
    );
    drop(read_only.lease(.., READ, HOUR).unwrap());
    assert!(mr.state().is_free() && read_only.state().is_free());
    assert_eq!(fabric.registered(), 2);
    mr.shutdown();
    assert!(matches!(mr.lease(.., READ, HOUR), Err(Error::Closed)));
    assert!(matches!(
        block_on(mr.lease_async(.., READ, HOUR)),
        Err(Error::Closed)
    ));
}

pub fn leases_of_slices_parts_and_shared_memory<F: Fabric>(fabric: &F) {
    let mut mr = fabric.region(&[1; 96]);
    let back = mr.split_off(64).unwrap();
    let slice = mr.get(16..48).unwrap();
    let of_slice = slice.get(8..).unwrap().lease(4..8, WRITE, HOUR).unwrap();
    assert_eq!(of_slice.token().addr(), mr.addr() as u64 + 28);
    assert!(mr.try_as_slice().is_none() && back.try_as_slice().is_some());
    let of_part = back.lease(1.., WRITE, HOUR).unwrap();
    assert_eq!(of_part.token().addr(), mr.addr() as u64 + 65);
    for lease in [&of_slice, &of_part] {
        let token = lease.token();
        let bytes = vec![2; token.length() as usize];
        assert!(write_once(fabric, &bytes, at(token, 0)).is_success());
    }
    drop((of_slice, of_part));
    let expected =
        |range: std::ops::Range<usize>| (0..96).map(move |at| 1 + u8::from(range.contains(&at)));
    assert!(mr.as_slice().iter().copied().eq(expected(28..32).take(64)));
    assert!(
        back.as_slice()
            .iter()
            .copied()
            .eq(expected(65..96).skip(64))
    );

    let shared = SharedMr::alloc(fabric.pd(), 64, Access::LOCAL_WRITE).unwrap();
    let one = shared.lease(..32, WRITE, HOUR).unwrap();
    let other = shared.get(16..).unwrap().lease(.., WRITE, HOUR).unwrap();
    assert_eq!(shared.state().nic_reads, 2);
    assert!(write_once(fabric, &[2; 32], at(one.token(), 0)).is_success());
    assert!(write_once(fabric, &[3; 48], at(other.token(), 0)).is_success());
    assert_eq!(shared.load::<u8>(15).unwrap(), 2);
    one.revoke().unwrap();
    assert_eq!(
        write_once(fabric, &[4; 8], at(one.token(), 0)),
        WcStatus::RemAccessErr
    );
    assert_eq!(shared.load::<u8>(16).unwrap(), 3);
}
