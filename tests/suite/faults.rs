//! Completions that are lost, or come twice, and other things that no device does on request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::{Distrust, Fault, When};
use rdma_mr::op::{Begin, Done, Endpoint, OpId, Poller, SharedRecv};
use rdma_mr::registration::StableMemory;
use rdma_mr::work::{QpCaps, SendFlags, SendOp, SharedRecvQueue, WcStatus};
use rdma_mr::{Error, LocalMr};

use crate::fabric::{Fabric, Soft, remote};
use crate::suite::*;

type End = Endpoint<<Soft as Fabric>::Qp>;

/// On a NIC that acts when it is told to.
fn stepped() -> Checked<Soft> {
    Checked::new(Soft::stepped())
}

fn poll(end: &mut End) -> Vec<Done> {
    let mut all = Vec::new();
    end.poll(|done| all.push(done)).unwrap();
    all
}

/// Messages from each of `from` to each of `to`, carried out and not polled for.
fn messages(
    fabric: &Soft,
    a: &mut End,
    b: &mut End,
    from: &[LocalMr],
    to: &[LocalMr],
) -> [OpId; 2] {
    let mut first = None;
    for (from, to) in from.iter().zip(to) {
        let received = b.recv(to.begin_write().unwrap()).unwrap();
        let sent = a.send(from.begin_read().unwrap(), None).unwrap();
        first.get_or_insert([sent, received]);
    }
    fabric.nic.run_until_idle();
    first.unwrap()
}

#[test]
fn r11_a_lost_completion_of_a_receive_keeps_it_and_nothing_else() {
    let fabric = &*stepped();
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (from, to) = (words(fabric, 4), words(fabric, 4));
    // The receive's is delivered first, then the send's: the second receive's.
    fabric.nic.inject(Fault::CompletionLost, When::Nth(3));
    let [sent, received] = messages(fabric, &mut a, &mut b, &from, &to);
    let others = [0, 2, 3].map(|n| received.after(n));
    assert_succeeded(&poll(&mut b), others);
    assert_written(&to[1..2]);
    assert_free([&to[0], &to[2], &to[3]]);
    assert_succeeded(&poll(&mut a), (0..4).map(|n| sent.after(n)));
    // It stays, whatever comes later: a later receive says nothing of an earlier one.
    messages(fabric, &mut a, &mut b, &from[2..], &to[2..]);
    assert_eq!((poll(&mut a).len(), poll(&mut b).len()), (2, 2));
    assert_written(&to[1..2]);
    assert_eq!(b.outstanding(), (0, 1));
    b.qp().modify_to_error();
    fabric.nic.run_until_idle();
    assert!(poll(&mut b).is_empty());
    assert_written(&to[1..2]);
    // Nor is the wait for it without an end.
    let drained = b.drain().until(Instant::now() + Duration::from_millis(20));
    let counts = (drained.completed, drained.released, drained.leaked);
    assert_eq!(counts, (0, 1, 0), "{drained:?}");
    assert_free(&to);
}

#[test]
fn r11_a_lost_completion_of_a_send_is_made_up_for_by_the_next() {
    let fabric = &*stepped();
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (from, to) = (words(fabric, 2), words(fabric, 2));
    fabric.nic.inject(Fault::CompletionLost, When::Nth(2));
    let [sent, _] = messages(fabric, &mut a, &mut b, &from[..1], &to[..1]);
    assert_eq!((poll(&mut a), poll(&mut b).len()), (vec![], 1));
    assert_read(&from[..1]);
    messages(fabric, &mut a, &mut b, &from[1..], &to[1..]);
    assert_succeeded(&poll(&mut a), [sent, sent.after(1)]);
    assert_free(&from);
}

#[test]
fn r12_what_a_flush_alone_makes_up_for_is_not_said_to_have_succeeded() {
    for lost in [1, 2] {
        let fabric = &*stepped();
        let (mut a, mut b) = fabric.pair(QpCaps::default());
        let from = words(fabric, 5);
        let status = WcStatus::RetryExcErr;
        // Two that are done, of which the first asked for no completion; the failed one, or the one before
        // it, is not told of.
        fabric.nic.inject(Fault::Completion(status), When::Nth(3));
        fabric.nic.inject(Fault::CompletionLost, When::Nth(lost));
        // SAFETY: REMOTE-1, REMOTE-2: never looked at.
        let to = unsafe { fabric.open_to_peers(&[0; 8]) };
        for (n, mr) in from.iter().enumerate() {
            let flags = match n {
                0 => SendFlags::empty(),
                _ => SendFlags::SIGNALED,
            };
            let op = SendOp::Write {
                remote: remote(&to),
                imm: None,
            };
            a.post(mr.begin_read().unwrap(), op, flags).unwrap();
        }
        fabric.nic.run_until_idle();
        let (ok, flushed) = (WcStatus::Success, WcStatus::WrFlushErr);
        let expected = match lost {
            // The error that comes next says that all before it are done.
            1 => [ok, ok, status, flushed, flushed],
            // The flush that comes next does not.
            _ => [ok, ok, flushed, flushed, flushed],
        };
        assert_eq!(statuses(&poll(&mut a)), expected);
        assert_free(&from);
        assert!(poll(&mut b).is_empty());
    }
}

#[test]
fn r11_a_completion_that_comes_twice_releases_once() {
    let fabric = &*stepped();
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (from, to) = (words(fabric, 1), words(fabric, 1));
    for nth in [1, 2] {
        // SAFETY: FAULT-1: endpoints poll here.
        let distrust = unsafe { Distrust::new() };
        let twice = Fault::CompletionDuplicated(distrust);
        fabric.nic.inject(twice, When::Nth(nth));
        messages(fabric, &mut a, &mut b, &from, &to);
        let (twice, once) = if nth == 1 {
            (&mut b, &mut a)
        } else {
            (&mut a, &mut b)
        };
        let mut told = Vec::new();
        let error = twice.poll(|done| told.push(done)).unwrap_err();
        assert!(matches!(error, Error::UnknownCompletion { .. }));
        assert_eq!(statuses(&told), [WcStatus::Success]);
        assert_eq!(poll(once).len(), 1);
        assert_eq!(twice.send_poller().unknown(), 1);
        assert_free(from.iter().chain(&to));
    }
}

#[test]
fn r16_drain_ends_without_the_flush_of_a_send() {
    let fabric = &*stepped();
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let from = words(fabric, 3);
    for mr in &from {
        a.send(mr.begin_read().unwrap(), None).unwrap();
    }
    // The last one's: no later one makes up for it.
    fabric.nic.inject(Fault::CompletionLost, When::Nth(3));
    let drain = a.drain();
    fabric.nic.run_until_idle();
    let mut polls = 0;
    let drained = drain.with(|| {
        polls += 1;
        polls < 10
    });
    let counts = (drained.completed, drained.released, drained.leaked);
    assert_eq!((counts, polls), ((2, 1, 0), 10), "{drained:?}");
    assert_free(&from);
}

#[test]
fn r12_an_injected_failure_releases_and_flushes_the_rest() {
    for status in [
        WcStatus::RemOpErr,
        WcStatus::RetryExcErr,
        WcStatus::LocProtErr,
    ] {
        let fabric = &*stepped();
        let (mut a, mut b) = fabric.pair(QpCaps::default());
        let (from, to) = (words(fabric, 3), words(fabric, 3));
        fabric.nic.inject(Fault::Completion(status), When::Nth(2));
        messages(fabric, &mut a, &mut b, &from, &to);
        let flushed = WcStatus::WrFlushErr;
        let all = poll(&mut a);
        assert_eq!(statuses(&all), [WcStatus::Success, status, flushed]);
        assert_free(&from);
        // The peer's: by its own end, if the failure takes it along; otherwise still to come.
        let got = statuses(&poll(&mut b));
        assert_eq!(got[0], WcStatus::Success);
        assert_free(&to[..got.len()]);
        assert_written(&to[got.len()..]);
        drop(b);
        assert_free(&to);
    }
}

#[test]
fn r11_a_lost_completion_of_a_shared_receive_keeps_it_until_its_queue_is_gone() {
    let fabric = &*stepped();
    let poller = Poller::new(fabric.cq(64));
    let srq = fabric.srq(4, 1);
    let caps = QpCaps::default();
    let cq = fabric.cq(64);
    let peer = fabric.qp(&cq, &cq, caps);
    let end = fabric.qp_on(poller.cq(), &srq, caps);
    fabric.connect(&peer, &end);
    assert_eq!(srq.capacity(), 4);
    let mut recvs = SharedRecv::new(srq);
    recvs.attach(&poller).unwrap();
    let mut peer = Endpoint::new(peer);
    let end = Endpoint::attach(end, &poller).unwrap();
    let (from, to) = (fabric.alloc(8), words(fabric, 3));
    fabric.nic.inject(Fault::CompletionLost, When::Nth(1));
    for mr in &to[..2] {
        recvs.recv(mr.begin_write().unwrap()).unwrap();
        peer.send(from.begin_read().unwrap(), None).unwrap();
    }
    fabric.nic.run_until_idle();
    assert_eq!((poll(&mut peer).len(), poller.poll().unwrap()), (2, 1));
    assert_written(&to[..1]);
    assert_free(&to[1..]);
    // Its slot is not used again meanwhile; the queue has one place less.
    assert_eq!(recvs.outstanding(), 1);
    drop(end);
    assert_written(&to[..1]);
    drop(recvs);
    assert_free(&to);
}

/// Memory that panics when it is freed.
struct Sore(Vec<u8>);

// SAFETY: MEM-1 to MEM-4 as for the Vec.
unsafe impl StableMemory for Sore {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        StableMemory::as_mut_ptr(&mut self.0)
    }

    fn length(&self) -> usize {
        self.0.length()
    }
}

impl Drop for Sore {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn r11_a_release_that_panics_is_the_only_one() {
    let fabric = &Soft::stepped();
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let from = words(fabric, 2);
    for mr in &from {
        let to = LocalMr::register(fabric.pd(), Sore(vec![0; 8])).unwrap();
        b.recv(to.begin_write().unwrap()).unwrap();
        drop(to);
        a.send(mr.begin_read().unwrap(), None).unwrap();
        fabric.nic.run_until_idle();
        let polled = catch_unwind(AssertUnwindSafe(|| b.poll(|_| ())));
        assert!(polled.is_err());
        // Were it outstanding still, the end of the queue pair would release it once more.
        assert_eq!(b.outstanding(), (0, 0));
    }
    let drained = b.drain().finish();
    assert_eq!((drained.completed, drained.released), (0, 0));
    assert_eq!(poll(&mut a).len(), 2);
}
