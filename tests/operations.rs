//! Operations own their regions from the post to the completion (R9 to R13), on endpoints of a NIC
//! that acts when the test says so.
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use rdma_mr::backend::soft::{Fault, Nic, When};
use rdma_mr::gate::{Holder, Writer};
use rdma_mr::op::{Begin, Done, Hold};
use rdma_mr::work::{QpCaps, SendFlags, SendOp, WcStatus};
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, Rejected};
use util::*;

const SEND: SendOp = SendOp::Send { imm: None };
const UNSIGNALED: SendFlags = SendFlags::empty();

fn statuses(all: &[Done]) -> Vec<WcStatus> {
    all.iter().map(|done| done.status).collect()
}

#[test]
fn r9_a_dropped_handle_keeps_its_memory_registered_until_the_completion() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&pattern(1, 64)), pair.alloc(64));
    pair.start_message(&from, &to);
    drop((from, to));
    assert_eq!(pair.nic.stats().registrations, 2);
    pair.nic.run_until_idle();
    assert_eq!(pair.nic.stats().registrations, 2, "over, but nobody knows");
    // A handle that is gone does not fail its operation.
    assert_eq!(statuses(&pair.poll()), [WcStatus::Success; 2]);
    pair.assert_nothing_registered();
}

#[test]
fn r9_an_abandoned_future_leaves_the_operation_in_flight() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&pattern(2, 64)), pair.alloc(64));
    pair.start_message(&from, &to);
    drop(Driven::pending(to.as_slice_async()));
    std::mem::forget(Driven::pending(to.begin_write_async()));
    assert_eq!(to.state().writer, Some(Writer::Nic));
    drop(to);
    pair.finish(2);
    drop(from);
    pair.assert_nothing_registered();
}

#[test]
fn r9_forgetting_a_hold_only_leaks() {
    let nic = {
        let pair = Pair::stepped();
        let mut mr = pair.region(&[1; 8]);
        std::mem::forget(mr.begin_read().unwrap());
        assert_eq!(mr.try_as_slice().unwrap()[..], [1; 8]);
        assert!(mr.try_as_mut_slice().is_none() && mr.try_begin_write().is_err());
        let (mr, error) = mr.close().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        drop(mr);
        pair.nic.clone()
    };
    assert_eq!(nic.stats().registrations, 1, "never freed");
}

#[test]
fn r10_a_refused_post_gives_the_hold_back_and_posts_nothing() {
    let mut pair = Pair::small();
    let (from, to) = (pair.region(&[1; 8]), pair.alloc(8));
    let parts: Vec<LocalMr> = pair.alloc(16).chunks_of(8).unwrap().collect();
    for part in &parts {
        pair.b.recv(part.begin_write().unwrap()).unwrap();
        pair.a.send(from.begin_read().unwrap(), None).unwrap();
    }
    // Full.
    let Rejected { value, error } = pair.a.send(from.begin_read().unwrap(), None).unwrap_err();
    assert!(matches!(error, Error::QueueFull { capacity: 2 }));
    assert_eq!(
        (value.holder(), from.state().nic_reads),
        (Holder::NicRead, 3)
    );
    drop(value);
    assert_eq!(from.state().nic_reads, 2);
    let Rejected { value, error } = pair.b.recv(to.begin_write().unwrap()).unwrap_err();
    assert!(matches!(error, Error::QueueFull { capacity: 2 }));
    drop(value);
    assert!(to.state().is_free());
    assert_eq!(
        (pair.a.outstanding(), pair.b.outstanding()),
        ((2, 0), (0, 2))
    );
    pair.finish(4);
    assert!(pair.settle().is_empty(), "nothing else was posted");
}

#[test]
fn r10_r13_each_operation_takes_holds_of_its_kind_only() {
    let mut pair = Pair::small();
    let mr = pair.alloc(8);
    let remote = remote(&mr);
    let (add, compare, swap) = (1, 2, 3);
    let nic_reads = [
        SEND,
        SendOp::Send { imm: Some(1) },
        SendOp::Write { remote, imm: None },
        SendOp::Write {
            remote,
            imm: Some(1),
        },
    ];
    let nic_writes = [
        SendOp::Read { remote },
        SendOp::FetchAdd { remote, add },
        SendOp::CompareSwap {
            remote,
            compare,
            swap,
        },
    ];
    let refused = |rejected: Result<_, Rejected<Hold>>, holder: Holder| {
        let Rejected { value, error } = rejected.map(|_: rdma_mr::op::OpId| ()).unwrap_err();
        assert!(
            matches!(error, Error::InvalidWorkRequest { .. }),
            "{error:?}"
        );
        assert_eq!(value.holder(), holder);
    };
    for op in nic_reads {
        let rejected = pair
            .a
            .post(mr.begin_write().unwrap(), op, SendFlags::SIGNALED);
        refused(rejected, Holder::NicWrite);
    }
    for op in nic_writes {
        let rejected = pair
            .a
            .post(mr.begin_read().unwrap(), op, SendFlags::SIGNALED);
        refused(rejected, Holder::NicRead);
        // And what the NIC can't do.
        let inline = SendFlags::SIGNALED | SendFlags::INLINE;
        refused(
            pair.a.post(mr.begin_write().unwrap(), op, inline),
            Holder::NicWrite,
        );
    }
    refused(pair.a.recv(mr.begin_read().unwrap()), Holder::NicRead);
    // The named ones ask for the same.
    refused(
        pair.a.read(mr.begin_read().unwrap(), remote),
        Holder::NicRead,
    );
    refused(
        pair.a.fetch_add(mr.begin_read().unwrap(), remote, 1),
        Holder::NicRead,
    );
    refused(
        pair.a.compare_swap(mr.begin_read().unwrap(), remote, 1, 2),
        Holder::NicRead,
    );
    refused(
        pair.a.write(mr.begin_write().unwrap(), remote, None),
        Holder::NicWrite,
    );
    refused(
        pair.a.send(mr.begin_write().unwrap(), None),
        Holder::NicWrite,
    );
    assert!(mr.state().is_free());
    assert_eq!(pair.a.outstanding(), (0, 0));
    assert!(pair.settle().is_empty());
}

#[test]
fn r10_a_queue_pair_that_can_not_send_gives_the_hold_back() {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    let cq = nic.create_cq(8).unwrap();
    let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
    let mut end = End::new(qp);
    let mr = LocalMr::alloc(&pd, 8).unwrap();
    let rejected = end.send(mr.begin_read().unwrap(), None).unwrap_err();
    assert!(matches!(
        rejected.error,
        Error::QueuePairState { state: "RESET", .. }
    ));
    drop(rejected);
    let rejected = end.recv(mr.try_begin_write().unwrap()).unwrap_err();
    assert_eq!(
        (rejected.value.holder(), mr.is_readable()),
        (Holder::NicWrite, false)
    );
    drop(rejected);
    assert!(mr.state().is_free() && end.outstanding() == (0, 0));
}

#[test]
fn r11_a_hold_is_released_by_its_completion_and_not_before() {
    let mut pair = Pair::stepped();
    let (one, two) = (pair.region(&[1; 8]), pair.region(&[2; 8]));
    let (to_one, to_two) = (pair.alloc(8), pair.alloc(8));
    pair.start_message(&one, &to_one);
    pair.start_message(&two, &to_two);
    assert!(pair.nic.step(), "carries out the first message");
    assert!(!to_one.is_readable(), "not polled");
    let mut ids = Vec::new();
    let count = pair.b.poll(|done| {
        assert!(to_one.is_readable(), "free when `done` is told");
        ids.push((done.id.is_recv(), done.id.sequence(), done.byte_len));
    });
    assert_eq!((count.unwrap(), ids), (1, vec![(true, 0, 8)]));
    assert_eq!(*to_one.try_as_slice().unwrap(), [1; 8]);
    assert!(!to_two.is_readable() && one.state().nic_reads == 1);
    assert_eq!(statuses(&pair.poll()), [WcStatus::Success]);
    assert!(one.state().is_free() && two.state().nic_reads == 1);
    pair.finish(2);
    assert_eq!(*to_two.try_as_slice().unwrap(), [2; 8]);
}

#[test]
fn r11_a_later_signalled_completion_releases_the_unsignalled_before_it() {
    let mut pair = Pair::stepped();
    let (mut first, mut second) = (pair.region(&[1; 8]), pair.region(&[2; 8]));
    let to: Vec<LocalMr> = pair.alloc(16).chunks_of(8).unwrap().collect();
    for part in &to {
        pair.b.recv(part.begin_write().unwrap()).unwrap();
    }
    let quiet = pair
        .a
        .post(first.begin_read().unwrap(), SEND, UNSIGNALED)
        .unwrap();
    assert_eq!(pair.settle().len(), 1, "the receive alone");
    assert!(
        first.try_as_mut_slice().is_none(),
        "nothing says that it is over"
    );
    let loud = pair.a.send(second.begin_read().unwrap(), None).unwrap();
    pair.nic.run_until_idle();
    assert!(first.try_as_mut_slice().is_none());
    let mut order = Vec::new();
    let count = pair
        .a
        .poll(|done| order.push((done.id, done.status)))
        .unwrap();
    assert_eq!(
        (count, order),
        (
            2,
            vec![(quiet, WcStatus::Success), (loud, WcStatus::Success)]
        )
    );
    assert!(first.try_as_mut_slice().is_some() && second.try_as_mut_slice().is_some());
    assert!(quiet < loud && !loud.is_recv());
}

#[test]
fn r11_a_hold_outlives_modify_to_error() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&[1; 8]), pair.alloc(8));
    pair.start_message(&from, &to);
    pair.a.qp().modify_to_error();
    pair.b.qp().modify_to_error();
    assert!(pair.poll().is_empty());
    assert!(!to.is_readable() && from.state().nic_reads == 1);
    pair.nic.run_until_idle();
    assert!(
        !to.is_readable() && from.state().nic_reads == 1,
        "flushed, not polled"
    );
    assert_eq!(statuses(&pair.poll()), [WcStatus::WrFlushErr; 2]);
    assert!(to.state().is_free() && from.state().is_free());
}

#[test]
fn r11_the_end_of_the_endpoint_releases_what_was_outstanding() {
    for close in [true, false] {
        let mut pair = Pair::stepped();
        let (from, to) = (pair.region(&[1; 8]), pair.alloc(8));
        pair.start_message(&from, &to);
        pair.a
            .post(from.begin_read().unwrap(), SEND, UNSIGNALED)
            .unwrap();
        let Pair { a, b, nic, .. } = pair;
        for end in [a, b] {
            if close {
                end.close().unwrap();
            } else {
                drop(end);
            }
        }
        assert!(to.state().is_free() && from.state().is_free());
        assert_eq!(nic.stats().queue_pairs, 0);
        assert_eq!(*to.as_slice(), [0; 8]);
        nic.run_until_idle();
        drop((from, to));
        assert_eq!(nic.stats().registrations, 0);
    }
}

#[test]
fn r11_a_forgotten_endpoint_releases_nothing() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&[1; 8]), pair.alloc(8));
    pair.start_message(&from, &to);
    let Pair { a, b, nic, .. } = pair;
    std::mem::forget(b);
    drop(a);
    assert!(from.state().is_free());
    assert_eq!(to.state().writer, Some(Writer::Nic));
    drop(to);
    assert_eq!(nic.stats().registrations, 2, "the receive's memory stays");
}

#[test]
fn r12_an_error_completion_releases_and_says_so() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.readable(&pattern(3, 10_000)), pair.alloc(10_000));
    pair.nic
        .inject(Fault::Completion(WcStatus::RemOpErr), When::Nth(1));
    pair.start_read(&from, &to);
    pair.a.send(from.begin_read().unwrap(), None).unwrap();
    let all = pair.settle();
    assert_eq!(statuses(&all), [WcStatus::RemOpErr, WcStatus::WrFlushErr]);
    let bytes = to.try_as_slice().expect("over, whatever came of it");
    assert_eq!(
        bytes[..4096],
        pattern(3, 10_000)[..4096],
        "some were written"
    );
    assert_eq!(bytes[8192..], [0; 10_000 - 8192], "and some were not");
    // An unsignalled one that fails has a completion of its own.
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&[1; 8]), pair.region(&[2; 8]));
    let op = SendOp::Write {
        remote: remote(&to),
        imm: None,
    };
    pair.a
        .post(from.begin_read().unwrap(), op, UNSIGNALED)
        .unwrap();
    assert_eq!(statuses(&pair.settle()), [WcStatus::RemAccessErr]);
    assert!(from.state().is_free());
}

#[test]
fn r13_each_operation_moves_its_bytes_under_its_hold() {
    let mut pair = Pair::stepped();
    // SAFETY: REMOTE-1, REMOTE-2: the peer's operations are over whenever the bytes are looked at.
    let there = unsafe { pair.shared_word(5) };
    let here = pair.alloc(8);
    let word =
        |mr: &LocalMr| u64::from_ne_bytes(mr.try_as_slice().unwrap()[..].try_into().unwrap());
    let target = remote(&there);
    pair.a
        .fetch_add(here.begin_write().unwrap(), target, 3)
        .unwrap();
    assert!(here.try_as_slice().is_none() && here.try_begin_read().is_err());
    pair.finish(1);
    assert_eq!((word(&here), word(&there)), (5, 8));
    pair.a
        .compare_swap(here.begin_write().unwrap(), target, 8, 21)
        .unwrap();
    pair.finish(1);
    assert_eq!((word(&here), word(&there)), (8, 21));
    pair.a
        .write(here.begin_read().unwrap(), target, None)
        .unwrap();
    assert_eq!(word(&here), 8, "read by the NIC and by us");
    pair.finish(1);
    assert_eq!(word(&there), 8);
    let bell = pair.alloc(8);
    pair.b.recv(bell.begin_write().unwrap()).unwrap();
    pair.a
        .write(here.begin_read().unwrap(), target, Some(77))
        .unwrap();
    let all = pair.settle();
    assert_eq!(statuses(&all), [WcStatus::Success; 2]);
    assert_eq!((all[1].imm, all[1].byte_len), (Some(77), 8));
    assert_eq!(*bell.as_slice(), [0; 8], "an immediate brings no bytes");
}
