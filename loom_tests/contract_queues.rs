//! The contracts of queues, clause by clause: who completes by hand, who posts beside an endpoint, and what a
//! provider owes to an endpoint. Each scenario passes if all keep to theirs; with one clause broken, and
//! nothing else, somebody has bytes that the NIC has not done with, and loom reports it.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;

use crate::common::device::{Fault, Nic, Queue};
use crate::common::{Kept, exhaust, insist};
use rdma_mr::op::{Begin, Endpoint, Poller, SharedRecv, recv_ring};
use rdma_mr::work::{QueuePair, RecvWr, RemoteAddr, SendFlags, SendOp, Sge, WcStatus};

/// What a scenario explores at least if it does not fail.
const LEAST: usize = 20;

const WRITES: SendOp = SendOp::Read {
    remote: RemoteAddr { addr: 64, rkey: 1 },
};

/// What a user of a ring does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Early {
    None,
    /// Tells of a completion that was not polled (COMPLETE-1).
    Completes,
    /// Says that the queue pair was destroyed (COMPLETE-2).
    ReleasesAll,
}

/// A ring beside a queue pair of one's own.
fn ring_by_hand(name: &str, early: Early) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(None);
        let [mr] = nic.regions();
        let queue = Queue(Arc::clone(&nic));
        let (mut poster, completer) = recv_ring(1, 1);
        let mut completer = Kept::new(completer);
        let hold = mr.begin_write().unwrap();
        let prepared = poster.prepare(hold, SendFlags::SIGNALED).unwrap();
        let wr_id = prepared.wr_id();
        let sge: &[Sge] = prepared.sges();
        // SAFETY: POST-2: the ring keeps the hold; POST-3: there is no endpoint.
        unsafe { QueuePair::post_recv(&queue, &RecvWr { wr_id, sge }) }.unwrap();
        prepared.commit();
        let device = nic.device(1);
        let onlooker = nic.onlooker(0, &mr);
        match early {
            Early::None => {
                let wc = nic.poll();
                // SAFETY: COMPLETE-1: it was polled.
                unsafe { completer.complete(wc.wr_id, wc.status) }.unwrap();
            }
            Early::Completes => {
                // SAFETY: none: COMPLETE-1 is broken.
                unsafe { completer.complete(wr_id, WcStatus::Success) }.unwrap();
            }
            Early::ReleasesAll => {
                // SAFETY: none: COMPLETE-2 is broken.
                unsafe { completer.take().release_all() };
            }
        }
        nic.look(0, &mr);
        device.join().unwrap();
        onlooker.join().unwrap();
    });
}

/// Shows: COMPLETE-1, POST-2, RING-1.
#[test]
fn a_ring_hands_on_what_was_polled() {
    ring_by_hand("a_ring_hands_on_what_was_polled", Early::None);
}

/// Breaks: COMPLETE-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn complete_1_a_completion_that_was_not_polled() {
    ring_by_hand("complete_1", Early::Completes);
}

/// Breaks: COMPLETE-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn complete_2_a_queue_pair_that_was_not_destroyed() {
    ring_by_hand("complete_2", Early::ReleasesAll);
}

/// A queue pair that is closed while a receive is outstanding, or under way.
fn endpoint_that_is_closed(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault);
        let [mr] = nic.regions();
        let mut endpoint = Kept::new(Endpoint::new(Queue(Arc::clone(&nic))));
        endpoint.recv(mr.begin_write().unwrap()).unwrap();
        let device = nic.device(1);
        let onlooker = nic.onlooker(0, &mr);
        drop(endpoint);
        nic.look(0, &mr);
        device.join().unwrap();
        onlooker.join().unwrap();
    });
}

/// Shows: QP-4, COMPLETE-2.
#[test]
fn what_was_outstanding_is_handed_on_by_the_end() {
    let name = "what_was_outstanding_is_handed_on_by_the_end";
    endpoint_that_is_closed(name, None);
}

/// Breaks: QP-4.
#[test]
#[should_panic(expected = "Causality violation")]
fn qp_4_a_nic_that_goes_on_after_the_end() {
    endpoint_that_is_closed("qp_4", Some(Fault::GoesOnAfterDestroy));
}

/// No clause: a completion that comes under another number releases nothing, and the end does.
#[test]
fn a_completion_under_another_number_releases_nothing() {
    let name = "a_completion_under_another_number_releases_nothing";
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(Some(Fault::SaysAnotherNumber));
        let [mr] = nic.regions();
        let mut endpoint = Kept::new(Endpoint::new(Queue(Arc::clone(&nic))));
        endpoint.recv(mr.begin_write().unwrap()).unwrap();
        let device = nic.device(1);
        let onlooker = nic.onlooker(0, &mr);
        insist(|| endpoint.poll(|_| ()).err());
        assert!(!mr.state().is_free());
        drop(endpoint);
        nic.look(0, &mr);
        device.join().unwrap();
        onlooker.join().unwrap();
    });
}

/// The same of a shared receive queue.
fn shared_queue_that_is_closed(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault);
        let [mr] = nic.regions();
        let mut shared = Kept::new(SharedRecv::new(Queue(Arc::clone(&nic))));
        let poller = Poller::new(nic.cq.clone());
        shared.attach(&poller).unwrap();
        shared.recv(mr.begin_write().unwrap()).unwrap();
        let device = nic.device(1);
        let onlooker = nic.onlooker(0, &mr);
        drop(shared);
        nic.look(0, &mr);
        device.join().unwrap();
        onlooker.join().unwrap();
    });
}

/// Shows: SRQ-3.
#[test]
fn what_a_shared_queue_had_is_handed_on_by_its_end() {
    let name = "what_a_shared_queue_had_is_handed_on_by_its_end";
    shared_queue_that_is_closed(name, None);
}

/// Breaks: SRQ-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn srq_3_a_nic_that_goes_on_after_the_end() {
    shared_queue_that_is_closed("srq_3", Some(Fault::GoesOnAfterDestroy));
}

/// A send without a completion of its own before one with.
fn selective_signalling(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault);
        let [first, second] = nic.regions();
        let mut endpoint = Kept::new(Endpoint::new(Queue(Arc::clone(&nic))));
        for (mr, flags) in [(&first, SendFlags::empty()), (&second, SendFlags::SIGNALED)] {
            let hold = mr.begin_write().unwrap();
            endpoint.post(hold, WRITES, flags).unwrap();
        }
        let device = nic.device(2);
        let onlooker = nic.onlooker(0, &first);
        insist(|| (endpoint.poll(|_| ()).unwrap() > 0).then_some(()));
        nic.look(0, &first);
        device.join().unwrap();
        onlooker.join().unwrap();
    });
}

/// Shows: QP-5, QP-3, COMPLETE-1.
#[test]
fn a_completion_hands_on_what_was_posted_before() {
    selective_signalling("a_completion_hands_on_what_was_posted_before", None);
}

/// Breaks: QP-5.
#[test]
#[should_panic(expected = "Causality violation")]
fn qp_5_a_nic_that_takes_the_second_first() {
    selective_signalling("qp_5", Some(Fault::TakesTheSecondFirst));
}

/// A receive that was posted by hand, with a number that the user gave it, and after it one of the
/// endpoint's.
fn beside_an_endpoint(name: &str, by_hand_is_the_endpoints: bool) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(None);
        let [first, by_hand, mr] = nic.regions();
        let mut endpoint = Kept::new(Endpoint::new(Queue(Arc::clone(&nic))));
        let id = endpoint.recv(first.begin_write().unwrap()).unwrap();
        nic.carry_out(1);
        assert_eq!(endpoint.poll(|_| ()).unwrap(), 1);
        let hold = Kept::new(by_hand.begin_write().unwrap());
        let wr_id = match by_hand_is_the_endpoints {
            true => id.after(1).wr_id(),
            false => 1,
        };
        let sge = [hold.sge()];
        // SAFETY: POST-2: the hold is kept until the end; POST-3: unless the model is about it.
        unsafe { QueuePair::post_recv(endpoint.qp(), &RecvWr { wr_id, sge: &sge }) }.unwrap();
        endpoint.recv(mr.begin_write().unwrap()).unwrap();
        let device = nic.device(2);
        let mut over = 0;
        insist(|| {
            // A completion that is not the endpoint's is an error, and no more.
            let _ = endpoint.poll(|_| over += 1);
            (over > 0).then_some(())
        });
        nic.look(2, &mr);
        device.join().unwrap();
    });
}

/// Shows: POST-3.
#[test]
fn a_number_below_2_48_is_no_endpoints() {
    beside_an_endpoint("a_number_below_2_48_is_no_endpoints", false);
}

/// Breaks: POST-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn post_3_a_number_that_is_the_endpoints() {
    beside_an_endpoint("post_3", true);
}
