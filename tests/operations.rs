//! Operations own their regions from the post to the completion (R9 to R13), on endpoints of a NIC
//! that acts when the test says so.
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use rdma_mr::backend::soft::{Fault, Nic, When};
use rdma_mr::gate::{Holder, Writer};
use rdma_mr::op::{Begin, Done};
use rdma_mr::work::{QpCaps, SendFlags, SendOp, WcStatus};
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess};
use util::*;

const UNSIGNALED: SendFlags = SendFlags::empty();

fn statuses(all: &[Done]) -> Vec<WcStatus> {
    all.iter().map(|done| done.status).collect()
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
