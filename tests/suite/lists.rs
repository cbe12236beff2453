//! Several regions in one work request, and several work requests in one post (R9, R10).

use std::array::from_fn;

use rdma_mr::op::{Chain, Gather, Poster, SendRequest, recv_ring, send_ring};
use rdma_mr::work::{BadWr, QpCaps, QueuePair, RecvWr, SendWr, Sge};
use rdma_mr::{Error, MrAccess, Rejected};

use super::*;
use crate::fabric::{completions, finish, remote};

pub fn r9_one_hold_over_several_regions<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let from = [&b"one"[..], b"three", b"seventeen"].map(|bytes| fabric.region(bytes));
    let to = [4, 20].map(|length| fabric.alloc(length));
    let into = Gather::new([&to[0], &to[1]]).begin_write().unwrap();
    b.recv(into).unwrap();
    let holds = Gather::new([&from[2], &from[0], &from[1]])
        .begin_read()
        .unwrap();
    let id = a.send(holds, None).unwrap();
    assert_read(&from);
    assert_written(&to);
    assert_eq!(finish(&mut b, 1)[0].byte_len, 17);
    assert_free(&to);
    assert_read(&from);
    assert_succeeded(&finish(&mut a, 1), [id]);
    assert_free(&from);
    assert_eq!(to[0].as_slice()[..], *b"seve");
    assert_eq!(to[1].as_slice()[..], *b"nteenonethree\0\0\0\0\0\0\0");
}

pub fn r9_ranges_of_one_region_are_one_hold<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (from, to) = (fabric.region(b"abcdefgh"), fabric.alloc(8));
    let (early, late) = (to.get(1..4).unwrap(), to.get(5..8).unwrap());
    let into = Gather::new([&late, &early]).begin_write().unwrap();
    b.recv(into).unwrap();
    let (first, last) = (from.get(..3).unwrap(), from.get(5..).unwrap());
    let holds = Gather::new([&last, &first]).begin_read().unwrap();
    a.send(holds, None).unwrap();
    assert_read([&from]); // once
    assert_written([&to]);
    finish(&mut a, 1);
    assert_free([&from]);
    finish(&mut b, 1);
    assert_free([&to]);
    assert_eq!(to.as_slice()[..], *b"\0abc\0fgh");
}

/// A SEND of `N` regions into a receive of `N`.
fn full<F: Fabric, const N: usize>(fabric: &F) {
    let caps = QpCaps {
        max_send_sge: N as u32,
        max_recv_sge: N as u32,
        ..QpCaps::default()
    };
    let (mut a, mut b) = fabric.pair(caps);
    let bytes: Vec<u8> = (0..8 * N).map(|n| n as u8).collect();
    let from: Vec<_> = fabric.region(&bytes).chunks_of(8).unwrap().collect();
    let to = words(fabric, N);
    let all: [&dyn MrAccess; N] = from_fn(|n| &to[n] as _);
    b.recv(Gather::new(all).begin_write().unwrap()).unwrap();
    // Back to front.
    let all: [&dyn MrAccess; N] = from_fn(|n| &from[N - 1 - n] as _);
    a.send(Gather::new(all).begin_read().unwrap(), None)
        .unwrap();
    assert_read(&from);
    assert_written(&to);
    finish(&mut b, 1);
    assert_read(&from);
    assert_free(&to);
    finish(&mut a, 1);
    assert_free(&from);
    for (to, from) in to.iter().zip(from.iter().rev()) {
        assert_eq!(*to.as_slice(), *from.as_slice());
    }
}

pub fn r9_as_many_regions_as_the_device_takes<F: Fabric>(fabric: &F) {
    const MOST: usize = 32;
    match fabric.max_sge() as usize {
        MOST.. => full::<F, MOST>(fabric),
        _ => full::<F, 16>(fabric),
    }
    // And one more than that.
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let from = words(fabric, MOST + 1);
    let all: [&dyn MrAccess; MOST + 1] = from_fn(|n| &from[n] as _);
    let rejected = a.send(Gather::new(all).begin_read().unwrap(), None);
    let Rejected { value, error } = rejected.unwrap_err();
    assert!(matches!(error, Error::TooManySge { given: 33, .. }));
    assert_read(&from);
    drop(value);
    assert_free(&from);
}

pub fn r10_a_list_that_fails_in_the_middle_keeps_what_was_before<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    // SAFETY: REMOTE-1, REMOTE-2: looked at only when `a`'s operations are over.
    let there = unsafe { fabric.open_to_peers(&[0; 32]) };
    let here = words(fabric, 4);
    let target = |offset| {
        let mut remote = remote(&there);
        remote.addr += offset;
        remote
    };
    let write = |offset| SendOp::Write {
        remote: target(offset),
        imm: None,
    };
    let odd = SendOp::FetchAdd {
        remote: target(17),
        add: 1,
    };
    let ops = [write(0), write(8), odd, write(24)];
    let list = from_fn(|n| SendRequest {
        holds: match ops[n].writes_locally() {
            true => here[n].begin_write().unwrap(),
            false => here[n].begin_read().unwrap(),
        },
        op: ops[n],
        flags: SIGNALED,
    });
    let partly = a.post_list::<_, 4>(list).unwrap_err();
    assert!(matches!(partly.error, Error::Misaligned { align: 8, .. }));
    assert_eq!((partly.posted, a.outstanding()), (2, (2, 0)));
    assert_read(&here[..2]);
    assert_free(&here[2..]);
    let first = partly.first;
    assert_succeeded(&finish(&mut a, 2), [first, first.after(1)]);
    assert_free(&here);
    // The queue goes on, without a gap in the names.
    let hold = here[2].begin_read().unwrap();
    let next = a.post(hold, write(16), SIGNALED).unwrap();
    assert_eq!(next, first.after(2));
    assert_succeeded(&finish(&mut a, 1), [next]);
}

pub fn r10_a_list_that_does_not_fit_posts_nothing<F: Fabric>(fabric: &F) {
    let caps = QpCaps {
        max_send_wr: 8,
        max_recv_wr: 8,
        ..QpCaps::default()
    };
    let (mut a, mut b) = fabric.pair(caps);
    let room = a.qp().caps();
    let (sends, recvs) = (room.max_send_wr as usize, room.max_recv_wr as usize);
    // Nothing makes room here: `b` has no receive posted, and sends nothing.
    let (from, to) = (words(fabric, sends + 1), words(fabric, recvs + 1));
    for mr in &from[..sends - 1] {
        a.send(mr.begin_read().unwrap(), None).unwrap();
    }
    for mr in &to[..recvs - 1] {
        a.recv(mr.begin_write().unwrap()).unwrap();
    }
    let request = |mr: &LocalMr| SendRequest {
        holds: mr.begin_read().unwrap(),
        op: SEND,
        flags: SIGNALED,
    };
    let partly = a.post_list([&from[sends - 1], &from[sends]].map(request));
    let partly = partly.unwrap_err();
    assert!(partly.posted == 0 && matches!(partly.error, Error::QueueFull { .. }));
    let list = [&to[recvs - 1], &to[recvs]].map(|mr| mr.begin_write().unwrap());
    let partly = a.recv_list(list).unwrap_err();
    assert!(partly.posted == 0 && matches!(partly.error, Error::QueueFull { .. }));
    assert_free(from[sends - 1..].iter().chain(&to[recvs - 1..]));
    assert_eq!(a.outstanding(), (sends - 1, recvs - 1));
    // What was posted before is as it was.
    assert_read(&from[..sends - 1]);
    assert_written(&to[..recvs - 1]);
    let inbox = fabric.alloc(8);
    for mr in &from[..sends - 1] {
        b.recv(inbox.begin_write().unwrap()).unwrap();
        finish(&mut b, 1);
        finish(&mut a, 1);
        assert_free([mr]);
    }
    assert_eq!(a.outstanding(), (0, recvs - 1));
}

/// Takes in a hold on each of them, and gives the `wr_id`s and elements to be posted.
fn chain<'p>(
    poster: &'p mut Poster,
    mrs: &[LocalMr],
    begin: fn(&LocalMr) -> rdma_mr::op::Hold,
) -> (Chain<'p>, Vec<(OpId, [Sge; 1])>) {
    let mut chain = poster.chain();
    let push = |mr| {
        let hold = begin(mr);
        let sge = [hold.sge()];
        (chain.push(hold, SIGNALED).unwrap(), sge)
    };
    let posts = mrs.iter().map(push).collect();
    (chain, posts)
}

const SMALL: QpCaps = QpCaps {
    max_send_wr: 4,
    max_recv_wr: 4,
    max_send_sge: 1,
    max_recv_sge: 1,
    max_inline: 0,
};

pub fn r10_a_chain_of_sends_that_the_provider_cuts<F: Fabric>(fabric: &F) {
    let (a_cq, b_cq) = (fabric.cq(64), fabric.cq(64));
    let (a, b) = fabric.queue_pairs(&a_cq, &b_cq, SMALL);
    let room = a.caps().max_send_wr as usize;
    let from = words(fabric, room + 2);
    // A ring that takes more than the queue: so the provider has to say where it ends.
    let (mut poster, mut completer) = send_ring(2 * room as u32, 1);
    let (chain, posts) = chain(&mut poster, &from, |mr| mr.begin_read().unwrap());
    let wrs = posts.iter().map(|(id, sge)| SendWr {
        wr_id: id.wr_id(),
        sge,
        op: SEND,
        flags: SIGNALED,
    });
    let wrs: Vec<_> = wrs.collect();
    // SAFETY: POST-1: the chain has the holds; POST-3: there is no endpoint.
    let BadWr { at, error } = unsafe { a.post_send_list(&wrs) }.unwrap_err();
    assert!(matches!(error, Error::QueueFull { .. }), "{error:?}");
    assert_eq!(at, room);
    assert_read(&from); // all of them, until it is said what was posted
    chain.commit_first(at);
    assert_read(&from[..room]);
    assert_free(&from[room..]);

    let inbox = fabric.alloc(8);
    for (mr, (id, _)) in from[..room].iter().zip(&posts) {
        let hold = inbox.begin_write().unwrap();
        let sge = [hold.sge()];
        // SAFETY: POST-2: the hold is kept until the completion below; POST-3 as above.
        unsafe {
            b.post_recv(&RecvWr {
                wr_id: 1,
                sge: &sge,
            })
        }
        .unwrap();
        completions(&b_cq, 1);
        drop(hold);
        assert_read([mr]);
        let wc = completions(&a_cq, 1)[0];
        assert_eq!((wc.wr_id, wc.status), (id.wr_id(), WcStatus::Success));
        // SAFETY: COMPLETE-1: polled just now, posted above.
        unsafe { completer.complete(wc.wr_id, wc.status) }.unwrap();
        assert_free([mr]);
    }
    assert_eq!(completer.outstanding(), 0);
}

pub fn r10_a_chain_of_receives_that_the_provider_cuts<F: Fabric>(fabric: &F) {
    let cq = fabric.cq(64);
    // Nobody sends to this one, so nothing makes room.
    let (a, _b) = fabric.queue_pairs(&cq, &fabric.cq(1), SMALL);
    let room = a.caps().max_recv_wr as usize;
    let to = words(fabric, room + 2);
    let (mut poster, mut completer) = recv_ring(2 * room as u32, 1);
    let (chain, posts) = chain(&mut poster, &to, |mr| mr.begin_write().unwrap());
    let wrs = posts.iter().map(|(id, sge)| RecvWr {
        wr_id: id.wr_id(),
        sge,
    });
    let wrs: Vec<_> = wrs.collect();
    // SAFETY: POST-2: the chain has the holds; POST-3: there is no endpoint.
    let BadWr { at, error } = unsafe { a.post_recv_list(&wrs) }.unwrap_err();
    assert!(matches!(error, Error::QueueFull { .. }), "{error:?}");
    assert_eq!(at, room);
    // As the provider has it: a pointer to the bad one.
    chain.commit_before(posts[at].0).unwrap();
    assert_written(&to[..room]);
    assert_free(&to[room..]);
    a.modify_to_error().unwrap();
    for (mr, (id, _)) in to[..room].iter().zip(&posts) {
        let wc = completions(&cq, 1)[0];
        assert_eq!((wc.wr_id, wc.status), (id.wr_id(), WcStatus::WrFlushErr));
        assert_written([mr]);
        // SAFETY: COMPLETE-1: polled just now, posted above.
        unsafe { completer.complete(wc.wr_id, wc.status) }.unwrap();
        assert_free([mr]);
    }
}
