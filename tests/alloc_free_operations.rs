//! What the ways of an operation promise of memory: rings, slots, lists, several regions in one hold,
//! shared receive queues, polls and futures allocate nothing. Counted for this thread alone, after a
//! warm-up.
#![cfg(all(feature = "soft", not(loom)))]

mod alloc_counter;
mod util;

use std::array::from_fn;
use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use alloc_counter::assert_allocates_nothing;
use rdma_mr::backend::soft::{CompletionQueue, Nic, QueuePair, SharedRecvQueue};
use rdma_mr::op::{
    AsyncQueuePair, Begin, Completer, Endpoint, Gather, Poller, SendRequest, SharedRecv, recv_ring,
    recv_slots, send_ring,
};
use rdma_mr::work::{QpCaps, SendFlags, SendOp, WcStatus};
use rdma_mr::{LocalMr, LocalMrReadAccess};
use util::*;

const SIGNALED: SendFlags = SendFlags::SIGNALED;

fn complete(completer: &mut Completer, wr_id: u64) -> Option<usize> {
    // SAFETY: COMPLETE-1: nothing is ever posted here.
    let over = unsafe { completer.complete(wr_id, WcStatus::Success) };
    Some(over.ok()?.count())
}

fn some<const N: usize>(pair: &Pair) -> [LocalMr; N] {
    from_fn(|_| pair.readable(&[0; 64]))
}

#[test]
fn rings_allocate_nothing() {
    let regions = some::<3>(&Pair::stepped());
    let hold = |at: usize| regions[at].begin_write().unwrap();
    let (mut poster, mut completer) = send_ring(3, 1);
    assert_allocates_nothing(|| {
        // Taken back; unsignalled; signalled; the queue full.
        drop(poster.prepare(hold(0), SIGNALED).unwrap());
        for at in 0..2 {
            poster
                .prepare(hold(at), SendFlags::empty())
                .unwrap()
                .commit();
        }
        let last = poster.prepare(hold(2), SIGNALED).unwrap().commit().wr_id();
        assert!(poster.prepare((), SIGNALED).is_err());
        assert_eq!(complete(&mut completer, last), Some(3));
        assert_eq!(complete(&mut completer, last), None);
        // A list, of which the last one was bad.
        let mut list = poster.chain();
        let [a, b, bad] = from_fn(|at| list.push(hold(at), SIGNALED).unwrap());
        list.commit_before(bad).unwrap();
        assert_eq!(complete(&mut completer, a.wr_id()), Some(1));
        assert_eq!(complete(&mut completer, b.wr_id()), Some(1));
    });
    let (mut poster, mut completer) = recv_ring(3, 1);
    assert_allocates_nothing(|| {
        let ids: [u64; 3] =
            from_fn(|at| poster.prepare(hold(at), SIGNALED).unwrap().commit().wr_id());
        for at in [1, 2, 0] {
            assert_eq!(complete(&mut completer, ids[at]), Some(1));
        }
    });
}

#[test]
fn slots_allocate_nothing() {
    let regions = some::<3>(&Pair::stepped());
    let (mut poster, completer) = recv_slots(3, 1);
    let complete = |wr_id| {
        // SAFETY: COMPLETE-1: nothing is ever posted here.
        unsafe { completer.complete(wr_id, WcStatus::Success) }.is_ok()
    };
    assert_allocates_nothing(|| {
        let hold = |at: usize| regions[at].begin_write().unwrap();
        drop(poster.prepare(hold(0)).unwrap());
        let ids: [u64; 3] = from_fn(|at| poster.prepare(hold(at)).unwrap().commit().wr_id());
        assert!(poster.prepare(()).is_err(), "full");
        for at in [1, 2, 0] {
            assert!(complete(ids[at]) && !complete(ids[at]));
        }
    });
}

#[test]
fn several_regions_in_one_hold_allocate_nothing() {
    let pair = Pair::stepped();
    let [a, b, c] = some::<3>(&pair);
    let (mut poster, mut completer) = send_ring(4, 3);
    assert_allocates_nothing(|| {
        let gather = Gather::new([&a, &b, &c]);
        drop(black_box(gather.begin_read().unwrap()));
        let holds = gather.begin_write().unwrap();
        assert_eq!(holds.sges().len(), 3);
        assert!(gather.try_begin_read().is_err());
        let last = poster.prepare(holds, SIGNALED).unwrap().commit().wr_id();
        assert!(a.try_as_slice().is_none());
        assert_eq!(complete(&mut completer, last), Some(1));
        assert!(c.state().is_free());
    });
}

#[test]
fn lists_allocate_nothing() {
    let mut pair = Pair::stepped();
    let (from, to) = (some::<4>(&pair), some::<4>(&pair));
    let mut round = || {
        let into = from_fn::<_, 4, _>(|at| to[at].begin_write().unwrap());
        pair.b.recv_list(into).unwrap();
        let list = from_fn::<_, 4, _>(|at| SendRequest {
            holds: from[at].begin_read().unwrap(),
            op: SendOp::Send { imm: None },
            flags: if at == 3 {
                SIGNALED
            } else {
                SendFlags::empty()
            },
        });
        pair.a.post_list(list).unwrap();
        pair.nic.run_until_idle();
        let (mut sent, mut received) = (0, 0);
        pair.a.poll(|_| sent += 1).unwrap();
        pair.b.poll(|_| received += 1).unwrap();
        assert_eq!((sent, received), (4, 4));
        assert!(from.iter().chain(&to).all(|mr| mr.state().is_free()));
    };
    // The queues' memory grows to their capacity once.
    (0..300).for_each(|_| round());
    assert_allocates_nothing(round);
}

/// Two queue pairs of one poller: the first sends, and the second takes from a shared queue.
struct Shared {
    nic: Nic,
    poller: Poller<CompletionQueue>,
    a: Endpoint<QueuePair>,
    _b: Endpoint<QueuePair>,
    recvs: SharedRecv<SharedRecvQueue, CompletionQueue>,
    regions: [LocalMr; 2],
}

impl Shared {
    fn new() -> Self {
        let nic = Nic::builder().stepped().build();
        let pd = nic.alloc_pd();
        let cq = nic.create_cq(256).unwrap();
        let srq = pd.create_srq(16, 1).unwrap();
        let a = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
        let b = pd
            .create_qp_with_srq(&cq, &cq, &srq, QpCaps::default())
            .unwrap();
        QueuePair::connect_pair(&a, &b).unwrap();
        let poller = Poller::new(cq);
        let mut recvs = SharedRecv::new(srq);
        recvs.attach(&poller).unwrap();
        Shared {
            a: Endpoint::attach(a, &poller).unwrap(),
            _b: Endpoint::attach(b, &poller).unwrap(),
            regions: from_fn(|_| LocalMr::alloc(&pd, 64).unwrap()),
            nic,
            poller,
            recvs,
        }
    }
}

#[test]
fn shared_receive_queues_and_polls_allocate_nothing() {
    let mut shared = Shared::new();
    let [from, to] = &shared.regions;
    let mut round = || {
        assert_eq!(shared.poller.poll().unwrap(), 0);
        shared.recvs.recv(to.begin_write().unwrap()).unwrap();
        shared.a.send(from.begin_read().unwrap(), None).unwrap();
        shared.nic.run_until_idle();
        let mut over = 0;
        shared.poller.poll_with(|_| over += 1).unwrap();
        assert_eq!(over, 2);
    };
    (0..300).for_each(|_| round());
    assert_allocates_nothing(round);
}

/// Polled once, and not ready.
fn pending<F: Future>(future: Pin<&mut F>) {
    let polled = future.poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

fn ready<F: Future>(future: Pin<&mut F>) -> F::Output {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready"),
    }
}

#[test]
fn futures_that_wait_for_their_completion_allocate_nothing() {
    let pair = Pair::stepped();
    let [from, to] = some::<2>(&pair);
    let Pair { a, b, nic, .. } = pair;
    let pollers = [a.send_poller().clone(), b.send_poller().clone()];
    let (a, b) = (AsyncQueuePair::new(a), AsyncQueuePair::new(b));
    let settle = || {
        nic.run_until_idle();
        pollers.iter().for_each(Poller::progress);
    };
    let round = || {
        {
            let mut receive = pin!(b.recv(&to));
            let mut send = pin!(a.send(&from, None));
            pending(receive.as_mut());
            pending(send.as_mut());
            settle();
            assert!(ready(send).is_ok() && ready(receive).is_ok());
        }
        {
            let mut read = pin!(a.read(&to, remote(&from)));
            pending(read.as_mut());
            // Dropped: the operation goes on, and its completion finds no future.
        }
        assert!(to.try_as_slice().is_none());
        settle();
        assert!(to.state().is_free());
    };
    (0..300).for_each(|_| round());
    assert_allocates_nothing(round);
}
