//! Models of leases: the peer, by way of the NIC, is a thread that writes while its key is in force. Nobody
//! has the bytes before the registration has ended, whoever ends it, and whoever was told that the lease
//! is over finds the region free. (The time is none of loom's: a lease of no time has expired.)
#![cfg(not(crossbeam_loom))]

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use crate::common::nic::{Does, Fault, Nic, Refuses};
use crate::common::{exhaust, explore};
use loom::thread;
use rdma_mr::lease::reap;
use rdma_mr::{Access, Lease, Lend, LocalMr, LocalMrReadAccess};

/// A peer that writes twice, or until it is refused.
fn peer(nic: &Arc<Nic>, mr: &LocalMr, lease: &Lease) -> thread::JoinHandle<()> {
    let (nic, at) = (Arc::clone(nic), Nic::named(mr, lease.token().rkey()));
    thread::spawn(move || {
        let _ = nic.peer(at, Does::Write(1)) && nic.peer(at, Does::Write(2));
    })
}

fn lend(mr: &LocalMr) -> Lease {
    mr.lease(.., Access::REMOTE_WRITE, Duration::ZERO).unwrap()
}

/// Shows: LEASE-1, DEREG-1.
#[test]
fn a_reader_has_the_bytes_after_the_end_of_the_registration() {
    exhaust(
        "a_reader_has_the_bytes_after_the_end_of_the_registration",
        3,
        100,
        || {
            let nic = Nic::new();
            let mr = Arc::new(nic.region());
            let lease = lend(&mr);
            let peer = peer(&nic, &mr, &lease);
            let reader = {
                let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
                thread::spawn(move || {
                    let guard = mr.as_slice();
                    let seen = nic.bytes.read();
                    assert_eq!(nic.bytes.read(), seen);
                    drop(guard);
                })
            };
            lease.revoke().unwrap();
            peer.join().unwrap();
            reader.join().unwrap();
            assert!(mr.state().is_free());
        },
    );
}

/// Shows: LEASE-1.
#[test]
fn whoever_is_told_that_it_is_over_finds_the_region_free() {
    explore(
        "whoever_is_told_that_it_is_over_finds_the_region_free",
        2,
        100,
        || {
            let nic = Nic::new();
            let mr = Arc::new(nic.region());
            let lease = Arc::new(lend(&mr));
            let peer = peer(&nic, &mr, &lease);
            let reaper = thread::spawn(reap);
            lease.revoke().unwrap();
            assert!(lease.is_revoked());
            let guard = mr.try_as_slice().expect("free");
            let _seen = nic.bytes.read();
            drop(guard);
            reaper.join().unwrap();
            peer.join().unwrap();
        },
    );
}

/// Shows: REGION-2, REGION-5.
#[test]
fn the_last_of_region_and_lease_frees() {
    explore("the_last_of_region_and_lease_frees", 3, 50, || {
        let nic = Nic::new();
        let mr = nic.region();
        let lease = lend(&mr);
        let peer = peer(&nic, &mr, &lease);
        let owner = thread::spawn(move || drop(mr));
        drop(lease);
        owner.join().unwrap();
        peer.join().unwrap();
        assert_eq!(nic.registrations(), 0);
    });
}

/// Breaks: DEREG-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn of_a_nic_that_does_not_end_registrations_the_reader_is_not_safe() {
    let name = "of_a_nic_that_does_not_end_registrations_the_reader_is_not_safe";
    explore(name, 2, 1, || {
        // Nothing is dropped in the panic: it would ask loom once more.
        let nic = Nic::with(Some(Fault::EndsNothing), Refuses::Nothing);
        let mr = ManuallyDrop::new(nic.region());
        let lease = ManuallyDrop::new(lend(&mr));
        let peer = peer(&nic, &mr, &lease);
        lease.revoke().unwrap();
        let guard = ManuallyDrop::new(mr.try_as_slice().expect("free"));
        let _seen = nic.bytes.read();
        drop(ManuallyDrop::into_inner(guard));
        peer.join().unwrap();
        drop(ManuallyDrop::into_inner(lease));
        drop(ManuallyDrop::into_inner(mr));
    });
}
