//! Receives that several queue pairs share (R10, R11, R14, R16).

use std::thread::sleep;
use std::time::Duration;

use rdma_mr::op::{Endpoint, Poller, SharedRecv, recv_slots};
use rdma_mr::work::{QpCaps, QueuePair, RecvWr, SharedRecvQueue};
use rdma_mr::{Error, Rejected};

use super::*;
use crate::fabric::{completions, finish};

/// Two queue pairs that take from one shared queue, with a completion queue each, and their peers.
struct Shared<F: Fabric> {
    peers: [Endpoint<F::Qp>; 2],
    ends: [Endpoint<F::Qp>; 2],
    pollers: [Poller<F::Cq>; 2],
    recvs: SharedRecv<F::Srq, F::Cq>,
}

impl<F: Fabric> Shared<F> {
    fn new(fabric: &F) -> Self {
        let srq = fabric.srq(16, 1);
        let pollers = [(); 2].map(|()| Poller::new(fabric.cq(64)));
        let make = |poller: &Poller<F::Cq>| {
            let (caps, cq) = (QpCaps::default(), fabric.cq(64));
            let peer = fabric.qp(&cq, &cq, caps);
            let end = fabric.qp_on(poller.cq(), &srq, caps);
            fabric.connect(&peer, &end);
            let end = Endpoint::attach(end, poller);
            (Endpoint::new(peer), end.unwrap())
        };
        let [(peer, end), (other_peer, other)] = [make(&pollers[0]), make(&pollers[1])];
        let mut recvs = SharedRecv::new(srq);
        for poller in &pollers {
            recvs.attach(poller).unwrap();
        }
        Shared {
            peers: [peer, other_peer],
            ends: [end, other],
            pollers,
            recvs,
        }
    }

    fn recv(&mut self, mr: &LocalMr) -> OpId {
        self.recvs.recv(mr.begin_write().unwrap()).unwrap()
    }

    /// A message to that one, which has arrived.
    fn send(&mut self, to: usize, from: &LocalMr) {
        let peer = &mut self.peers[to];
        peer.send(from.begin_read().unwrap(), None).unwrap();
        let sent = finish(peer, 1)[0];
        assert_eq!(sent.status, WcStatus::Success);
    }
}

pub fn r11_shared_receives_end_in_any_order<F: Fabric>(fabric: &F) {
    let mut shared = Shared::new(fabric);
    let (from, to) = (fabric.region(&[5; 8]), words(fabric, 4));
    // Over and over, so that slots are used again.
    for _ in 0..20 {
        let ids: Vec<_> = to.iter().map(|mr| shared.recv(mr)).collect();
        assert_eq!(shared.recvs.outstanding(), 4);
        for at in [0, 1, 1] {
            shared.send(at, &from);
        }
        assert_written(&to); // all have arrived; nobody has polled
        assert_succeeded(&finish(&mut shared.ends[1], 2), [ids[1], ids[2]]);
        assert_free(&to[1..3]);
        assert_written([&to[0], &to[3]]);
        assert_succeeded(&finish(&mut shared.ends[0], 1), [ids[0]]);
        assert_free(&to[..3]);
        assert_written(&to[3..]);
        shared.send(0, &from);
        assert_succeeded(&finish(&mut shared.ends[0], 1), [ids[3]]);
        assert_free(&to);
        assert_eq!(shared.recvs.outstanding(), 0);
    }
    assert_eq!(*to[3].as_slice(), [5; 8]);
    assert!(shared.pollers.iter().all(|poller| poller.unknown() == 0));
}

pub fn r10_a_full_shared_queue_gives_the_hold_back<F: Fabric>(fabric: &F) {
    let mut shared = Shared::new(fabric);
    let capacity = shared.recvs.srq().capacity() as usize;
    let to = words(fabric, capacity + 1);
    for mr in &to[..capacity] {
        shared.recv(mr);
    }
    let hold = to[capacity].begin_write().unwrap();
    let Rejected { value, error } = shared.recvs.recv(hold).unwrap_err();
    assert!(matches!(error, Error::QueueFull { .. }), "{error:?}");
    assert_written(&to);
    drop(value);
    assert_free(&to[capacity..]);
    let hold = to[capacity].begin_read().unwrap();
    let Rejected { error, .. } = shared.recvs.recv(hold).unwrap_err();
    assert!(matches!(error, Error::InvalidWorkRequest { .. }));
    // The end: first those that take from it, which releases none of its receives.
    let Shared { recvs, ends, .. } = shared;
    drop(ends);
    assert_written(&to[..capacity]);
    recvs.close().map_err(|(_, error)| error).unwrap();
    assert_free(&to);
}

pub fn r11_a_wr_id_is_good_for_one_completion<F: Fabric>(fabric: &F) {
    let (peer_cq, cq) = (fabric.cq(16), fabric.cq(16));
    let srq = fabric.srq(16, 1);
    let caps = QpCaps::default();
    let peer = fabric.qp(&peer_cq, &peer_cq, caps);
    let end = fabric.qp_on(&cq, &srq, caps);
    fabric.connect(&peer, &end);
    let mut peer = Endpoint::new(peer);
    // One slot, so that it is used each time.
    let (mut poster, completer) = recv_slots(1, 1);
    let (from, to) = (fabric.alloc(8), fabric.alloc(8));
    let mut stale = Vec::new();
    for _ in 0..5 {
        let prepared = poster.prepare(to.begin_write().unwrap()).unwrap();
        let (wr_id, sge) = (prepared.wr_id(), prepared.sges());
        // SAFETY: POST-2: the slot has the hold; POST-3: there is no endpoint.
        unsafe { srq.post_recv(&RecvWr { wr_id, sge }) }.unwrap();
        prepared.commit();
        let refused = |wr_id| {
            // SAFETY: COMPLETE-1 does not hold, and that is what this is about: the slots are to find
            // out. Whatever they released too early, nobody would use.
            let over = unsafe { completer.complete(wr_id, WcStatus::Success) };
            assert!(matches!(over, Err(Error::UnknownCompletion { .. })));
        };
        stale.iter().copied().for_each(refused);
        refused(wr_id ^ 1);
        assert_written([&to]);
        peer.send(from.begin_read().unwrap(), None).unwrap();
        let wc = completions(&cq, 1)[0];
        assert_eq!((wc.wr_id, wc.qp_num), (wr_id, end.qp_num()));
        // SAFETY: COMPLETE-1: polled just now, posted above.
        let over = unsafe { completer.complete(wc.wr_id, wc.status) }.unwrap();
        assert_eq!(over.count(), 1);
        assert_free([&to]);
        refused(wr_id);
        stale.push(wr_id);
        finish(&mut peer, 1);
    }
    stale.sort_unstable();
    stale.dedup();
    assert_eq!(stale.len(), 5);
}

pub fn r16_err_of_one_leaves_the_receives_to_the_other<F: Fabric>(fabric: &F) {
    let mut shared = Shared::new(fabric);
    let (from, to) = (words(fabric, 2), words(fabric, 3));
    let ids: Vec<_> = to.iter().map(|mr| shared.recv(mr)).collect();
    let end = &mut shared.ends[0];
    end.send(from[0].begin_read().unwrap(), None).unwrap();
    end.qp().modify_to_error().unwrap();
    // Its own is flushed, and no receive of the others'.
    assert_eq!(finish(end, 1)[0].status, WcStatus::WrFlushErr);
    assert_free(&from);
    sleep(Duration::from_millis(20));
    assert_eq!(end.poll(|_| ()).unwrap(), 0);
    assert_written(&to);
    for (mr, id) in to.iter().zip(ids).take(2) {
        shared.send(1, &from[1]);
        assert_succeeded(&finish(&mut shared.ends[1], 1), [id]);
        assert_free([mr]);
    }
    // Nor does its end release one.
    let Shared { recvs, ends, .. } = shared;
    let [first, second] = ends;
    drop(first);
    assert_written(&to[2..]);
    drop(second);
    assert_written(&to[2..]);
    drop(recvs);
    assert_free(&to);
}

/// ERR in the middle of a message. rxe loses the receive; by the verbs it may complete, too.
pub fn r16_a_shared_receive_that_was_begun<F: Fabric>(fabric: &F) {
    const LENGTH: usize = 16 << 20;
    let mut shared = Shared::new(fabric);
    let (big, begun) = (fabric.alloc(LENGTH), fabric.alloc(LENGTH));
    let (from, next) = (fabric.alloc(8), fabric.alloc(8));
    let (begun_id, next_id) = (shared.recv(&begun), shared.recv(&next));
    let [peer, _] = &mut shared.peers;
    peer.send(big.begin_read().unwrap(), None).unwrap();
    sleep(Duration::from_millis(20));
    shared.ends[0].qp().modify_to_error().unwrap();
    assert_written([&begun, &next]);
    let sent = finish(peer, 1)[0];
    assert_free([&big]);
    let mut told = Vec::new();
    let [end, _] = &mut shared.ends;
    end.poll(|done| told.push(done)).unwrap();
    // Held exactly as long as nothing has been told of it.
    assert!(told.iter().all(|done| done.id == begun_id) && told.len() <= 1);
    assert_eq!(begun.state().is_free(), !told.is_empty());
    println!("sent: {}, received: {:?}", sent.status, statuses(&told));
    // If it is told of as received, it was sent.
    let received = told.iter().any(|done| done.status.is_success());
    assert!(!received || sent.status.is_success());
    assert_written([&next]);
    // The other queue pair gets the next one, or the begun one once more; never one that was told of.
    shared.send(1, &from);
    let got = finish(&mut shared.ends[1], 1)[0];
    assert_eq!(got.status, WcStatus::Success);
    match told.is_empty() && got.id == begun_id {
        true => assert_written([&next]),
        false => assert_eq!(got.id, next_id),
    }
    let outstanding = [&begun, &next].map(|mr| !mr.state().is_free());
    let count = outstanding.iter().filter(|held| **held).count();
    assert_eq!(shared.recvs.outstanding(), count);
    let Shared { recvs, ends, .. } = shared;
    drop(ends);
    let held = [&begun, &next].map(|mr| !mr.state().is_free());
    assert_eq!(
        held, outstanding,
        "the end of the queue pairs releases none"
    );
    recvs.close().map_err(|(_, error)| error).unwrap();
    assert_free([&begun, &next]);
}

pub fn r14_a_shared_queue_in_use_comes_back<F: Fabric>(fabric: &F) {
    let mut shared = Shared::new(fabric);
    let (from, to) = (fabric.region(&[3; 8]), words(fabric, 3));
    let first = shared.recv(&to[0]);
    let (recvs, error) = shared.recvs.close().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    assert_written(&to[..1]);
    shared.recvs = recvs;
    // As it was.
    let second = shared.recv(&to[1]);
    shared.recv(&to[2]);
    for (at, id) in [(1, first), (0, second)] {
        shared.send(at, &from);
        assert_succeeded(&finish(&mut shared.ends[at], 1), [id]);
    }
    assert_free(&to[..2]);
    let Shared { recvs, ends, .. } = shared;
    let [first, second] = ends;
    first.close().map_err(|(_, error)| error).unwrap();
    let (recvs, error) = recvs.close().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    second.close().map_err(|(_, error)| error).unwrap();
    assert_written(&to[2..]);
    recvs.close().map_err(|(_, error)| error).unwrap();
    assert_free(&to);
}
