//! Read bias: what a biased region does as any other does, and when it is biased.
#![cfg(all(feature = "soft", not(loom)))]

mod alloc_counter;
mod util;

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use alloc_counter::assert_allocates_nothing;
use rdma_mr::gate::{self, Gate, Holder, ReadBias};
use rdma_mr::op::Begin;
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions, PoolOptions};
use util::*;

/// How many guards at a time a thread may have published.
const PLACES: usize = 3;

fn options(quiet: Duration) -> MrOptions {
    MrOptions::new().read_bias(ReadBias {
        quiet,
        ..ReadBias::default()
    })
}

/// Biased until it is written, and for good not after that.
fn biased() -> LocalMr {
    let options = options(Duration::from_secs(3600));
    options.alloc(&Pair::stepped().pd, 64).unwrap()
}

#[test]
fn a_published_reader_is_a_reader_to_everybody() {
    let mr = biased();
    assert!(mr.state().biased && mr.state().is_free());
    let guard = mr.as_slice();
    assert_eq!((mr.state().cpu_readers, mr.state().biased), (1, true));
    assert!(mr.is_readable() && mr.try_as_slice().is_some() && mr.try_begin_read().is_ok());
    let refused = mr.try_begin_write().unwrap_err();
    assert!(refused.to_string().contains("1 CPU reader"), "{refused}");
    let late = mr.begin_write_until(Instant::now() + Duration::from_millis(5));
    assert!(late.unwrap_err().to_string().contains("1 CPU reader"));
    // It was moved, and is a reader still.
    assert_eq!((mr.state().cpu_readers, mr.state().biased), (1, false));
    assert!(mr.try_begin_write().is_err());
    drop(guard);
    assert!(mr.state().is_free() && mr.try_begin_write().is_ok());
}

#[test]
fn a_reader_that_was_moved_is_one_reader_when_the_bias_is_back() {
    let mr = options(Duration::ZERO)
        .alloc(&Pair::stepped().pd, 64)
        .unwrap();
    let stays = mr.as_slice();
    assert!(mr.begin_write_until(Instant::now()).is_err());
    assert_eq!((mr.state().cpu_readers, mr.state().biased), (1, false));
    // A counted reader: it brings the bias back.
    let second = mr.as_slice();
    let state = mr.state();
    assert_eq!((state.cpu_readers, state.biased), (2, true), "{state}");
    drop((stays, second));
    assert!(mr.state().is_free() && mr.try_begin_write().is_ok());
}

/// Who waits goes ahead of readers that are counted, and takes its bit off again when they stay: those that are
/// published, and whom it has not come to, are readers still.
#[test]
fn r1_published_readers_stay_readers_when_who_went_ahead_of_counted_ones_gives_up() {
    let mr = biased();
    let published: Vec<_> = (0..PLACES).map(|_| mr.as_slice()).collect();
    let counted = mr.as_slice();
    assert_eq!(mr.state().cpu_readers as usize, PLACES + 1);
    let late = mr.begin_write_until(Instant::now() + Duration::from_millis(5));
    assert!(late.is_err());
    drop(counted);
    assert_eq!(mr.state().cpu_readers as usize, PLACES);
    assert!(mr.try_begin_write().is_err());
    let late = mr.begin_write_until(Instant::now() + Duration::from_millis(5));
    assert!(late.is_err());
    drop(published);
    assert!(mr.state().is_free() && mr.try_begin_write().is_ok());
}

#[test]
fn every_form_of_a_guard_is_published() {
    let mr = biased();
    let biased = |count| {
        let state = mr.state();
        assert_eq!((state.cpu_readers, state.biased), (count, true));
    };
    let forms = (
        mr.as_slice(),
        mr.try_as_slice().unwrap(),
        futures_lite::future::block_on(mr.as_slice_async()),
    );
    biased(3);
    // There are no more slots: these are in the word, beside them.
    let more = (
        mr.as_ptr(),
        mr.as_slice_until(past()).unwrap(),
        mr.as_slice_with(|| ()),
    );
    biased(6);
    drop(forms);
    biased(3);
    let slice = mr.get(..8).unwrap();
    let guard = slice.as_slice();
    drop(more);
    biased(1);
    drop(guard);
    biased(0);
}

#[test]
fn a_guard_may_be_dropped_on_another_thread() {
    let mr = biased();
    let guards: Vec<_> = (0..=PLACES).map(|_| mr.as_slice()).collect();
    thread::scope(|scope| scope.spawn(|| drop(guards)).join().unwrap());
    assert!(mr.state().is_free() && mr.state().biased);
    assert!(mr.try_begin_write().is_ok());
}

#[test]
fn an_exclusive_side_waits_for_published_readers_parked_and_as_a_future() {
    for future in [false, true] {
        let mr = biased();
        let guard = mr.as_slice();
        thread::scope(|scope| {
            let waits = scope.spawn(|| match future {
                false => drop(mr.begin_write().unwrap()),
                true => drop(futures_lite::future::block_on(mr.begin_write_async()).unwrap()),
            });
            while !mr.state().waiting_exclusive {
                thread::yield_now();
            }
            assert_eq!(mr.state().cpu_readers, 1);
            drop(guard);
            waits.join().unwrap();
        });
        assert!(mr.state().is_free());
    }
}

#[test]
fn r9_a_published_guard_that_is_forgotten_leaks_and_wedges_nobody_else() {
    let pair = Pair::stepped();
    let alloc = || {
        let options = options(Duration::ZERO);
        options.alloc(&pair.pd, 64).unwrap()
    };
    let mut mr = alloc();
    mem::forget(mr.as_slice());
    assert_eq!(mr.state().cpu_readers, 1);
    assert!(mr.try_as_mut_slice().is_none() && mr.split_off(8).is_err());
    drop(mr);
    // Were the region's place used again, its ghost would keep the next one from being written.
    for _ in 0..100 {
        let mr = alloc();
        drop((mr.as_slice(), mr.try_as_slice()));
        assert!(mr.try_begin_write().is_ok());
    }
    // A gate by itself takes its ghosts along.
    let gate = Box::new(Gate::new().with_read_bias(ReadBias::default()));
    mem::forget(gate.acquire(Holder::CpuRead));
    assert!(gate.try_acquire(Holder::CpuWrite).is_err());
    let at = std::ptr::from_ref(&*gate);
    drop(gate);
    let again = Box::new(Gate::new().with_read_bias(ReadBias::default()));
    // The allocator gives the same place, as a rule.
    assert!(
        again.try_acquire(Holder::CpuWrite).is_ok(),
        "{at:p} {again:p}"
    );
}

#[test]
fn the_bias_ends_with_an_exclusive_hold_and_comes_back_after_a_quiet_time() {
    let quiet = Duration::from_millis(20);
    let mr = options(quiet).alloc(&Pair::stepped().pd, 64).unwrap();
    drop(mr.begin_write().unwrap());
    let written = Instant::now();
    assert!(!mr.state().biased);
    let reads = (0..).take_while(|_| {
        drop(mr.as_slice());
        !mr.state().biased
    });
    assert!(reads.count() > 64);
    assert!(written.elapsed() >= quiet);
    assert!(mr.try_begin_write().is_ok());
    assert!(!mr.state().biased);
    // To end a bias is not to wait: nobody was in the way.
    assert_eq!(mr.waits(), 0);
    let fresh = biased();
    drop(fresh.begin_write().unwrap());
    assert_eq!(fresh.waits(), 0);
}

#[test]
fn a_ring_is_never_biased() {
    let mr = options(Duration::from_secs(1))
        .alloc(&Pair::stepped().pd, 64)
        .unwrap();
    drop(mr.begin_write().unwrap());
    // Reads without end, but for an exclusive hold in between, now and then.
    for _ in 0..1000 {
        drop(mr.begin_write().unwrap());
        for _ in 0..1000 {
            drop(mr.as_slice());
        }
        assert!(!mr.state().biased);
    }
}

#[test]
fn parts_and_slots_are_biased_each_by_itself() {
    let mut mr = biased();
    let tail = mr.split_off(32).unwrap();
    assert!(tail.state().biased);
    drop(tail.begin_write().unwrap());
    assert!(mr.state().biased && !tail.state().biased);
    let size = PoolOptions {
        slot_length: 64,
        slots_per_registration: 2,
        max_registrations: 1,
    };
    let pool = options(Duration::ZERO)
        .pool(&Pair::stepped().pd, size)
        .unwrap();
    assert!(pool.take().unwrap().state().biased);
}

#[test]
fn biased_readers_allocate_nothing() {
    for barrier in [gate::Barrier::Fence, gate::Barrier::Membarrier] {
        let bias = ReadBias {
            barrier,
            quiet: Duration::ZERO,
        };
        let options = MrOptions::new().read_bias(bias);
        let mr = options.alloc(&Pair::stepped().pd, 64).unwrap();
        drop(mr.as_slice());
        assert_allocates_nothing(|| {
            drop(mr.as_slice());
            let moved = mr.as_slice();
            assert!(mr.begin_write_until(Instant::now()).is_err());
            drop(moved);
            drop(mr.try_begin_write().unwrap());
            drop(mr.as_slice());
            assert!(mr.state().biased);
        });
    }
}
