//! What the hot paths promise of memory: guards, refusals, keys, holds, posts and polls allocate
//! nothing. Counted for this thread alone, after a warm-up.
#![cfg(all(feature = "soft", not(loom)))]

mod alloc_counter;
mod util;

use std::hint::black_box;
use std::io::{Read, Write};

use alloc_counter::assert_allocates_nothing;
use rdma_mr::gate::{Gate, Holder};
use rdma_mr::op::{Begin, Hold};
use rdma_mr::work::{SendFlags, SendOp};
use rdma_mr::{
    Access, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions, PoolOptions,
    SharedMr, SharedMrAccess,
};
use util::*;

#[test]
fn guards_that_are_had_at_once_allocate_nothing() {
    let mut mr = Pair::stepped().alloc(64);
    assert_allocates_nothing(|| {
        drop(black_box(mr.as_slice()));
        drop(black_box(mr.try_as_slice()));
        drop(black_box(mr.as_slice_until(past())));
        drop(black_box(mr.as_slice_with(|| ())));
        drop(black_box(mr.as_ptr()));
        drop(black_box(mr.try_as_ptr()));
        let mut first = [0; 8];
        mr.as_slice_cursor().read_exact(&mut first).unwrap();
        drop(black_box(mr.get(8..16).unwrap().as_slice()));
        mr.as_mut_slice().fill(black_box(first[0]));
        drop(black_box(mr.try_as_mut_slice()));
        drop(black_box(mr.as_mut_slice_until(past())));
        drop(black_box(mr.as_mut_ptr()));
        mr.as_mut_slice_cursor().write_all(&first).unwrap();
        drop(black_box(mr.get_mut(..8).unwrap().as_mut_slice()));
        drop(black_box(mr.write_inner()));
    });
}

#[test]
fn shared_memory_is_used_without_allocating() {
    let mr = SharedMr::alloc(&Pair::stepped().pd, 64, Access::all()).unwrap();
    assert_allocates_nothing(|| {
        let mut copy = [0; 24];
        mr.write_record(0, black_box(&copy)).unwrap();
        mr.read_record(0, &mut copy, 1).unwrap();
        mr.get(32..).unwrap().write_from(0, &copy).unwrap();
        mr.store(56, mr.load::<u64>(32).unwrap()).unwrap();
        mr.fetch_add(56, black_box(1)).unwrap();
        drop((mr.begin_write().unwrap(), mr.begin_write().unwrap()));
        assert!(mr.load::<u64>(58).is_err() && mr.token_with_timeout(LONG).is_some());
    });
}

#[test]
fn slots_come_and_go_without_allocating() {
    let size = PoolOptions {
        slot_length: 64,
        slots_per_registration: 2,
        max_registrations: 1,
    };
    let pool = MrOptions::new().pool(&Pair::stepped().pd, size).unwrap();
    assert_allocates_nothing(|| {
        let mut slot = pool.take().unwrap();
        slot.as_mut_slice().fill(1);
        let hold = slot.begin_read().unwrap();
        drop(slot);
        let other = futures_lite::future::block_on(pool.take_async()).unwrap();
        assert!(pool.try_take().is_none() && pool.take_until(past()).is_err());
        drop((hold, other));
        drop(pool.take_with(|| ()).unwrap());
        black_box((pool.free(), pool.slots(), pool.registrations()));
    });
}

#[test]
fn futures_that_are_ready_at_once_allocate_nothing() {
    let mut mr = Pair::stepped().alloc(64);
    assert_allocates_nothing(|| {
        drop(futures_lite::future::block_on(mr.as_slice_async()));
        drop(futures_lite::future::block_on(mr.as_mut_slice_async()));
        drop(futures_lite::future::block_on(mr.begin_read_async()));
    });
}

#[test]
fn refusals_allocate_nothing() {
    let mut mr = Pair::stepped().alloc(64);
    let hold = mr.begin_write().unwrap();
    assert_allocates_nothing(|| {
        assert!(mr.try_as_slice().is_none() && mr.try_as_mut_slice().is_none());
        assert!(mr.try_as_ptr().is_none() && !mr.is_readable());
        assert!(mr.try_begin_read().is_err() && mr.try_begin_write().is_err());
        assert!(
            mr.as_slice_until(past()).is_err(),
            "refused in the spin phase"
        );
        assert!(mr.get(1..).is_ok() && mr.get(65..).is_err());
    });
    drop(hold);
}

#[test]
fn keys_and_the_state_allocate_nothing() {
    let mr = Pair::stepped().alloc(64);
    assert_allocates_nothing(|| {
        black_box((mr.lkey(), mr.rkey(), mr.addr(), mr.length(), mr.access()));
        black_box((mr.read_inner(), mr.get_inner().keys()));
        black_box((mr.state(), mr.waits()));
        black_box(mr.token_with_timeout(LONG).unwrap().is_expired());
    });
}

#[test]
fn holds_and_their_numbers_allocate_nothing() {
    let mr = Pair::stepped().alloc(64);
    assert_allocates_nothing(|| {
        drop(black_box(mr.begin_read().unwrap()));
        drop(black_box(mr.try_begin_write().unwrap()));
        drop(black_box(mr.begin_write_until(past()).unwrap()));
        let id = black_box(mr.get(8..).unwrap().begin_write().unwrap().into_wr_id());
        // SAFETY: WRID-1, WRID-2: made just now, turned back once; WRID-3: nothing was posted.
        drop(unsafe { Hold::from_wr_id(id) });
    });
}

#[test]
fn a_gate_alone_allocates_nothing() {
    let gate = Gate::new();
    assert_allocates_nothing(|| {
        drop(gate.try_acquire(Holder::CpuRead).unwrap());
        drop(gate.acquire(Holder::NicWrite).unwrap());
        drop(gate.acquire_until(Holder::CpuWrite, past()).unwrap());
    });
}

#[test]
fn posting_and_polling_allocate_nothing() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.readable(&pattern(1, 64)), pair.alloc(64));
    let inline: LocalMr = pair.alloc(16);
    let unsignaled = (SendOp::Send { imm: None }, SendFlags::empty());
    let mut over = 0;
    let mut round = |pair: &mut Pair| {
        pair.start_message(&from, &to);
        pair.nic.run_until_idle();
        over += pair
            .a
            .poll(|done| assert!(done.status.is_success()))
            .unwrap();
        over += pair
            .b
            .poll(|done| assert!(done.status.is_success()))
            .unwrap();
        pair.b.recv(to.begin_write().unwrap()).unwrap();
        let hold = inline.begin_read().unwrap();
        pair.a
            .post(hold, unsignaled.0, unsignaled.1 | SendFlags::INLINE)
            .unwrap();
        pair.nic.run_until_idle();
        over += pair.b.poll(|_| ()).unwrap();
        pair.start_read(&from, &to);
        pair.nic.run_until_idle();
        over += pair.a.poll(|_| ()).unwrap();
        // A refused post costs nothing either.
        assert!(pair.a.recv(from.begin_read().unwrap()).is_err());
    };
    // The queues' memory grows to their capacity once.
    for _ in 0..100 {
        round(&mut pair);
    }
    assert_allocates_nothing(|| round(&mut pair));
    assert_eq!(over, 601 * 5);
}
