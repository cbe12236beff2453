//! Leases whose registration the provider does not end at once: nothing is given back before it has (R14),
//! and nothing is lost (R5, R19). One process of its own: it counts what is leaked.
#![cfg(all(feature = "soft", not(loom)))]

mod util;
mod watched;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::{Fault, Nic, When};
use rdma_mr::gate::Snapshot;
use rdma_mr::lease::{Reaper, reap};
use rdma_mr::op::Begin;
use rdma_mr::{Access, Error, Lease, Lend, LocalMr, LocalMrReadAccess, leaks};
use util::*;
use watched::{Event, Watched};

const HOUR: Duration = Duration::from_secs(3600);
const WRITE: Access = Access::REMOTE_WRITE;

/// The next deregistrations are refused.
fn refuse(nic: &Nic, times: usize) {
    for _ in 0..times {
        nic.inject(Fault::Deregister, When::Nth(1));
    }
}

fn region() -> (Nic, LocalMr) {
    let nic = Nic::new();
    let mr = LocalMr::alloc(&nic.alloc_pd(), 64).unwrap();
    (nic, mr)
}

/// One at a time: leases are reaped and leaks counted for the whole process.
fn alone() -> impl Drop {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn r14_the_registration_ends_before_anybody_has_the_bytes() {
    let _alone = alone();
    let watched: Arc<Mutex<Option<Arc<LocalMr>>>> = Arc::default();
    let seen: Arc<Mutex<Vec<Snapshot>>> = Arc::default();
    let (region, states) = (watched.clone(), seen.clone());
    let pd = Watched::new(Nic::new().alloc_pd(), move |event| {
        if let (Event::Ends { .. }, Some(mr)) = (event, &*region.lock().unwrap()) {
            states.lock().unwrap().push(mr.state());
        }
        Ok(())
    });
    let mr = Arc::new(LocalMr::alloc(&pd, 64).unwrap());
    *watched.lock().unwrap() = Some(mr.clone());
    let ends: [fn(Lease); 4] = [
        |lease| lease.revoke().unwrap(),
        drop,
        |lease| futures_lite::future::block_on(lease.revoke_async()).unwrap(),
        |lease| {
            std::mem::forget(lease);
            reap();
        },
    ];
    for end in ends {
        end(mr.lease(.., WRITE, Duration::ZERO).unwrap());
        assert!(mr.state().is_free());
        let state = seen.lock().unwrap().pop().expect("deregistered");
        assert!(!state.is_free() && state.writer.is_some(), "{state}");
    }
    watched.lock().unwrap().take();
}

#[test]
fn r05_what_can_not_be_revoked_is_in_force() {
    let _alone = alone();
    let (nic, mr) = region();
    let before = leaks();
    let lease = mr.lease(.., WRITE, HOUR).unwrap();
    refuse(&nic, 2);
    let refused = lease.revoke();
    assert!(
        matches!(&refused, Err(Error::Deregister(e)) if e.kind() == io::ErrorKind::ResourceBusy)
    );
    let refused = futures_lite::future::block_on(lease.revoke_async());
    assert!(matches!(refused, Err(Error::Deregister(_))));
    assert!(!lease.is_revoked() && mr.try_as_slice().is_none());
    assert_eq!(nic.stats().registrations, 2);
    lease.revoke().unwrap();
    assert!(lease.is_revoked() && mr.try_as_slice().is_some());

    let lease = mr.lease(.., WRITE, Duration::ZERO).unwrap();
    refuse(&nic, 1);
    let now = Instant::now();
    let reaped = reap();
    assert_eq!((reaped.revoked, reaped.refused), (0, 1));
    assert!(reaped.next.is_some_and(|next| next > now), "not at once");
    assert_eq!(reap().revoked, 1);
    assert!(lease.is_revoked());
    // A reaper tries again by itself.
    let _reaper = Reaper::spawn("reaper").unwrap();
    refuse(&nic, 2);
    let lease = mr.lease(.., WRITE, Duration::from_millis(5)).unwrap();
    drop(mr.as_slice_until(far()).unwrap());
    assert!(lease.is_revoked());
    assert_eq!(leaks(), before);
}

#[test]
fn r14_what_can_not_be_revoked_in_a_drop_is_leaked_and_counted() {
    let _alone = alone();
    let (nic, mr) = region();
    let before = leaks();
    refuse(&nic, 1);
    drop(mr.lease(8..24, WRITE, Duration::ZERO).unwrap());
    let now = leaks();
    assert_eq!(now.registrations - before.registrations, 1);
    assert_eq!(
        (now.bytes - before.bytes, now.holds - before.holds),
        (16, 1)
    );
    // The peers may still write: nobody gets the bytes, now or later.
    assert_eq!(reap().revoked, 0);
    assert!(mr.try_as_slice().is_none());
    drop(mr);
    assert_eq!(nic.stats().registrations, 2);
}

#[test]
fn r19_a_registration_that_fails_lends_nothing() {
    let _alone = alone();
    let (nic, mr) = region();
    nic.inject(Fault::Register, When::Nth(1));
    let refused = mr.lease(.., WRITE, HOUR);
    assert!(matches!(refused, Err(Error::Register(_))), "{refused:?}");
    assert!(mr.state().is_free());
    assert_eq!(reap().next, None);
    drop(mr.lease(.., WRITE, HOUR).unwrap());
    drop(mr.begin_write().unwrap());
}
