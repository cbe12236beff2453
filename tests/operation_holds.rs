//! Holds by hand: all forms of beginning an operation (R18), raw posts that carry the hold in their
//! `wr_id` (R9), inline sends (R13), and completions that belong to nothing (R11).
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::sync::Arc;
use std::thread;

use rdma_mr::backend::soft::{CompletionQueue, Nic, ProtectionDomain, QueuePair};
use rdma_mr::gate::{Holder, Snapshot, Writer};
use rdma_mr::op::{Begin, Hold};
use rdma_mr::work::{
    CompletionQueue as _, QpCaps, QueuePair as _, RecvWr, SendFlags, SendOp, SendWr, WorkCompletion,
};
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess};
use util::*;

const SEND: SendOp = SendOp::Send { imm: None };

macro_rules! begin_forms {
    ($($test:ident: $holder:ident, $blocks:ident, $state:expr,
       $try:ident $plain:ident $until:ident $with:ident $future:ident;)*) => {$(
        #[test]
        fn $test() {
            let mr = Arc::new(Pair::stepped().alloc(64));
            let state: fn(&Snapshot) -> bool = $state;
            let of = |hold: Hold| {
                assert_eq!(hold.holder(), Holder::$holder);
                assert_eq!((hold.sge().addr, hold.sge().length), (mr.addr() as u64, 64));
                assert_eq!(hold.sge().lkey, mr.lkey());
                assert!(!mr.state().is_free());
            };
            for _ in 0..2 {
                of(mr.$try().unwrap());
                of(mr.$plain().unwrap());
                of(mr.$until(past()).unwrap());
                of(mr.$with(|| unreachable!("free")).unwrap());
                assert!(matches!(Driven::new(mr.$future()).poll(),
                    std::task::Poll::Ready(Ok(hold)) if hold.holder() == Holder::$holder));
            }
            assert!(mr.state().is_free() && mr.waits() == 0);

            let other = mr.$blocks().unwrap();
            assert!(matches!(mr.$try(), Err(Error::Held { state: seen }) if state(&seen)));
            assert!(matches!(mr.$until(past()), Err(Error::Deadline { state: seen }) if state(&seen)));
            let mut other = Some(other);
            let mut calls = 0;
            of(mr.$with(|| {
                calls += 1;
                assert!(calls <= 3, "it does not get in");
                if calls == 3 {
                    other = None;
                }
            }).unwrap());
            assert_eq!(calls, 3);

            let other = mr.$blocks().unwrap();
            let future = Driven::pending(mr.$future());
            let abandoned = Driven::pending(mr.$future());
            assert_eq!(future.wakes(), 0);
            drop(abandoned);
            drop(other);
            of(future.ready().unwrap());

            let other = mr.$blocks().unwrap();
            let (one, two) = (mr.clone(), mr.clone());
            let plain = thread::spawn(move || one.$plain().map(drop));
            let until = thread::spawn(move || two.$until(far()).map(drop));
            assert_parks(&plain, &mr, |seen| seen.waiting_shared || seen.waiting_exclusive);
            drop(other);
            plain.join().unwrap().unwrap();
            until.join().unwrap().unwrap();
            assert!(mr.state().is_free());
        }
    )*};
}

begin_forms! {
    r18_begin_read: NicRead, begin_write, |state| state.writer == Some(Writer::Nic),
        try_begin_read begin_read begin_read_until begin_read_with begin_read_async;
    r18_begin_write: NicWrite, begin_read, |state| state.nic_reads == 1,
        try_begin_write begin_write begin_write_until begin_write_with begin_write_async;
}

/// A connected queue pair without endpoints, and the queue of both.
fn raw() -> (Nic, Arc<ProtectionDomain>, [QueuePair; 2], CompletionQueue) {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    let cq = nic.create_cq(16).unwrap();
    let qps = [(); 2].map(|()| pd.create_qp(&cq, &cq, QpCaps::default()).unwrap());
    QueuePair::connect_pair(&qps[0], &qps[1]).unwrap();
    (nic, pd, qps, cq)
}

/// Polls and turns each completion's number back into its hold.
fn take_holds(cq: &CompletionQueue) -> Vec<Hold> {
    let mut batch = [WorkCompletion::EMPTY; 8];
    let count = cq.poll(&mut batch).unwrap();
    let over = batch[..count].iter().map(|wc| {
        // SAFETY: WRID-1: all of these tests' numbers come from `into_wr_id`; WRID-2, WRID-3: a
        // completion is polled once.
        unsafe { Hold::from_wr_id(wc.wr_id) }
    });
    over.collect()
}

#[test]
fn r9_a_wr_id_carries_the_hold_through_a_raw_post() {
    let (nic, pd, [a, b], cq) = raw();
    let from = LocalMr::register(&pd, pattern(1, 64)).unwrap();
    let to = LocalMr::alloc(&pd, 64).unwrap();
    let hold = to.get(8..40).unwrap().begin_write().unwrap();
    let sge = [hold.sge()];
    let wr = RecvWr {
        wr_id: hold.into_wr_id(),
        sge: &sge,
    };
    // SAFETY: POST-2: the hold is exclusive, and its number is turned back after the completion.
    unsafe { b.post_recv(&wr) }.unwrap();
    assert_eq!(to.state().writer, Some(Writer::Nic), "a number holds it");
    let hold = from.get(..32).unwrap().begin_read().unwrap();
    let sge = [hold.sge()];
    let wr = SendWr {
        wr_id: hold.into_wr_id(),
        sge: &sge,
        op: SEND,
        flags: SendFlags::SIGNALED,
    };
    // SAFETY: POST-1: the hold is shared, and its number is turned back after the completion.
    unsafe { a.post_send(&wr) }.unwrap();
    drop(from);
    assert_eq!(
        nic.stats().registrations,
        2,
        "the number keeps it registered"
    );
    nic.run_until_idle();
    assert!(to.try_as_slice().is_none());
    let holds = take_holds(&cq);
    assert_eq!(holds.len(), 2);
    let write = holds
        .iter()
        .find(|hold| hold.holder() == Holder::NicWrite)
        .unwrap();
    let whole = write.sge();
    assert_eq!(
        (whole.addr, whole.length, whole.lkey),
        (to.addr() as u64, 64, to.lkey())
    );
    assert!(to.try_as_slice().is_none() && nic.stats().registrations == 2);
    drop(holds);
    assert_eq!(nic.stats().registrations, 1);
    assert_eq!(to.try_as_slice().unwrap()[8..40], pattern(1, 64)[..32]);
    assert_eq!(to.try_as_slice().unwrap()[..8], [0; 8]);
}

#[test]
fn r9_wr_ids_tell_kinds_and_regions_apart() {
    let pair = Pair::stepped();
    let regions: Vec<LocalMr> = pair.alloc(64).chunks_of(8).unwrap().collect();
    let mut ids = Vec::new();
    for (i, mr) in regions.iter().enumerate() {
        if i % 2 == 0 {
            ids.extend([0; 2].map(|_| mr.begin_read().unwrap().into_wr_id()));
        } else {
            ids.push(mr.begin_write().unwrap().into_wr_id());
        }
    }
    let held = |mr: &LocalMr| (mr.state().nic_reads, mr.state().writer);
    assert_eq!(held(&regions[0]), (2, None));
    assert_eq!(held(&regions[1]), (0, Some(Writer::Nic)));
    for id in ids {
        // SAFETY: WRID-1: made above; WRID-2: each once; WRID-3: nothing was posted.
        drop(unsafe { Hold::from_wr_id(id) });
    }
    assert!(regions.iter().all(|mr| mr.state().is_free()));
    let id = regions[3].begin_write().unwrap().into_wr_id();
    drop(regions);
    assert_eq!(pair.nic.stats().registrations, 1);
    // SAFETY: WRID-1, WRID-2, WRID-3: as above.
    let hold = unsafe { Hold::from_wr_id(id) };
    assert_eq!((hold.holder(), hold.sge().length), (Holder::NicWrite, 8));
    thread::spawn(move || drop(hold)).join().unwrap();
    pair.assert_nothing_registered();
}

#[test]
fn r13_an_inline_send_is_over_when_the_post_returns() {
    let mut pair = Pair::small();
    let inline = SendFlags::SIGNALED | SendFlags::INLINE;
    let (mut from, to) = (pair.region(&[1; 8]), pair.alloc(8));
    pair.b.recv(to.begin_write().unwrap()).unwrap();
    pair.a
        .post(from.begin_read().unwrap(), SEND, inline)
        .unwrap();
    from.try_as_mut_slice().expect("free at once").fill(9);
    assert_eq!(pair.a.outstanding(), (1, 0), "its place is taken");
    // Unsignalled as well, it is over by the next completion.
    pair.a
        .post(from.begin_read().unwrap(), SEND, SendFlags::INLINE)
        .unwrap();
    let full = pair.a.post(from.begin_read().unwrap(), SEND, inline);
    assert!(matches!(full.unwrap_err().error, Error::QueueFull { .. }));
    pair.finish(2);
    assert_eq!(*to.as_slice(), [1; 8], "what it was at the post");
    assert_eq!(pair.a.outstanding(), (1, 0));
    let long = pair.region(&[3; 17]);
    let rejected = pair
        .a
        .post(long.begin_read().unwrap(), SEND, inline)
        .unwrap_err();
    assert!(matches!(
        rejected.error,
        Error::InlineTooLong { given: 17, max: 16 }
    ));
    assert_eq!(long.state().nic_reads, 1, "not lost");
    drop(rejected);
    assert!(long.state().is_free());
    assert_eq!(pair.a.qp().caps().max_inline, 16);
}

#[test]
fn r11_a_raw_post_beside_the_endpoint_releases_nothing_of_it() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&pattern(2, 8)), pair.alloc(8));
    pair.start_message(&from, &to);
    let op = SendOp::Write {
        remote: remote(&to),
        imm: None,
    };
    let wr = SendWr {
        wr_id: 1 << 40,
        sge: &[],
        op,
        flags: SendFlags::SIGNALED,
    };
    // SAFETY: POST-1: it names no bytes.
    unsafe { pair.a.qp().post_send(&wr) }.unwrap();
    pair.nic.run_until_idle();
    let mut told = 0;
    let unknown = pair.a.poll(|_| told += 1);
    assert!(matches!(unknown, Err(Error::UnknownCompletion { wr_id }) if wr_id == 1 << 40));
    assert_eq!(told, 1, "those that came with it are not lost");
    assert!(!to.is_readable());
    assert_eq!(pair.poll().len(), 1);
    assert_eq!(*to.as_slice(), *pattern(2, 8));
}

#[test]
fn r11_an_endpoint_polls_both_of_its_queues() {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    let [sends, recvs] = [(); 2].map(|()| nic.create_cq(8).unwrap());
    let qp = pd.create_qp(&sends, &recvs, QpCaps::default()).unwrap();
    qp.connect(qp.qp_num()).unwrap();
    let mut end = End::new(qp);
    let from = LocalMr::register(&pd, pattern(3, 8)).unwrap();
    let to = LocalMr::alloc(&pd, 8).unwrap();
    end.recv(to.begin_write().unwrap()).unwrap();
    end.send(from.begin_read().unwrap(), None).unwrap();
    nic.run_until_idle();
    let mut over = Vec::new();
    assert_eq!(end.poll(|done| over.push(done.id.is_recv())).unwrap(), 2);
    assert_eq!(over, [false, true]);
    assert_eq!(*to.try_as_slice().unwrap(), *pattern(3, 8));
}
