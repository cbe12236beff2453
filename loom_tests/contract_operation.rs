//! The contracts of operations, clause by clause: who posts by hand, who completes by hand, and what a
//! provider owes. Each scenario passes if all keep to theirs; with one clause broken, and nothing else,
//! somebody has bytes that the NIC has not done with, and loom reports it.
#![cfg(loom)]

mod common;

use std::sync::Arc;

use common::device::{Fault, Nic, Queue, Region};
use common::{Kept, exhaust, insist};
use loom::thread;
use rdma_mr::op::{Begin, Endpoint, Hold, Poller, SharedRecv, recv_ring};
use rdma_mr::work::{
    CompletionQueue, QueuePair, RecvWr, RemoteAddr, SendFlags, SendOp, SendWr, Sge,
    SharedRecvQueue, WcStatus, WorkCompletion,
};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

/// What a scenario explores at least if it does not fail.
const LEAST: usize = 20;

const READS: SendOp = SendOp::Write {
    remote: RemoteAddr { addr: 64, rkey: 1 },
    imm: None,
};

const WRITES: SendOp = SendOp::Read {
    remote: RemoteAddr { addr: 64, rkey: 1 },
};

/// The next completion of the NIC's.
fn poll(nic: &Nic) -> WorkCompletion {
    insist(|| {
        let mut out = [WorkCompletion::EMPTY];
        (nic.cq.poll(&mut out).unwrap() == 1).then_some(out[0])
    })
}

/// Looks at the bytes of a region under a guard, if it is free.
fn look(nic: &Nic, at: usize, mr: &LocalMr) {
    if let Some(guard) = mr.try_as_slice() {
        let guard = Kept::new(guard);
        nic.bytes(at).read();
        drop(guard);
    }
}

fn carry_out(nic: &Arc<Nic>, count: usize) -> thread::JoinHandle<()> {
    let nic = Arc::clone(nic);
    thread::spawn(move || nic.carry_out(count))
}

/// Somebody else who looks.
fn onlooker(nic: &Arc<Nic>, at: usize, mr: &Region) -> thread::JoinHandle<()> {
    let (nic, mr) = (Arc::clone(nic), Arc::clone(mr));
    thread::spawn(move || look(&nic, at, &mr))
}

/// What a user who keeps the hold as the `wr_id` does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Misuse {
    None,
    /// The hold is dropped after the post (POST-1, POST-2).
    DropsTheHold,
    /// The number is turned back before the completion (WRID-3).
    DoesNotPoll,
    /// It is turned back twice (WRID-2).
    TurnsBackTwice,
}

/// A receive that is posted by hand, to a queue pair or to a shared queue.
fn receive_by_hand(name: &str, shared: bool, misuse: Misuse, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault);
        let [mr] = nic.regions();
        let queue = Queue(Arc::clone(&nic));
        let hold = mr.begin_write().unwrap();
        let sge = [hold.sge()];
        let wr_id = hold.into_wr_id();
        let wr = RecvWr { wr_id, sge: &sge };
        // SAFETY: POST-2: the hold is kept as the number; POST-3: there is no endpoint.
        let posted = unsafe {
            match shared {
                false => QueuePair::post_recv(&queue, &wr),
                true => SharedRecvQueue::post_recv(&queue, &wr),
            }
        };
        let device = carry_out(&nic, 1);
        let onlooker = onlooker(&nic, 0, &mr);
        let back = match (misuse, posted) {
            (Misuse::DropsTheHold | Misuse::DoesNotPoll, _) | (_, Err(_)) => wr_id,
            _ => poll(&nic).wr_id,
        };
        // SAFETY: WRID-1 to WRID-3: unless the model is about one of them.
        drop(unsafe { Hold::from_wr_id(back) });
        look(&nic, 0, &mr);
        device.join().unwrap();
        onlooker.join().unwrap();
    });
}

/// Two sends from one region, posted by hand; when the first is over its number is turned back, and
/// who wants to write waits for the second.
fn sends_by_hand(name: &str, misuse: Misuse, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault);
        let [mr] = nic.regions();
        let mut mr = Arc::into_inner(mr).expect("not shared yet");
        let queue = Queue(Arc::clone(&nic));
        for _ in 0..2 {
            let hold = mr.begin_read().unwrap();
            let sge = [hold.sge()];
            let wr = SendWr {
                wr_id: hold.into_wr_id(),
                sge: &sge,
                op: READS,
                flags: SendFlags::SIGNALED,
            };
            // SAFETY: POST-1: the hold is kept as the number; POST-3: there is no endpoint.
            unsafe { queue.post_send(&wr) }.unwrap();
            if misuse == Misuse::DropsTheHold {
                // SAFETY: WRID-1, WRID-2: it is; and POST-1 is broken.
                drop(unsafe { Hold::from_wr_id(wr.wr_id) });
            }
        }
        let device = carry_out(&nic, 2);
        let write = |mr: &mut LocalMr| {
            if let Some(guard) = mr.try_as_mut_slice() {
                let guard = Kept::new(guard);
                nic.bytes(0).write(7);
                drop(guard);
            }
        };
        if misuse == Misuse::DropsTheHold {
            write(&mut mr);
        } else {
            for _ in 0..2 {
                let wr_id = poll(&nic).wr_id;
                // SAFETY: WRID-1 to WRID-3: it was polled.
                drop(unsafe { Hold::from_wr_id(wr_id) });
                if misuse == Misuse::TurnsBackTwice {
                    // SAFETY: none: WRID-2 is broken. The region lives.
                    drop(unsafe { Hold::from_wr_id(wr_id) });
                    write(&mut mr);
                    break;
                }
                write(&mut mr);
            }
        }
        device.join().unwrap();
    });
}

/// Shows: POST-2, WRID-1, WRID-2, WRID-3, QP-1, QP-2, CQ-1, CQ-2, HOLD-2.
#[test]
fn a_receive_by_hand_is_handed_on_by_its_completion() {
    let name = "a_receive_by_hand_is_handed_on_by_its_completion";
    receive_by_hand(name, false, Misuse::None, None);
}

/// Shows: POST-2, SRQ-1, SRQ-2.
#[test]
fn a_shared_receive_by_hand_is_handed_on_by_its_completion() {
    let name = "a_shared_receive_by_hand_is_handed_on_by_its_completion";
    receive_by_hand(name, true, Misuse::None, None);
}

/// Shows: POST-1, WRID-1, WRID-2, WRID-3, QP-1, QP-3.
#[test]
fn sends_by_hand_are_over_one_by_one() {
    sends_by_hand("sends_by_hand_are_over_one_by_one", Misuse::None, None);
}

/// Breaks: POST-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn post_1_a_send_without_its_hold() {
    sends_by_hand("post_1", Misuse::DropsTheHold, None);
}

/// Breaks: POST-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn post_2_a_receive_without_its_hold() {
    receive_by_hand("post_2", false, Misuse::DropsTheHold, None);
}

/// Breaks: WRID-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn wrid_2_a_number_that_is_turned_back_twice() {
    sends_by_hand("wrid_2", Misuse::TurnsBackTwice, None);
}

/// Breaks: WRID-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn wrid_3_a_number_that_is_turned_back_early() {
    receive_by_hand("wrid_3", false, Misuse::DoesNotPoll, None);
}

/// Breaks: QP-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn qp_1_a_nic_that_goes_on_after_the_completion() {
    let fault = Some(Fault::TouchesAfterCompletion);
    receive_by_hand("qp_1", false, Misuse::None, fault);
}

/// Breaks: QP-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn qp_2_a_nic_that_carries_out_what_it_refused() {
    let fault = Some(Fault::CarriesOutRefused);
    receive_by_hand("qp_2", false, Misuse::None, fault);
}

/// Breaks: QP-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn qp_3_a_send_that_completes_twice() {
    sends_by_hand("qp_3", Misuse::None, Some(Fault::CompletesTwice));
}

/// Whoever polls relies on each completion once, as a hold that is the `wr_id` does.
/// Breaks: FAULT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn fault_1_a_nic_that_repeats_on_request() {
    sends_by_hand("fault_1", Misuse::None, Some(Fault::CompletesTwice));
}

/// Breaks: CQ-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn cq_1_a_completion_that_comes_before_the_bytes() {
    let fault = Some(Fault::CompletesBefore);
    receive_by_hand("cq_1", false, Misuse::None, fault);
}

/// Breaks: CQ-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn cq_2_a_poll_that_is_no_barrier() {
    let fault = Some(Fault::PollsWithoutBarrier);
    receive_by_hand("cq_2", false, Misuse::None, fault);
}

/// Breaks: SRQ-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn srq_1_a_nic_that_goes_on_after_the_completion() {
    let fault = Some(Fault::TouchesAfterCompletion);
    receive_by_hand("srq_1", true, Misuse::None, fault);
}

/// A region that receives twice, by a shared queue and by hand.
fn shared_receives_by_hand(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault);
        let [mr] = nic.regions();
        let queue = Queue(Arc::clone(&nic));
        let post = || {
            let hold = mr.begin_write().unwrap();
            let sge = [hold.sge()];
            let wr_id = hold.into_wr_id();
            // SAFETY: POST-2: the hold is kept as the number; POST-3: there is no `SharedRecv`.
            unsafe { SharedRecvQueue::post_recv(&queue, &RecvWr { wr_id, sge: &sge }) }.unwrap();
        };
        // SAFETY: WRID-1 to WRID-3: it was polled, once if the NIC tells once.
        let end = || drop(unsafe { Hold::from_wr_id(poll(&nic).wr_id) });
        post();
        nic.carry_out(1);
        end();
        post();
        let device = carry_out(&nic, 1);
        let onlooker = onlooker(&nic, 0, &mr);
        end();
        look(&nic, 0, &mr);
        device.join().unwrap();
        onlooker.join().unwrap();
    });
}

/// Shows: SRQ-2, FAULT-1.
#[test]
fn shared_receives_by_hand_are_over_one_by_one() {
    shared_receives_by_hand("shared_receives_by_hand_are_over_one_by_one", None);
}

/// Breaks: SRQ-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn srq_2_a_receive_that_completes_twice() {
    shared_receives_by_hand("srq_2", Some(Fault::CompletesTwice));
}

/// The slots of the crate count generations, and do without.
/// Shows: FAULT-1.
#[test]
fn a_shared_queue_of_the_crates_stands_a_completion_that_comes_twice() {
    let name = "a_shared_queue_of_the_crates_stands_a_completion_that_comes_twice";
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(Some(Fault::CompletesTwice));
        let [first, second] = nic.regions();
        let mut shared = Kept::new(SharedRecv::new(Queue(Arc::clone(&nic))));
        let poller = Poller::new(nic.cq.clone());
        shared.attach(&poller).unwrap();
        shared.recv(first.begin_write().unwrap()).unwrap();
        let device = carry_out(&nic, 2);
        insist(|| {
            // What belongs to nothing is an error, and no more.
            let _ = poller.poll();
            first.state().is_free().then_some(())
        });
        shared.recv(second.begin_write().unwrap()).unwrap();
        for _ in 0..2 {
            let _ = poller.poll();
            look(&nic, 1, &second);
        }
        device.join().unwrap();
    });
}

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
        let device = carry_out(&nic, 1);
        let onlooker = onlooker(&nic, 0, &mr);
        match early {
            Early::None => {
                let wc = poll(&nic);
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
        look(&nic, 0, &mr);
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
        let device = carry_out(&nic, 1);
        let onlooker = onlooker(&nic, 0, &mr);
        drop(endpoint);
        look(&nic, 0, &mr);
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
        let device = carry_out(&nic, 1);
        let onlooker = onlooker(&nic, 0, &mr);
        insist(|| endpoint.poll(|_| ()).err());
        assert!(!mr.state().is_free());
        drop(endpoint);
        look(&nic, 0, &mr);
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
        let device = carry_out(&nic, 1);
        let onlooker = onlooker(&nic, 0, &mr);
        drop(shared);
        look(&nic, 0, &mr);
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
        let device = carry_out(&nic, 2);
        let onlooker = onlooker(&nic, 0, &first);
        insist(|| (endpoint.poll(|_| ()).unwrap() > 0).then_some(()));
        look(&nic, 0, &first);
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
        let device = carry_out(&nic, 2);
        let mut over = 0;
        insist(|| {
            // A completion that is not the endpoint's is an error, and no more.
            let _ = endpoint.poll(|_| over += 1);
            (over > 0).then_some(())
        });
        look(&nic, 2, &mr);
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
