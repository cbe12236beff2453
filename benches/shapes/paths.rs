//! The hot paths as closures that take one of them once, on one thread.

use std::hint::black_box;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rdma_mr::backend::soft::Nic;
use rdma_mr::gate::{Barrier, Gate, Holder};
use rdma_mr::op::{AsyncQueuePair, Poller, send_ring};
use rdma_mr::prelude::*;
use rdma_mr::work::{RemoteAddr, SendFlags, SendOp, WcStatus};
use rdma_mr::{MrOptions, PoolOptions};

use super::fake::FakeQp;
use super::{DEPTH, REGIONS, region, regions};

/// A path that is taken for each of these numbers.
pub type Walk = Box<dyn FnMut(Range<usize>)>;

fn walk(mut once: impl FnMut(usize) + 'static) -> Option<Walk> {
    Some(Box::new(move |numbers| numbers.for_each(&mut once)))
}

/// The paths by their names: those that are counted.
pub fn by_name(name: &str) -> Option<Walk> {
    match name {
        "load" => walk(look(super::word(), super::load)),
        "lkey" => walk(lkey()),
        "rkey" => walk(rkey()),
        "addr" => walk(addr()),
        "read_inner" => walk(read_inner()),
        "state" => walk(state()),
        "as_slice" => walk(as_slice()),
        "biased" => walk(biased(Barrier::Fence)),
        "biased_by_membarrier" => walk(biased(Barrier::Membarrier)),
        "try_as_slice" => walk(try_as_slice()),
        "refused" => walk(refused()),
        "as_ptr" => walk(as_ptr()),
        "as_mut_slice" => walk(as_mut_slice()),
        "slice" => walk(slice()),
        "permit" => walk(permit()),
        "begin_read" => walk(begin_read()),
        "begin_write" => walk(begin_write()),
        "begin_refused" => walk(begin_refused()),
        "slot" => walk(slot()),
        "wr_id" => walk(both(super::hold_as_wr_id())),
        "ring" => walk(both(super::ring())),
        "slots" => walk(both(super::slots())),
        "endpoint" => walk(endpoint()),
        "future" => walk(future()),
        "rival" => walk(both(super::guards_with_parking_lot())),
        _ => None,
    }
}

/// A look at `what`, which the optimiser knows nothing of.
#[inline(always)]
pub fn look_at<T, R>(what: &T, look: impl FnOnce(&T) -> R) {
    black_box(look(black_box(what)));
}

/// As [`look_at`], over and over.
pub fn look<T, R>(what: T, look: impl Fn(&T) -> R) -> impl Fn(usize) {
    move |_| look_at(&what, &look)
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

pub fn addr() -> impl Fn(usize) {
    look(region(), |mr| mr.addr())
}

pub fn read_inner() -> impl Fn(usize) {
    look(region(), |mr| mr.read_inner())
}

/// What the region's word says.
pub fn state() -> impl Fn(usize) {
    look(region(), |mr| mr.state())
}

pub fn as_slice() -> impl Fn(usize) {
    look(region(), |mr| mr.as_slice()[0])
}

/// At a region whose readers are biased.
pub fn biased(barrier: Barrier) -> impl Fn(usize) {
    look(super::biased(barrier), |mr| mr.as_slice()[0])
}

pub fn try_as_slice() -> impl Fn(usize) {
    look(region(), |mr| mr.try_as_slice().map(|bytes| bytes[0]))
}

pub fn as_ptr() -> impl Fn(usize) {
    look(region(), |mr| *mr.as_ptr())
}

/// A guard over some of the bytes.
pub fn slice() -> impl Fn(usize) {
    look(region(), |mr| {
        mr.get(black_box(64..128)).unwrap().as_slice()[0]
    })
}

/// The gate by itself.
pub fn permit() -> impl Fn(usize) {
    look(Gate::new(), |gate| {
        gate.acquire(Holder::CpuRead).unwrap().holder()
    })
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

/// `try_begin_read`, which is refused: the error says by whom.
pub fn begin_refused() -> impl Fn(usize) {
    look(in_flight(), |mr| mr.try_begin_read().is_err())
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
