//! The watch over operations that take too long: it reports the right ones, once each, and nothing else.
#![cfg(all(feature = "soft", not(any(loom, shuttle))))]

mod util;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rdma_mr::backend::soft::{CompletionQueue, Fault, Nic, QueuePair, When};
use rdma_mr::lease::lent;
use rdma_mr::op::{Begin, Endpoint, Limits, Overdue, Poller, PollerThread};
use rdma_mr::work::QpCaps;
use rdma_mr::{Access, Lend, LocalMr, LocalMrReadAccess, MrAccess};
use util::*;

/// As short as a test likes it: what is not to be reported has to be over by then, or has no limit.
const LIMIT: Duration = Duration::from_millis(20);

/// Longer than the limit; nothing depends on how much.
fn later() {
    thread::sleep(2 * LIMIT);
}

fn look(watch: &mut rdma_mr::op::Watch<CompletionQueue>) -> Vec<Overdue> {
    let mut all = Vec::new();
    watch.look(|overdue| all.push(overdue));
    all
}

#[test]
fn an_operation_whose_completion_is_lost_is_reported_once() {
    let mut pair = Pair::stepped();
    let (target, from) = (pair.readable(&[7; 100]), pair.alloc(100));
    let mut watch = pair.a.send_poller().watch(Limits::sends(LIMIT));
    pair.start_read(&target, &from);
    pair.finish(1);
    assert!(look(&mut watch).is_empty(), "nothing is outstanding");

    pair.nic.inject(Fault::CompletionLost, When::Nth(1));
    let hold = from.begin_write().unwrap();
    let lost = pair.a.read(hold, remote(&target)).unwrap();
    assert!(pair.settle().is_empty());
    assert!(look(&mut watch).is_empty(), "seen for the first time");
    later();
    let all = look(&mut watch);
    let [overdue] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!((overdue.id, overdue.outstanding), (lost, 1));
    assert!(overdue.age >= LIMIT);
    let held = overdue.held[0];
    assert_eq!((held.addr, held.length), (from.addr(), from.length()));
    // By the gate a region is known.
    assert!(format!("{from:?}").contains(&format!("{:#x}", held.gate)));
    assert!(
        overdue
            .to_string()
            .contains(&format!("{:#x}", lost.wr_id()))
    );
    later();
    assert!(look(&mut watch).is_empty(), "told before");

    // The next completion of the queue ends both (R11); then another one is overdue.
    pair.start_read(&target, &pair.alloc(64));
    pair.finish(2);
    assert!(from.as_slice().starts_with(&[7; 100]));
    assert!(look(&mut watch).is_empty());
    pair.nic.inject(Fault::CompletionLost, When::Nth(1));
    let hold = from.begin_write().unwrap();
    let next = pair.a.read(hold, remote(&target)).unwrap();
    pair.settle();
    look(&mut watch);
    later();
    assert_eq!(look(&mut watch)[0].id, next);
}

#[test]
fn what_goes_on_is_not_reported_however_long_it_is_watched() {
    let mut pair = Pair::stepped();
    let (target, into) = (pair.readable(&[1; 64]), pair.alloc(64));
    let mut watch = pair
        .a
        .send_poller()
        .watch(Limits::sends(2 * LIMIT).and_recvs(LIMIT));
    // Always one outstanding, each for less than the limit from one look to the next; never the same one.
    pair.start_read(&target, &pair.alloc(64));
    for _ in 0..8 {
        thread::sleep(LIMIT / 2);
        pair.finish(1);
        pair.start_read(&target, &into);
        assert!(look(&mut watch).is_empty());
    }
    pair.finish(1);
}

#[test]
fn receives_have_a_limit_of_their_own_and_each_queue_its_oldest() {
    let mut pair = Pair::stepped();
    let regions: Vec<_> = (0..3).map(|_| pair.alloc(64)).collect();
    let ids: Vec<_> = regions
        .iter()
        .map(|mr| pair.b.recv(mr.begin_write().unwrap()).unwrap())
        .collect();
    let poller = pair.b.recv_poller();
    let mut sends = poller.watch(Limits::sends(LIMIT));
    let mut both = poller.watch(Limits::sends(LIMIT).and_recvs(LIMIT));
    for watch in [&mut sends, &mut both] {
        assert!(look(watch).is_empty());
    }
    later();
    assert!(look(&mut sends).is_empty(), "receives have no limit there");
    let all = look(&mut both);
    assert_eq!((all.len(), all[0].id, all[0].outstanding), (1, ids[0], 3));
    assert!(all[0].id.is_recv());

    // Once it is over, the next one is the oldest: from now on, not from when it was posted.
    pair.a
        .send(pair.alloc(8).begin_read().unwrap(), None)
        .unwrap();
    assert_eq!(pair.settle().len(), 2);
    assert!(look(&mut both).is_empty());
    later();
    let all = look(&mut both);
    assert_eq!((all.len(), all[0].id, all[0].outstanding), (1, ids[1], 2));
    later();
    assert!(look(&mut both).is_empty());
}

/// An endpoint whose peer never posts a receive, and a thread that polls for it under watch.
fn unanswered(
    limits: Limits,
) -> (
    Nic,
    Endpoint<QueuePair>,
    LocalMr,
    PollerThread,
    Receiver<Overdue>,
) {
    let nic = Nic::new();
    let pd = nic.alloc_pd();
    let cq = nic.create_cq_with_channel(64).unwrap();
    let poller = Poller::new(cq.clone());
    let qp = |cq: &CompletionQueue| pd.create_qp(cq, cq, QpCaps::default()).unwrap();
    let (a, b) = (qp(&cq), qp(&cq));
    QueuePair::connect_pair(&a, &b).unwrap();
    let mr = LocalMr::alloc(&pd, 64).unwrap();
    let (told, reports) = mpsc::channel();
    let thread = poller.spawn_watched("watched", limits, move |overdue| {
        told.send(overdue).unwrap();
    });
    let endpoint = Endpoint::attach(a, &poller).unwrap();
    (nic, endpoint, mr, thread.unwrap(), reports)
}

#[test]
fn a_thread_that_sleeps_reports_as_well() {
    let (_nic, mut endpoint, mr, thread, reports) =
        unanswered(Limits::sends(LIMIT).and_recvs(LIMIT));
    let id = endpoint.recv(mr.begin_write().unwrap()).unwrap();
    // No completion ever comes.
    let overdue = reports.recv_timeout(LONG).unwrap();
    assert_eq!((overdue.id, overdue.held[0].addr), (id, mr.addr()));
    assert!(reports.recv_timeout(4 * LIMIT).is_err(), "once");
    thread.stop().unwrap();
    drop(endpoint);
    assert!(mr.state().is_free());
}

#[test]
fn a_thread_whose_operations_end_reports_nothing() {
    let limits = Limits::sends(Duration::from_secs(60));
    let (_nic, mut endpoint, mr, thread, reports) = unanswered(limits);
    let _id = endpoint.recv(mr.begin_write().unwrap()).unwrap();
    assert!(reports.recv_timeout(4 * LIMIT).is_err());
    thread.stop().unwrap();
}

#[test]
fn a_lease_whose_time_has_passed_is_known_by_its_region() {
    let pair = Pair::stepped();
    let mr = pair.alloc(64);
    let lease = mr
        .lease(8..16, Access::REMOTE_READ, Duration::ZERO)
        .unwrap();
    let mine =
        |all: Vec<rdma_mr::lease::Lent>| all.into_iter().find(|one| one.token == lease.token());
    let found = mine(lent()).unwrap();
    assert!(found.overdue().is_some());
    assert!(format!("{mr:?}").contains(&format!("{:#x}", found.gate)));
    lease.revoke().unwrap();
    assert!(mine(lent()).is_none());
    let long = Duration::from_secs(3600);
    let lease = mr.lease(.., Access::REMOTE_READ, long).unwrap();
    let found = lent().into_iter().find(|one| one.token == lease.token());
    assert_eq!(found.unwrap().overdue(), None);
}
