//! Signalled and unsignalled ones, full queues, and queues that are destroyed (R10, R11).

use rdma_mr::op::{Endpoint, Poller};
use rdma_mr::work::{QpCaps, QueuePair};
use rdma_mr::{Error, Rejected};

use super::*;
use crate::fabric::{finish, remote};

pub fn r11_one_signalled_in_16_releases_all_of_them<F: Fabric>(fabric: &F) {
    const GROUP: usize = 16;
    const FLIGHT: usize = 3 * GROUP; // so that a flight begins anywhere in the ring
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let capacity = a.qp().caps().max_send_wr as usize;
    let (from, to) = (words(fabric, FLIGHT), words(fabric, FLIGHT));
    let mut posted = 0;
    while posted < 4 * capacity {
        let mut ids = Vec::new();
        for (at, (from, to)) in from.iter().zip(&to).enumerate() {
            b.recv(to.begin_write().unwrap()).unwrap();
            let flags = match (at + 1) % GROUP {
                0 => SIGNALED,
                _ => UNSIGNALED,
            };
            ids.push(a.post(from.begin_read().unwrap(), SEND, flags).unwrap());
        }
        finish(&mut b, FLIGHT);
        // All have arrived, and nothing here says so yet.
        assert_read(&from);
        assert_succeeded(&finish(&mut a, FLIGHT), ids);
        assert_free(&from);
        assert_eq!(a.outstanding().0, 0);
        posted += FLIGHT;
    }
}

pub fn r11_what_no_later_completion_covers_stays<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (from, to) = (words(fabric, 4), words(fabric, 4));
    for mr in &to {
        b.recv(mr.begin_write().unwrap()).unwrap();
    }
    let mut post = |at: usize, flags| {
        let hold: rdma_mr::op::Hold = from[at].begin_read().unwrap();
        a.post(hold, SEND, flags).unwrap()
    };
    let first = post(0, SIGNALED);
    let others = [post(1, UNSIGNALED), post(2, UNSIGNALED)];
    finish(&mut b, 3);
    assert_succeeded(&finish(&mut a, 1), [first]);
    assert_free(&from[..1]);
    assert_read(&from[1..3]);
    assert_eq!(a.poll(|_| ()).unwrap(), 0);
    let hold = from[3].begin_read().unwrap();
    let last = a.post(hold, SEND, SIGNALED).unwrap();
    assert_succeeded(&finish(&mut a, 3), [others[0], others[1], last]);
    assert_free(&from);
}

pub fn r11_a_queue_is_not_filled_with_unsignalled_ones<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    // SAFETY: REMOTE-1, REMOTE-2: never looked at.
    let there = unsafe { fabric.open_to_peers(&[0; 8]) };
    let op = SendOp::Write {
        remote: remote(&there),
        imm: None,
    };
    let capacity = a.qp().caps().max_send_wr as usize;
    let (from, loud) = (words(fabric, capacity), fabric.alloc(8));
    for _ in 0..2 {
        for mr in &from[1..] {
            a.post(mr.begin_read().unwrap(), op, UNSIGNALED).unwrap();
        }
        let rejected = a.post(from[0].begin_read().unwrap(), op, UNSIGNALED);
        let Rejected { value, error } = rejected.unwrap_err();
        assert!(matches!(error, Error::InvalidWorkRequest { .. }));
        drop(value);
        assert_free(&from[..1]);
        assert_read(&from[1..]);
        a.post(loud.begin_read().unwrap(), op, SIGNALED).unwrap();
        finish(&mut a, capacity);
        assert_free(from.iter().chain([&loud]));
    }
}

pub fn r10_a_full_queue_gives_the_hold_back<F: Fabric>(fabric: &F) {
    let caps = QpCaps {
        max_send_wr: 4,
        max_recv_wr: 4,
        ..QpCaps::default()
    };
    let (mut a, mut b) = fabric.pair(caps);
    let room = a.qp().caps();
    let (sends, recvs) = (room.max_send_wr as usize, room.max_recv_wr as usize);
    // Nothing makes room here: `b` has no receive posted, and sends nothing.
    let (from, to) = (words(fabric, sends + 1), words(fabric, recvs + 1));
    for mr in &from[..sends] {
        a.send(mr.begin_read().unwrap(), None).unwrap();
    }
    for mr in &to[..recvs] {
        a.recv(mr.begin_write().unwrap()).unwrap();
    }
    let rejected = a.send(from[sends].begin_read().unwrap(), None);
    let Rejected { value, error } = rejected.unwrap_err();
    assert!(matches!(error, Error::QueueFull { capacity } if capacity as usize == sends));
    assert_read(&from);
    drop(value);
    assert_free(&from[sends..]);
    let rejected = a.recv(to[recvs].begin_write().unwrap());
    let Rejected { value, error } = rejected.unwrap_err();
    assert!(matches!(error, Error::QueueFull { capacity } if capacity as usize == recvs));
    assert_written(&to);
    drop(value);
    assert_free(&to[recvs..]);
    // Nothing of it was posted: `b` gets what was posted before, and no more.
    let inbox = words(fabric, 4);
    for chunk in from[..sends].chunks(inbox.len()) {
        for (_, inbox) in chunk.iter().zip(&inbox) {
            b.recv(inbox.begin_write().unwrap()).unwrap();
        }
        finish(&mut b, chunk.len());
        finish(&mut a, chunk.len());
        assert_free(chunk);
    }
    b.recv(inbox[0].begin_write().unwrap()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(b.poll(|_| ()).unwrap(), 0);
    assert_eq!(a.outstanding(), (0, recvs));
    assert_written(&to[..recvs]);
}

/// Two sends, of which one asks for a completion, that wait for a receive; and two receives.
fn start<Q: QueuePair>(a: &mut Endpoint<Q>, from: &[LocalMr], to: &[LocalMr]) {
    for (mr, flags) in from.iter().zip([UNSIGNALED, SIGNALED]) {
        a.post(mr.begin_read().unwrap(), SEND, flags).unwrap();
    }
    for mr in to {
        a.recv(mr.begin_write().unwrap()).unwrap();
    }
    assert_read(from);
    assert_written(to);
}

pub fn r11_destruction_releases_all_and_nothing_before_it<F: Fabric>(fabric: &F) {
    for close in [true, false] {
        let poller = Poller::new(fabric.cq(64));
        let (mut a, mut b) = fabric.attached(&poller, QpCaps::default());
        let (from, mut to) = (words(fabric, 2), words(fabric, 2));
        start(&mut a, &from, &to);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(poller.poll().unwrap(), 0);
        assert_read(&from);
        assert_written(&to);
        match close {
            true => a.close().map_err(|(_, error)| error).unwrap(),
            false => drop(a),
        }
        assert_free(from.iter().chain(&to));
        // Ours for good: a message that comes now does not get there.
        for mr in &mut to {
            rdma_mr::LocalMrWriteAccess::as_mut_slice(mr).fill(0xee);
        }
        let late = fabric.alloc(8);
        b.send(late.begin_read().unwrap(), None).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        for mr in &to {
            assert_eq!(*mr.as_slice(), [0xee; 8]);
        }
        assert_eq!(poller.unknown(), 0);
        drop(b);
        assert_free([&late]);
    }
}
