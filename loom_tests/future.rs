//! Models of operations as futures: their tickets, the turn to post, the wait for room, a poller that
//! breaks down. The futures, rings and pollers are the crate's own; the queues are the models'.
#![cfg(not(crossbeam_loom))]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use crate::common::queues::{Cq, Fate, Qp};
use crate::common::{exhaust, explore, insist, regions};
use loom::future::block_on;
use loom::thread;
use rdma_mr::op::{AsyncQueuePair, Begin, Endpoint, Poller};
use rdma_mr::{Error, LocalMr};

/// A queue pair as futures, and its poller.
fn async_queue_pair(capacity: u32, fate: Fate) -> (Arc<AsyncQueuePair<Qp>>, Poller<Cq>) {
    let cq = Cq::new();
    let poller = Poller::new(cq.clone());
    let endpoint = Endpoint::attach(Qp::new(&cq, capacity, fate, 9), &poller).unwrap();
    (Arc::new(AsyncQueuePair::new(endpoint)), poller)
}

/// Polls on another thread until `count` operations are over.
fn poll_on_a_thread(poller: &Poller<Cq>, count: usize) -> thread::JoinHandle<()> {
    let poller = poller.clone();
    thread::spawn(move || {
        let mut over = 0;
        insist(|| {
            over += poller.poll().unwrap();
            (over == count).then_some(())
        });
    })
}

/// A future whose operation completes while it is polled gets all of the completion, once.
/// Shows: TICKET-1.
#[test]
fn a_future_is_told_all_and_woken() {
    exhaust("a_future_is_told_all_and_woken", 3, 50, || {
        let [mr] = regions();
        let (qp, poller) = async_queue_pair(1, Fate::Completes);
        let polling = poll_on_a_thread(&poller, 1);
        let done = block_on(qp.recv(&mr)).unwrap();
        assert_eq!((done.byte_len, done.imm), (5, Some(7)));
        assert!(mr.state().is_free());
        polling.join().unwrap();
    });
}

/// Polls a future once, so that its operation is posted and its waker registered.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    future.poll(&mut context).is_ready()
}

/// A future that is dropped while its completion is delivered: nobody touches it afterwards (its
/// ticket asks loom as it is dropped), and its region is given back by the completion all the same.
/// Shows: TICKET-1.
#[test]
fn a_dropped_future_is_not_touched() {
    exhaust("a_dropped_future_is_not_touched", 3, 50, || {
        let [mr] = regions();
        let (qp, poller) = async_queue_pair(1, Fate::Completes);
        let polling = poll_on_a_thread(&poller, 1);
        {
            let mut future = pin!(qp.recv(&mr));
            let _ = poll_once(future.as_mut());
        }
        polling.join().unwrap();
        assert!(mr.state().is_free());
    });
}

/// The waker of the latest poll is the one that is called.
#[test]
fn the_latest_waker_counts() {
    exhaust("the_latest_waker_counts", 3, 50, || {
        let [mr] = regions();
        let (qp, poller) = async_queue_pair(1, Fate::Completes);
        let polling = poll_on_a_thread(&poller, 1);
        let mut future = pin!(qp.recv(&mr));
        if !poll_once(future.as_mut()) {
            block_on(future).unwrap();
        }
        polling.join().unwrap();
    });
}

/// A future that posts while polling fails is told by the sweep, or sees the flag: it never sleeps for
/// ever.
#[test]
fn a_future_learns_that_polling_failed() {
    exhaust("a_future_learns_that_polling_failed", 3, 50, || {
        let [mr] = regions();
        let (qp, poller) = async_queue_pair(1, Fate::Waits);
        poller.cq().break_down();
        let polling = {
            let poller = poller.clone();
            thread::spawn(move || poller.poll().unwrap_err())
        };
        let error = block_on(qp.recv(&mr)).unwrap_err();
        assert!(matches!(error, Error::CompletionsLost));
        polling.join().unwrap();
        assert!(!mr.state().is_free()); // R11: the operation may go on
    });
}

/// A post that is refused while polling fails: the sweep may have found the operation in its ring, and
/// then the future, which is over, is not touched.
/// Shows: TICKET-1.
#[test]
fn a_refused_future_is_not_touched() {
    exhaust("a_refused_future_is_not_touched", 3, 50, || {
        let [mr] = regions();
        let (qp, poller) = async_queue_pair(1, Fate::Refused);
        poller.cq().break_down();
        let polling = {
            let poller = poller.clone();
            thread::spawn(move || poller.poll().unwrap_err())
        };
        block_on(qp.recv(&mr)).unwrap_err();
        polling.join().unwrap();
        assert!(mr.state().is_free());
    });
}

/// Room for one: who waits for it is told, whichever way the poll and the wait interleave.
#[test]
fn who_waits_for_room_is_told() {
    explore("who_waits_for_room_is_told", 2, 50, || {
        let [first, second] = regions();
        let (qp, poller) = async_queue_pair(1, Fate::Completes);
        let posted = first.begin_write().unwrap();
        let polling = poll_on_a_thread(&poller, 2);
        {
            let mut future = pin!(qp.recv_held(posted));
            let _ = poll_once(future.as_mut());
        }
        block_on(qp.recv(&second)).unwrap();
        polling.join().unwrap();
        assert!(first.state().is_free() && second.state().is_free());
    });
}

/// Two threads post at a time, and both poll for their own sake: the endpoint and the table of the
/// poller have one user at a time (ASYNC-1, POLLER-1).
/// Shows: ASYNC-1, POLLER-1.
#[test]
fn two_post_and_poll_at_a_time() {
    explore("two_post_and_poll_at_a_time", 2, 50, || {
        let [here, there] = regions();
        let (qp, poller) = async_queue_pair(2, Fate::Completes);
        let run = move |qp: &AsyncQueuePair<Qp>, poller: &Poller<Cq>, mr: LocalMr| {
            let mut future = pin!(qp.recv(&mr));
            insist(|| {
                poller.poll().unwrap();
                poll_once(future.as_mut()).then_some(())
            });
        };
        let other = {
            let (qp, poller) = (Arc::clone(&qp), poller.clone());
            thread::spawn(move || run(&qp, &poller, there))
        };
        run(&qp, &poller, here);
        other.join().unwrap();
        assert_eq!(qp.outstanding(), (0, 0));
    });
}
