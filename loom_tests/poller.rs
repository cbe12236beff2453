//! Models of a poller that several threads use: every completion is dealt with once, queue pairs come
//! and go meanwhile, and who sleeps is woken.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::common::queues::{Cq, Fate, Qp, success};
use crate::common::{exhaust, explore, insist, regions};
use loom::thread;
use rdma_mr::op::{Begin, Endpoint, Poller};

fn endpoint(poller: &Poller<Cq>, fate: Fate, number: u32) -> Endpoint<Qp> {
    Endpoint::attach(Qp::new(poller.cq(), 2, fate, number), poller).unwrap()
}

/// Two threads poll for what a third posts.
/// Shows: POLLER-1.
#[test]
fn every_completion_is_dealt_with_once() {
    exhaust("every_completion_is_dealt_with_once", 2, 50, || {
        let regions: [_; 2] = regions();
        let poller = Poller::new(Cq::new());
        let mut endpoint = endpoint(&poller, Fate::Completes, 1);
        let over = Arc::new(AtomicUsize::new(0));
        let poll = |poller: &Poller<Cq>, over: &AtomicUsize| {
            insist(|| {
                over.fetch_add(poller.poll().unwrap(), Relaxed);
                (over.load(Relaxed) >= 2).then_some(())
            });
        };
        let polling = {
            let (poller, over) = (poller.clone(), Arc::clone(&over));
            thread::spawn(move || poll(&poller, &over))
        };
        for mr in &regions {
            endpoint.recv(mr.begin_write().unwrap()).unwrap();
        }
        poll(&poller, &over);
        polling.join().unwrap();
        assert_eq!((over.load(Relaxed), poller.unknown()), (2, 0));
        assert!(regions.iter().all(|mr| mr.state().is_free()));
    });
}

/// A queue pair comes and goes while another thread polls and lets its own go: the table has one user at a time, and a
/// completion that comes too late for its queue pair is no surprise.
/// Shows: POLLER-1.
#[test]
fn queue_pairs_come_and_go_while_another_polls() {
    explore("queue_pairs_come_and_go_while_another_polls", 2, 50, || {
        let [stays, goes] = regions();
        let poller = Poller::new(Cq::new());
        let mut first = endpoint(&poller, Fate::Completes, 1);
        first.recv(stays.begin_write().unwrap()).unwrap();
        let polling = {
            let poller = poller.clone();
            thread::spawn(move || {
                let mut over = 0;
                insist(|| {
                    over += poller.poll().unwrap();
                    (over > 0).then_some(())
                });
                drop(first);
            })
        };
        let mut second = endpoint(&poller, Fate::Completes, 2);
        second.recv(goes.begin_write().unwrap()).unwrap();
        drop(second);
        assert!(goes.state().is_free());
        polling.join().unwrap();
        poller.poll().unwrap();
        assert_eq!(poller.unknown(), 0);
        assert!(stays.state().is_free());
    });
}

/// Who arms the queue and finds nothing sleeps until an event; another thread that has the turn, and
/// has looked already, takes no completion along.
#[test]
fn who_sleeps_on_the_event_is_woken() {
    explore("who_sleeps_on_the_event_is_woken", 2, 50, || {
        let [first, second] = regions();
        let poller = Poller::new(Cq::new());
        let mut endpoint = endpoint(&poller, Fate::Waits, 1);
        let [first, second] = [&first, &second].map(|mr| {
            let id = endpoint.recv(mr.begin_write().unwrap()).unwrap();
            success(id.wr_id(), 1)
        });
        let nic = {
            let cq = poller.cq().clone();
            thread::spawn(move || cq.put(first))
        };
        let other = {
            let poller = poller.clone();
            thread::spawn(move || {
                if poller.poll().unwrap() > 0 {
                    // It was the other's: the next one is for the sleeper.
                    poller.cq().put(second);
                }
            })
        };
        assert!(poller.wait(None, |_| ()).unwrap() > 0);
        nic.join().unwrap();
        other.join().unwrap();
    });
}
