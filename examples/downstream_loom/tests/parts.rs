//! What of rdma-mr works inside a model, one small model each, over the NIC in software: futures, a poller that sleeps,
//! leases, pools.
#![cfg(loom)]

mod util;

use std::sync::Arc;
use std::time::Duration;

use loom::future::block_on;
use loom::thread;
use rdma_mr::lease::{Lend, Reaper};
use rdma_mr::op::{AsyncQueuePair, Begin};
use rdma_mr::work::{RemoteAddr, WcStatus};
use rdma_mr::{Access, LocalMrReadAccess, LocalMrWriteAccess, MrOptions, PoolOptions, RemoteMr};
use util::{Kept, World, explore, insist};

/// A future is woken by the thread that polls, while the NIC carries its operation out.
#[test]
fn a_future_is_woken() {
    explore(10, || {
        let world = World::new();
        let (from, to) = (world.region(&[7; 8]), world.region(&[0; 8]));
        let World { nic, mut a, b, .. } = world;
        a.send(from.begin_read().unwrap(), None).unwrap();
        let poller = Kept::new(b.recv_poller().clone());
        let b = Kept::new(AsyncQueuePair::new(b.into_inner()));
        let polling = {
            let (nic, poller) = (nic.clone(), poller.clone());
            thread::spawn(move || {
                insist(|| {
                    nic.step();
                    (poller.poll().unwrap() > 0).then_some(())
                });
            })
        };
        assert_eq!(block_on(b.recv(&*to)).unwrap().byte_len, 8);
        polling.join().unwrap();
    });
}

/// A thread sleeps on the completion queue while another one lets the NIC act.
#[test]
fn a_poller_sleeps_until_the_nic_has_acted() {
    explore(10, || {
        let mut world = World::new();
        let mr = world.region(&[7; 8]);
        let nothing = RemoteAddr::default();
        let from = mr.begin_read().unwrap();
        let sent = world.a.write(from, nothing, None).unwrap();
        let acting = {
            let nic = world.nic.clone();
            thread::spawn(move || nic.run_until_idle())
        };
        let mut told = Vec::new();
        let poller = world.a.send_poller();
        poller
            .wait(None, |done| told.push((done.id, done.status)))
            .unwrap();
        assert_eq!(told, [(sent, WcStatus::RemAccessErr)]);
        acting.join().unwrap();
        assert!(mr.state().is_free());
    });
}

/// A peer writes bytes that were lent; after the end of the lease it does not, and the reader has them.
#[test]
fn a_lease_ends_before_the_bytes_are_read() {
    explore(10, || {
        let mut world = World::new();
        let (from, to) = (world.region(&[7; 8]), world.region(&[0; 8]));
        let lease = to.lease(.., Access::REMOTE_WRITE, Duration::from_secs(3600));
        let lease = Kept::new(lease.unwrap());
        let remote = RemoteMr::new(lease.token()).unwrap();
        let from = from.begin_read().unwrap();
        world.a.write(from, remote, None).unwrap();
        let acting = {
            let nic = world.nic.clone();
            thread::spawn(move || nic.run_until_idle())
        };
        lease.revoke().unwrap();
        let bytes = Kept::new(to.try_as_slice().expect("the lease is over"));
        let first = bytes.to_vec();
        acting.join().unwrap();
        assert_eq!(first, bytes[..], "written under a reader");
        assert!(first == [7; 8] || first == [0; 8]);
    });
}

/// Two threads share a pool of one slot: the one that waits for it gets it.
#[test]
fn a_slot_goes_from_one_to_the_other() {
    explore(10, || {
        let world = World::new();
        let size = PoolOptions {
            slot_length: 8,
            slots_per_registration: 1,
            max_registrations: 1,
        };
        let pool = MrOptions::new().pool(&*world.pd, size).unwrap();
        let pool = Arc::new(Kept::new(pool));
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                let mut slot = Kept::new(pool.take().unwrap());
                slot.as_mut_slice()[0] += 1;
            })
        };
        {
            let mut slot = Kept::new(pool.take().unwrap());
            slot.as_mut_slice()[0] += 1;
        }
        other.join().unwrap();
        assert_eq!(pool.take().unwrap().as_slice()[0], 2);
    });
}

/// Threads that loom does not know would touch what it watches.
#[test]
fn threads_of_the_crates_own_are_refused() {
    explore(1, || {
        let world = World::new();
        assert!(world.a.send_poller().spawn("poller").is_err());
        assert!(Reaper::spawn("reaper").is_err());
    });
}
