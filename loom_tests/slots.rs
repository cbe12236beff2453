//! Models of the slots of a shared receive queue: one thread posts, two complete. The wires between them
//! have no edge: the slots' own edges have to hand them on.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;

use crate::common::{Wire, exhaust, insist, regions};
use loom::thread;
use rdma_mr::op::{Begin, Hold, SlotCompleter, SlotPoster, recv_slots};
use rdma_mr::work::WcStatus;

/// Posts as soon as there is a slot, and gives the `wr_id`.
fn post(poster: &mut SlotPoster, hold: Hold) -> u64 {
    let mut hold = Some(hold);
    insist(|| match poster.prepare(hold.take()?) {
        Ok(prepared) => Some(prepared.commit().wr_id()),
        Err(rejected) => {
            hold = Some(rejected.value);
            None
        }
    })
}

fn complete(completer: &SlotCompleter, wr_id: u64) -> bool {
    // SAFETY: COMPLETE-1: the model's wire says that it is over.
    unsafe { completer.complete(wr_id, WcStatus::Success) }.is_ok()
}

/// Two complete at a time, and the poster uses what they give back: each completion releases its own.
/// Shows: SLOT-1, HOLD-2.
#[test]
fn slots_go_round_between_three() {
    exhaust("slots_go_round_between_three", 2, 100, || {
        let regions = Arc::new(regions::<4>());
        let (mut poster, completer) = recv_slots(2, 1);
        let wire = Wire::new(false);
        let completing = [0, 1].map(|at| {
            let (regions, wire) = (Arc::clone(&regions), Arc::clone(&wire));
            let completer = completer.clone();
            thread::spawn(move || {
                let Some(wr_id) = wire.look(at) else {
                    return false;
                };
                assert!(complete(&completer, wr_id));
                assert!(regions[at].state().is_free());
                true
            })
        });
        let mut posted: [_; 4] = std::array::from_fn(|at| {
            let hold = regions[at].begin_write().unwrap();
            let wr_id = poster.prepare(hold).ok()?.commit().wr_id();
            wire.put(at, wr_id);
            Some(wr_id)
        });
        for (at, thread) in completing.into_iter().enumerate() {
            if thread.join().unwrap() {
                posted[at] = None;
            }
        }
        for (mr, wr_id) in regions.iter().zip(posted) {
            assert_eq!(mr.state().is_free(), wr_id.is_none());
            assert!(wr_id.is_none_or(|wr_id| complete(&completer, wr_id)));
            assert!(mr.state().is_free());
        }
        for _ in 0..2 {
            poster.prepare(()).expect("both slots came back").commit();
        }
    });
}

/// A completion that is told twice, on two threads, while its slot is used again: it releases once, and
/// not what the slot has by then.
/// Shows: SLOT-1.
#[test]
fn a_wr_id_is_good_for_one_completion() {
    exhaust("a_wr_id_is_good_for_one_completion", 3, 50, || {
        let [first, second] = regions();
        let (mut poster, completer) = recv_slots(1, 1);
        let wr_id = post(&mut poster, first.begin_write().unwrap());
        let completing = [(); 2].map(|()| {
            let completer = completer.clone();
            thread::spawn(move || complete(&completer, wr_id))
        });
        let next = post(&mut poster, second.begin_write().unwrap());
        let told = completing.map(|thread| thread.join().unwrap());
        assert!(told[0] != told[1]);
        assert!(first.state().is_free() && !second.state().is_free());
        assert!(complete(&completer, next));
        assert!(second.state().is_free());
    });
}

/// A receive that is taken back while others complete.
/// Shows: PREPARED-1, SLOT-1.
#[test]
fn a_receive_that_is_taken_back_leaves_no_trace() {
    exhaust(
        "a_receive_that_is_taken_back_leaves_no_trace",
        3,
        20,
        || {
            let [first, refused, last, again] = regions();
            let (mut poster, completer) = recv_slots(2, 1);
            let wr_id = post(&mut poster, first.begin_write().unwrap());
            let completing = {
                let completer = completer.clone();
                thread::spawn(move || assert!(complete(&completer, wr_id)))
            };
            let prepared = poster.prepare(refused.begin_write().unwrap()).unwrap();
            let none = prepared.wr_id();
            drop(prepared);
            let posted = [&last, &again].map(|mr| post(&mut poster, mr.begin_write().unwrap()));
            assert!(!complete(&completer, none));
            assert!(posted.iter().all(|wr_id| complete(&completer, *wr_id)));
            completing.join().unwrap();
            let mut regions = [first, refused, last, again].into_iter();
            assert!(regions.all(|mr| mr.state().is_free()));
        },
    );
}
