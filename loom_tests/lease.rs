//! Models of leases: the peer, by way of the NIC, is a thread that writes while its key is in force. Nobody
//! has the bytes before the registration has ended, whoever ends it, and whoever was told that the lease
//! is over finds the region free. (The time is none of loom's: a lease of no time has expired.)
#![cfg(loom)]

mod common;

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::{Bytes, exhaust, explore};
use loom::sync::Mutex;
use loom::thread;
use rdma_mr::lease::reap;
use rdma_mr::registration::{Deregister, Registered, Registrar};
use rdma_mr::{Access, Lease, Lend, LocalMr, LocalMrReadAccess, MrOptions};

/// A NIC that one peer uses, which has the key of the last registration: whether that is in force.
struct Nic {
    in_force: Mutex<bool>,
    bytes: Bytes,
    registered: AtomicUsize,
    /// Whether it keeps DEREG-1.
    honest: bool,
}

impl Nic {
    fn new(honest: bool) -> Arc<Self> {
        Arc::new(Nic {
            in_force: Mutex::new(false),
            bytes: Bytes::new(),
            registered: AtomicUsize::new(0),
            honest,
        })
    }

    /// What a WRITE of the peer's does: nothing if it is refused. The end of a registration waits for one
    /// that is under way (DEREG-1).
    fn write(&self) -> bool {
        let in_force = self.in_force.lock().unwrap();
        if *in_force {
            self.bytes.add(1);
        }
        *in_force
    }

    /// A region whose waiters park at once.
    fn region(self: &Arc<Self>) -> LocalMr {
        let patience = rdma_mr::gate::Patience {
            spin: Duration::ZERO,
            ..Default::default()
        };
        let options = MrOptions::new().patience(patience);
        let pd = Arc::new(Pd(Arc::clone(self)));
        options.register(&pd, vec![0; 8]).unwrap()
    }

    /// A peer that writes twice, or until it is refused.
    fn peer(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let nic = Arc::clone(self);
        thread::spawn(move || {
            let _ = nic.write() && nic.write();
        })
    }
}

struct Pd(Arc<Nic>);

// SAFETY: REG-1 to REG-3: the NIC is a model.
unsafe impl Registrar for Pd {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, access: Access) -> io::Result<Registered> {
        self.0.registered.fetch_add(1, Relaxed);
        let lent = access.lets_peers_write();
        if lent {
            *self.0.in_force.lock().unwrap() = true;
        }
        Ok(Registered {
            lkey: 1,
            rkey: 2,
            handle: Box::new(Handle(Arc::clone(&self.0), lent)),
        })
    }
}

struct Handle(Arc<Nic>, bool);

// SAFETY: DEREG-1 to DEREG-3: the NIC is a model, and sees to it.
unsafe impl Deregister for Handle {
    fn deregister(&mut self) -> io::Result<()> {
        if self.1 && self.0.honest {
            *self.0.in_force.lock().unwrap() = false;
        }
        self.0.registered.fetch_sub(1, Relaxed);
        Ok(())
    }
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
            let nic = Nic::new(true);
            let mr = Arc::new(nic.region());
            let lease = lend(&mr);
            let peer = nic.peer();
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
            let nic = Nic::new(true);
            let mr = Arc::new(nic.region());
            let lease = Arc::new(lend(&mr));
            let peer = nic.peer();
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
        let nic = Nic::new(true);
        let mr = nic.region();
        let lease = lend(&mr);
        let peer = nic.peer();
        let owner = thread::spawn(move || drop(mr));
        drop(lease);
        owner.join().unwrap();
        peer.join().unwrap();
        assert_eq!(nic.registered.load(Relaxed), 0);
    });
}

/// Breaks: DEREG-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn of_a_nic_that_does_not_end_registrations_the_reader_is_not_safe() {
    let name = "of_a_nic_that_does_not_end_registrations_the_reader_is_not_safe";
    explore(name, 2, 1, || {
        // Nothing is dropped in the panic: it would ask loom once more.
        let nic = Nic::new(false);
        let mr = ManuallyDrop::new(nic.region());
        let lease = ManuallyDrop::new(lend(&mr));
        let peer = nic.peer();
        lease.revoke().unwrap();
        let guard = ManuallyDrop::new(mr.try_as_slice().expect("free"));
        let _seen = nic.bytes.read();
        drop(ManuallyDrop::into_inner(guard));
        peer.join().unwrap();
        drop(ManuallyDrop::into_inner(lease));
        drop(ManuallyDrop::into_inner(mr));
    });
}
