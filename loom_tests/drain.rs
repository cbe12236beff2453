//! Models of the orderly end of a queue pair: every operation is accounted for once, and whoever waits
//! for the end is woken by whoever polls.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;

use crate::common::device::{Nic, Queue, Region};
use crate::common::{explore, insist};
use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;
use rdma_mr::LocalMrReadAccess;
use rdma_mr::op::{Begin, Endpoint, Poller};

/// A receive outstanding for each.
fn receiving(
    nic: &Arc<Nic>,
    regions: &[Region],
) -> (Endpoint<Queue>, Poller<crate::common::queues::Cq>) {
    let poller = Poller::new(nic.cq.clone());
    let mut endpoint = Endpoint::attach(Queue(Arc::clone(nic)), &poller).unwrap();
    for mr in regions {
        endpoint.recv(mr.begin_write().unwrap()).unwrap();
    }
    (endpoint, poller)
}

/// The bytes are nobody else's.
fn all_are_ours(nic: &Nic, regions: &[Region]) {
    for (at, mr) in regions.iter().enumerate() {
        let guard = mr.try_as_slice().expect("free");
        nic.bytes(at).read();
        drop(guard);
    }
}

/// The NIC carries out as many as it comes to before the end, another thread polls as well.
/// Shows: QP-4.
#[test]
fn a_drain_accounts_for_each_operation_once() {
    explore("a_drain_accounts_for_each_operation_once", 2, 100, || {
        let nic = Nic::new(None);
        let regions: [_; 2] = nic.regions();
        let (endpoint, poller) = receiving(&nic, &regions);
        let mut drain = endpoint.drain();
        let device = nic.device(2);
        let polling = thread::spawn(move || poller.poll().unwrap());
        drain.advance(|_| ());
        let drained = drain.finish();
        assert_eq!(drained.completed + drained.released, 2);
        assert!(drained.leaked == 0 && drained.error.is_none());
        all_are_ours(&nic, &regions);
        assert!(polling.join().unwrap() <= drained.completed);
        device.join().unwrap();
    });
}

/// The future is woken by a poll on another thread.
#[test]
fn who_drains_is_woken_by_who_polls() {
    explore("who_drains_is_woken_by_who_polls", 1, 100, || {
        let nic = Nic::new(None);
        let regions: [_; 1] = nic.regions();
        let (endpoint, poller) = receiving(&nic, &regions);
        let drain = endpoint.drain();
        let over = Arc::new(AtomicBool::new(false));
        let polling = {
            let (nic, over) = (Arc::clone(&nic), Arc::clone(&over));
            thread::spawn(move || {
                nic.carry_out(1);
                insist(|| {
                    poller.poll().unwrap();
                    over.load(Relaxed).then_some(())
                });
                poller // Its `Arc` is none of loom's: not dropped here.
            })
        };
        let drained = block_on(drain);
        over.store(true, Relaxed);
        assert_eq!((drained.completed, drained.released), (1, 0));
        all_are_ours(&nic, &regions);
        polling.join().unwrap();
    });
}
