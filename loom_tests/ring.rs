//! Models of the rings: one thread posts, another completes. The wire between them has the edge of a
//! NIC (AX-1, AX-2) or none; without one the ring's own edges have to hand the slots on, and all that
//! the completer may lack is the news that something was posted: then it asks again.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;

use crate::common::{Bytes, Wire, exhaust, explore, insist, regions};
use loom::sync::mpsc;
use loom::thread;
use rdma_mr::op::{Begin, Completer, Hold, OpId, Over, Poster, recv_ring, send_ring};
use rdma_mr::work::{SendFlags, WcStatus};
use rdma_mr::{LocalMr, LocalMrReadAccess};

const SIGNALED: SendFlags = SendFlags::SIGNALED;

/// Posts as soon as there is room; `posted` plays the provider.
fn post(poster: &mut Poster, hold: Hold, posted: impl FnOnce(u64)) {
    let mut hold = Some(hold);
    let mut posted = Some(posted);
    insist(|| match poster.prepare(hold.take()?, SIGNALED) {
        Ok(prepared) => {
            posted.take()?(prepared.wr_id());
            prepared.commit();
            Some(())
        }
        Err(rejected) => {
            hold = Some(rejected.value);
            None
        }
    });
}

fn complete(completer: &mut Completer, wr_id: u64) -> Option<Over> {
    // SAFETY: COMPLETE-1: the model's wire says that it is over.
    unsafe { completer.complete(wr_id, WcStatus::Success) }.ok()
}

fn all_free(regions: &[LocalMr]) -> bool {
    regions.iter().all(|mr| mr.state().is_free())
}

/// A slot that is used again and again: what is released is what was posted with it, and only the
/// ring's edges hand it on.
/// Shows: RING-1, HOLD-2.
#[test]
fn slots_go_round() {
    exhaust("slots_go_round", 3, 50, || {
        let regions = Arc::new(regions::<3>());
        let (mut poster, mut completer) = send_ring(1, 1);
        let wire = Wire::new(false);
        let completing = {
            let (regions, wire) = (Arc::clone(&regions), Arc::clone(&wire));
            thread::spawn(move || {
                for (at, mr) in regions.iter().enumerate() {
                    let wr_id = wire.take(at);
                    let over = insist(|| complete(&mut completer, wr_id));
                    assert_eq!(over.count(), 1);
                    assert!(mr.state().is_free());
                    assert!(complete(&mut completer, wr_id).is_none());
                }
                completer
            })
        };
        for (at, mr) in regions.iter().enumerate() {
            post(&mut poster, mr.begin_write().unwrap(), |wr_id| {
                wire.put(at, wr_id);
            });
        }
        completing.join().unwrap();
        assert!(all_free(&*regions));
        assert_eq!(poster.outstanding(), 0);
    });
}

/// From the post to the completion the bytes are the NIC's, whoever asks for them.
/// Shows: RING-1, COMPLETE-1.
#[test]
fn the_bytes_are_the_nics_until_the_completion() {
    explore("the_bytes_are_the_nics_until_the_completion", 2, 50, || {
        let ([mr], bytes) = (regions(), Arc::new(Bytes::new()));
        let (mut poster, mut completer) = send_ring(1, 1);
        let (post_it, posts) = mpsc::channel();
        let (tell, completions) = mpsc::channel();
        let nic = {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || {
                for _ in 0..2 {
                    let wr_id = posts.recv().unwrap();
                    bytes.add(1);
                    tell.send(wr_id).unwrap();
                }
            })
        };
        let completing = thread::spawn(move || {
            for _ in 0..2 {
                let wr_id = completions.recv().unwrap();
                assert!(complete(&mut completer, wr_id).is_some());
            }
            completer
        });
        for count in 1..=2 {
            let hold = mr.begin_write().unwrap();
            post(&mut poster, hold, |wr_id| post_it.send(wr_id).unwrap());
            if let Some(_guard) = mr.try_as_slice() {
                assert_eq!(bytes.read(), count);
            }
        }
        nic.join().unwrap();
        completing.join().unwrap();
        let _guard = mr.try_as_slice().unwrap();
        assert_eq!(bytes.read(), 2);
    });
}

/// A work request that is taken back while another one completes: its slot is the next one's. Here the
/// completer may have seen the ring as it was before, so that the NIC's edge has to tell it of the next
/// (SAFETY.md, AX-6).
fn take_one_back(name: &str, wire_has_edge: bool) {
    exhaust(name, 3, 50, move || {
        let regions = Arc::new(regions::<3>());
        let (mut poster, mut completer) = send_ring(2, 1);
        let wire = Wire::new(wire_has_edge);
        let completing = {
            let (regions, wire) = (Arc::clone(&regions), Arc::clone(&wire));
            thread::spawn(move || {
                for (at, region) in [(0, 0), (1, 2)] {
                    let wr_id = wire.take(at);
                    let over = match wire_has_edge {
                        true => complete(&mut completer, wr_id).unwrap(),
                        false => insist(|| complete(&mut completer, wr_id)),
                    };
                    assert_eq!(over.count(), 1);
                    assert!(regions[region].state().is_free());
                }
                completer
            })
        };
        let [first, refused, second] = &*regions;
        post(&mut poster, first.begin_write().unwrap(), |wr_id| {
            wire.put(0, wr_id);
        });
        drop(poster.prepare(refused.begin_write().unwrap(), SIGNALED));
        assert!(refused.state().is_free() && poster.outstanding() <= 1);
        post(&mut poster, second.begin_write().unwrap(), |wr_id| {
            wire.put(1, wr_id);
        });
        let completer = completing.join().unwrap();
        assert!(all_free(&*regions));
        // Nor at the queue pair's end.
        drop(poster.prepare(refused.begin_write().unwrap(), SIGNALED));
        // SAFETY: COMPLETE-2: here, nothing is posted.
        assert_eq!(unsafe { completer.release_all() }, 0);
        assert!(refused.state().is_free());
    });
}

/// Shows: PREPARED-1, RING-1.
#[test]
fn a_post_that_is_taken_back_leaves_no_trace() {
    take_one_back("a_post_that_is_taken_back_leaves_no_trace", true);
}

/// The axiom is needed: without that edge the model fails.
/// Breaks: AX-6.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_post_that_is_taken_back_needs_ax_6() {
    take_one_back("a_post_that_is_taken_back_needs_ax_6", false);
}

/// The completing side looks at what is outstanding, for people, while a work request is taken back and its slot
/// is used again: whoever takes it back waits for the look.
/// Shows: HOLD-2, RING-1.
#[test]
fn a_look_does_not_meet_a_post_that_is_taken_back() {
    exhaust(
        "a_look_does_not_meet_a_post_that_is_taken_back",
        3,
        50,
        || {
            let regions = regions::<2>();
            let (mut poster, completer) = send_ring(2, 1);
            let looking = thread::spawn(move || {
                let seen = format!("{completer:?}");
                assert!(seen.contains("Completer"), "{seen}");
                completer
            });
            let [refused, posted] = regions;
            drop(poster.prepare(refused.begin_write().unwrap(), SIGNALED));
            drop(refused);
            poster
                .prepare(posted.begin_write().unwrap(), SIGNALED)
                .unwrap()
                .commit();
            let completer = looking.join().unwrap();
            assert!(format!("{completer:?}").contains("NIC write of"));
            // SAFETY: COMPLETE-2: here, nothing is posted.
            assert_eq!(unsafe { completer.release_all() }, 1);
            assert!(posted.state().is_free());
        },
    );
}

/// One completion releases those that were posted before without one.
/// Shows: RING-1.
#[test]
fn a_completion_releases_those_before_it() {
    exhaust("a_completion_releases_those_before_it", 3, 20, || {
        let regions = Arc::new(regions::<3>());
        let (mut poster, mut completer) = send_ring(2, 1);
        let wire = Wire::new(false);
        let completing = {
            let (regions, wire) = (Arc::clone(&regions), Arc::clone(&wire));
            thread::spawn(move || {
                let wr_id = wire.take(0);
                let over = insist(|| complete(&mut completer, wr_id));
                assert_eq!(over.count(), 2);
                assert!(all_free(&regions[..2]));
                let wr_id = wire.take(1);
                insist(|| complete(&mut completer, wr_id));
                completer
            })
        };
        let hold = regions[0].begin_write().unwrap();
        let unsignaled = poster.prepare(hold, SendFlags::empty()).unwrap();
        unsignaled.commit();
        for at in 0..2 {
            let hold = regions[at + 1].begin_write().unwrap();
            post(&mut poster, hold, |wr_id| wire.put(at, wr_id));
        }
        completing.join().unwrap();
        assert!(all_free(&*regions));
    });
}

/// Receives whose completions come in another order: each releases its own, and what comes twice or was
/// never posted releases nothing.
/// Shows: RING-1.
#[test]
fn receives_end_in_any_order() {
    exhaust("receives_end_in_any_order", 3, 50, || {
        let regions = Arc::new(regions::<3>());
        let (mut poster, mut completer) = recv_ring(2, 1);
        let wire = Wire::new(false);
        let completing = {
            let (regions, wire) = (Arc::clone(&regions), Arc::clone(&wire));
            thread::spawn(move || {
                for at in [1, 0, 2] {
                    let wr_id = wire.take(at);
                    insist(|| complete(&mut completer, wr_id));
                    assert!(regions[at].state().is_free());
                    assert!(complete(&mut completer, wr_id).is_none());
                    let none = OpId::from_wr_id(wr_id).after(7).wr_id();
                    assert!(complete(&mut completer, none).is_none());
                }
                completer
            })
        };
        for (at, mr) in regions.iter().enumerate() {
            post(&mut poster, mr.begin_write().unwrap(), |wr_id| {
                wire.put(at, wr_id);
            });
        }
        completing.join().unwrap();
        assert!(all_free(&*regions));
        // At a queue pair's end what was over is passed by, and what comes after it is found.
        let (mut poster, mut completer) = recv_ring(3, 1);
        let mut ids = [0; 3];
        for (mr, id) in regions.iter().zip(&mut ids) {
            post(&mut poster, mr.begin_write().unwrap(), |wr_id| *id = wr_id);
        }
        assert!(complete(&mut completer, ids[1]).is_some());
        // SAFETY: COMPLETE-2: here, nothing is posted.
        assert_eq!(unsafe { completer.release_all() }, 2);
        assert!(all_free(&*regions));
    });
}

/// Who sees that nothing is outstanding has room: an error that the queue is full would be for good.
#[test]
fn nothing_outstanding_is_room() {
    exhaust("nothing_outstanding_is_room", 3, 50, || {
        let regions = regions::<2>();
        let (mut poster, mut completer) = recv_ring(1, 1);
        let wire = Wire::new(false);
        let completing = {
            let wire = Arc::clone(&wire);
            thread::spawn(move || {
                let wr_id = wire.take(0);
                insist(|| complete(&mut completer, wr_id));
                completer
            })
        };
        post(&mut poster, regions[0].begin_write().unwrap(), |wr_id| {
            wire.put(0, wr_id);
        });
        insist(|| (poster.outstanding() == 0).then_some(()));
        let prepared = poster.prepare(regions[1].begin_write().unwrap(), SIGNALED);
        drop(prepared.expect("there is room"));
        completing.join().unwrap();
        assert!(all_free(&regions));
    });
}

/// A list whose inline work request completes while the poster commits the list: both come to release
/// it, and one does.
/// Shows: RING-1, QP-1.
#[test]
fn an_inline_one_of_a_list_is_released_once() {
    exhaust("an_inline_one_of_a_list_is_released_once", 3, 20, || {
        let regions = Arc::new(regions::<2>());
        let (mut poster, mut completer) = send_ring(2, 1);
        let wire = Wire::new(false);
        let completing = {
            let wire = Arc::clone(&wire);
            thread::spawn(move || {
                let wr_id = wire.take(0);
                let over = insist(|| complete(&mut completer, wr_id));
                assert_eq!(over.count(), 2);
                completer
            })
        };
        let mut list = poster.chain();
        let [first, second] = &*regions;
        let inline = SendFlags::INLINE;
        list.push(first.begin_read().unwrap(), inline).unwrap();
        let hold = second.begin_read().unwrap();
        let last = list.push(hold, inline | SIGNALED).unwrap();
        wire.put(0, last.wr_id());
        list.commit();
        completing.join().unwrap();
        assert!(all_free(&*regions));
    });
}
