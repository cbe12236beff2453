//! The contracts of work requests that are posted by hand, clause by clause: what the user owes, and what the
//! provider does. Each scenario passes if all keep to theirs; with one clause broken, and nothing else,
//! somebody has bytes that the NIC has not done with, and loom reports it.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;

use crate::common::device::{Fault, Nic, Queue};
use crate::common::{Kept, exhaust, insist};
use rdma_mr::op::{Begin, Hold, Poller, SharedRecv};
use rdma_mr::work::{QueuePair, RecvWr, RemoteAddr, SendFlags, SendOp, SendWr, SharedRecvQueue};
use rdma_mr::{LocalMr, LocalMrWriteAccess};

/// What a scenario explores at least if it does not fail.
const LEAST: usize = 20;

const READS: SendOp = SendOp::Write {
    remote: RemoteAddr { addr: 64, rkey: 1 },
    imm: None,
};

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
        let device = nic.device(1);
        let onlooker = nic.onlooker(0, &mr);
        let back = match (misuse, posted) {
            (Misuse::DropsTheHold | Misuse::DoesNotPoll, _) | (_, Err(_)) => wr_id,
            _ => nic.poll().wr_id,
        };
        // SAFETY: WRID-1 to WRID-3: unless the model is about one of them.
        drop(unsafe { Hold::from_wr_id(back) });
        nic.look(0, &mr);
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
        let device = nic.device(2);
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
                let wr_id = nic.poll().wr_id;
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
        let end = || drop(unsafe { Hold::from_wr_id(nic.poll().wr_id) });
        post();
        nic.carry_out(1);
        end();
        post();
        let device = nic.device(1);
        let onlooker = nic.onlooker(0, &mr);
        end();
        nic.look(0, &mr);
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
        let device = nic.device(2);
        insist(|| {
            // What belongs to nothing is an error, and no more.
            let _ = poller.poll();
            first.state().is_free().then_some(())
        });
        shared.recv(second.begin_write().unwrap()).unwrap();
        for _ in 0..2 {
            let _ = poller.poll();
            nic.look(1, &second);
        }
        device.join().unwrap();
    });
}
