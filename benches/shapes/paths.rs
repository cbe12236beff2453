//! The hot paths as closures that take one of them once, on one thread.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rdma_mr::backend::soft::Nic;
use rdma_mr::op::{AsyncQueuePair, Poller, send_ring};
use rdma_mr::prelude::*;
use rdma_mr::work::{RemoteAddr, SendFlags, SendOp, WcStatus};
use rdma_mr::{MrOptions, PoolOptions};

use super::fake::FakeQp;
use super::{DEPTH, REGIONS, region, regions};

/// A look at `what`, which the optimiser knows nothing of.
pub fn look<T, R>(what: T, look: impl Fn(&T) -> R) -> impl Fn(usize) {
    move |_| {
        black_box(look(black_box(&what)));
    }
}

/// As [`look`], by who has `what` alone.
pub fn change<T>(mut what: T, change: impl Fn(&mut T)) -> impl FnMut(usize) {
    move |_| change(black_box(&mut what))
}

pub fn lkey() -> impl Fn(usize) {
    look(region(), |mr| mr.lkey())
}

pub fn rkey() -> impl Fn(usize) {
    look(region(), |mr| mr.rkey())
}

pub fn as_slice() -> impl Fn(usize) {
    look(region(), |mr| mr.as_slice()[0])
}

pub fn try_as_slice() -> impl Fn(usize) {
    look(region(), |mr| mr.try_as_slice().map(|bytes| bytes[0]))
}

pub fn as_mut_slice() -> impl FnMut(usize) {
    change(region(), |mr| mr.as_mut_slice()[0] = 1)
}

/// A region that the NIC writes, for good.
pub fn in_flight() -> LocalMr {
    let mr = region();
    std::mem::forget(mr.begin_write().unwrap());
    mr
}

/// `try_as_slice`, which is refused.
pub fn refused() -> impl Fn(usize) {
    look(in_flight(), |mr| mr.try_as_slice().is_none())
}

/// A post and its completion, one after the other.
pub fn both<P, C>((mut post, mut complete): (P, C)) -> impl FnMut(usize)
where
    P: FnMut(usize) -> u64,
    C: FnMut(u64),
{
    move |n| complete(black_box(post(n)))
}

pub fn begin_read() -> impl FnMut(usize) {
    let regions = regions();
    move |n| drop(black_box(regions.nth(n).begin_read()))
}

pub fn begin_write() -> impl FnMut(usize) {
    let regions = regions();
    move |n| drop(black_box(regions.nth(n).begin_write()))
}

/// Sixteen that ask for no completion and one that does, which ends them all.
pub fn one_signaled_of_17() -> impl FnMut(usize) {
    let regions = regions();
    let (mut poster, mut completer) = send_ring(DEPTH, 1);
    move |n| {
        let mut last = 0;
        for at in 0..17 {
            let flags = if at == 16 {
                SendFlags::SIGNALED
            } else {
                SendFlags::empty()
            };
            let hold = regions.nth(n * 17 + at).begin_write().unwrap();
            let prepared = poster.prepare(hold, black_box(flags)).unwrap();
            super::hand_to_the_device(prepared.wr_id(), prepared.sges()[0]);
            last = prepared.commit().wr_id();
        }
        // SAFETY: COMPLETE-1: the last one's, once, and nothing was posted.
        let over = unsafe { completer.complete(last, WcStatus::Success) }.unwrap();
        assert_eq!(black_box(over.count()), 17);
    }
}

/// A slot of a pool, there and back.
pub fn slot() -> impl FnMut(usize) {
    let size = PoolOptions {
        slot_length: 4096,
        slots_per_registration: REGIONS,
        max_registrations: 1,
    };
    let pool = MrOptions::new().pool(&Nic::new().alloc_pd(), size).unwrap();
    move |_| drop(black_box(pool.take().unwrap()))
}

/// A WRITE through an endpoint, and the poll that takes its completion.
pub fn endpoint() -> impl FnMut(usize) {
    let regions = regions();
    let mut endpoint = Endpoint::new(FakeQp::new());
    move |n| {
        let hold = regions.nth(n).begin_read().unwrap();
        let (op, flags) = black_box((WRITE, SendFlags::SIGNALED));
        endpoint.post(hold, op, flags).unwrap();
        let over = endpoint.poll(|done| {
            black_box(done);
        });
        assert_eq!(over.unwrap(), 1);
    }
}

/// Sixteen WRITEs through an endpoint, and one poll.
pub fn endpoint_batch() -> impl FnMut(usize) {
    let regions = regions();
    let mut endpoint = Endpoint::new(FakeQp::new());
    move |n| {
        for at in 0..16 {
            let hold = regions.nth(n * 16 + at).begin_read().unwrap();
            let (op, flags) = black_box((WRITE, SendFlags::SIGNALED));
            endpoint.post(hold, op, flags).unwrap();
        }
        let over = endpoint.poll(|done| {
            black_box(done);
        });
        assert_eq!(over.unwrap(), 16);
    }
}

/// A WRITE as a future that has to wait for its completion.
pub fn future() -> impl FnMut(usize) {
    let regions = regions();
    let qp = FakeQp::new();
    let poller = Poller::new(rdma_mr::work::QueuePair::send_cq(&qp).clone());
    let qp = AsyncQueuePair::new(Endpoint::attach(qp, &poller).unwrap());
    move |n| {
        let RemoteAddr { addr, rkey } = black_box(PEER);
        let mut write = pin!(qp.write(regions.nth(n), RemoteAddr { addr, rkey }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(write.as_mut().poll(&mut cx).is_pending());
        poller.progress();
        assert!(matches!(write.as_mut().poll(&mut cx), Poll::Ready(Ok(_))));
    }
}

const PEER: RemoteAddr = RemoteAddr { addr: 64, rkey: 1 };
const WRITE: SendOp = SendOp::Write {
    remote: PEER,
    imm: None,
};
