//! What the gate promises, on real threads. The orderings are the models' matter (loom_tests/).

use std::cell::UnsafeCell;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Poll, Waker};

use futures_lite::future::block_on;

use super::*;
use crate::error::Error;

const ALL: [Holder; 4] = [
    Holder::CpuRead,
    Holder::NicRead,
    Holder::CpuWrite,
    Holder::NicWrite,
];
const SOON: Duration = Duration::from_secs(20);

fn parked_at(gate: &Gate, holder: Holder) {
    let end = Instant::now() + SOON;
    let marked = |s: Snapshot| {
        if holder.is_shared() {
            s.waiting_shared
        } else {
            s.waiting_exclusive
        }
    };
    while !marked(gate.state()) {
        assert!(Instant::now() < end, "nobody parked: {gate:?}");
        std::thread::yield_now();
    }
}

#[test]
fn shared_holders_share_and_exclusive_ones_do_not() {
    for inside in ALL {
        for wants in ALL {
            let gate = Gate::new();
            let held = gate.try_acquire(inside).unwrap();
            let both = gate.try_acquire(wants).is_ok();
            assert_eq!(both, inside.is_shared() && wants.is_shared());
            drop(held);
            assert!(gate.state().is_free());
            assert!(gate.try_acquire(wants).is_ok());
        }
    }
}

#[test]
fn threads_of_every_kind_never_meet_an_exclusive_one() {
    struct Shared {
        gate: Gate,
        value: UnsafeCell<u64>,
    }
    // SAFETY: GATE-1: `value` is only touched under a hold of the gate.
    unsafe impl Sync for Shared {}

    let patience = Patience {
        spin: Duration::from_nanos(500),
        stand_back: Duration::from_micros(50),
    };
    let shared = Shared {
        gate: Gate::with_patience(patience),
        value: UnsafeCell::new(0),
    };
    let rounds = if cfg!(miri) { 8 } else { 3_000 };
    std::thread::scope(|scope| {
        for holder in ALL.into_iter().chain(ALL) {
            let shared = &shared;
            scope.spawn(move || {
                for round in 0..rounds {
                    let hold = match round % 4 {
                        0 => block_on(shared.gate.acquire_async(holder)),
                        1 => shared.gate.acquire_with(holder, || {}),
                        2 => shared.gate.acquire_until(holder, Instant::now() + SOON),
                        _ => shared.gate.acquire(holder),
                    };
                    let hold = hold.unwrap();
                    let at = shared.value.get();
                    // SAFETY: GATE-1: `hold` is of the kind that the access needs.
                    unsafe {
                        if holder.is_shared() {
                            let first = at.read_volatile();
                            std::hint::spin_loop();
                            assert_eq!(first, at.read_volatile());
                        } else {
                            at.write_volatile(at.read_volatile() + 1);
                        }
                    }
                    drop(hold);
                }
            });
        }
    });
    assert_eq!(shared.value.into_inner(), 4 * rounds);
    assert!(shared.gate.state().is_free());
    assert!(!shared.gate.state().pending);
}

#[test]
fn a_parked_waiter_of_every_kind_is_woken() {
    for holder in ALL {
        let gate = Gate::new();
        let held = gate.try_acquire(Holder::NicWrite).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.acquire(holder).map(|_| ()));
            parked_at(&gate, holder);
            assert!(!waiter.is_finished());
            drop(held);
            waiter.join().unwrap().unwrap();
        });
        assert!(gate.state().is_free());
        assert_eq!(gate.waits(), 1);
    }
}

#[test]
fn an_exclusive_waiter_is_woken_by_the_last_of_the_shared_holders() {
    let gate = Gate::new();
    let first = gate.acquire(Holder::CpuRead).unwrap();
    let last = gate.acquire(Holder::NicRead).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| gate.acquire(Holder::NicWrite).map(|_| ()));
        parked_at(&gate, Holder::NicWrite);
        drop(first);
        assert!(!waiter.is_finished());
        drop(last);
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_deadline_that_passes_says_who_held_it_and_leaves_no_trace() {
    let gate = Gate::new();
    let held = gate.acquire(Holder::CpuRead).unwrap();
    let start = Instant::now();
    let limit = Duration::from_millis(20);
    let error = gate
        .acquire_until(Holder::CpuWrite, start + limit)
        .unwrap_err();
    assert!(start.elapsed() >= limit);
    assert!(
        matches!(error, Error::Deadline { state } if state.cpu_readers == 1),
        "{error}"
    );
    let state = gate.state();
    assert!(!state.pending && !state.waiting_exclusive, "{state:?}");
    drop(held);
    assert!(gate.try_acquire(Holder::CpuWrite).is_ok());
}

#[test]
fn progress_is_driven_by_who_waits() {
    let gate = Gate::new();
    let mut held = Some(gate.acquire(Holder::NicWrite).unwrap());
    let mut calls = 0;
    let permit = gate.acquire_with(Holder::CpuRead, || {
        calls += 1;
        if calls == 100 {
            held.take();
        }
    });
    assert!(permit.is_ok());
    assert_eq!(calls, 100);
}

#[test]
fn a_reader_that_reads_again_does_not_wait_for_the_writer_that_waits_for_it() {
    let gate = Gate::new();
    let outer = gate.acquire(Holder::CpuRead).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| gate.acquire(Holder::CpuWrite).map(|_| ()));
        parked_at(&gate, Holder::CpuWrite);
        assert!(gate.state().pending);
        assert!(gate.try_acquire(Holder::CpuRead).is_err());
        let start = Instant::now();
        let inner = gate.acquire(Holder::CpuRead).unwrap();
        assert!(start.elapsed() < SOON);
        let third = block_on(gate.acquire_async(Holder::CpuRead)).unwrap();
        drop((outer, inner, third));
        writer.join().unwrap().unwrap();
    });
}

#[test]
fn a_writer_gets_in_between_readers_whose_holds_overlap_for_ever() {
    let gate = Gate::new();
    let stop = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let hold = gate.acquire(Holder::CpuRead).unwrap();
                    std::thread::sleep(Duration::from_micros(100));
                    drop(hold);
                    reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        for _ in 0..20 {
            let end = Instant::now() + SOON;
            let got = gate.acquire_until(Holder::CpuWrite, end);
            stop.store(got.is_err(), std::sync::atomic::Ordering::Relaxed);
            assert!(got.is_ok(), "the writer starved");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_future_that_is_dropped_or_forgotten_abandons_its_wish_and_nothing_else() {
    let mut cx = Context::from_waker(Waker::noop());
    for forget in [false, true] {
        for holder in ALL {
            let gate = Gate::new();
            let inside = if holder.is_shared() {
                Holder::NicWrite
            } else {
                Holder::CpuRead
            };
            let held = gate.acquire(inside).unwrap();
            let mut future = Box::pin(gate.acquire_async(holder));
            assert!(matches!(future.as_mut().poll(&mut cx), Poll::Pending));
            if forget {
                std::mem::forget(future);
            } else {
                drop(future);
                assert!(!gate.state().waiting_exclusive && !gate.state().pending);
            }
            drop(held);
            for next in ALL {
                assert!(
                    gate.try_acquire(next).is_ok(),
                    "{forget} {holder:?} {next:?}"
                );
                assert!(gate.acquire(next).is_ok());
            }
        }
    }
}

#[test]
fn futures_are_woken() {
    for holder in ALL {
        let gate = Gate::new();
        let held = gate.acquire(Holder::CpuWrite).unwrap();
        let mut future = pin!(gate.acquire_async(holder));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        std::thread::scope(|scope| {
            scope.spawn(move || drop(held));
            drop(block_on(future).unwrap());
        });
    }
}

#[test]
fn a_closed_gate_refuses_the_nic_and_lets_the_cpu_in() {
    let gate = Gate::new();
    let held = gate.acquire(Holder::CpuWrite).unwrap();
    std::thread::scope(|scope| {
        for holder in [Holder::NicRead, Holder::NicWrite] {
            let waiter = scope.spawn({
                let gate = &gate;
                move || gate.acquire(holder).map(|_| ())
            });
            parked_at(&gate, holder);
            drop(waiter);
        }
        let waiting = scope.spawn(|| gate.acquire(Holder::NicRead).map(|_| ()));
        gate.close();
        assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
    });
    drop(held);
    assert!(gate.state().closed);
    for holder in ALL {
        match gate.try_acquire(holder) {
            Ok(permit) => assert!(!permit.holder().is_nic()),
            Err(error) => assert!(holder.is_nic() && matches!(error, Error::Closed)),
        };
    }
}

#[test]
fn an_orphan_is_freed_by_exactly_one() {
    for holds in 0..3 {
        let gate = Gate::new();
        let out: Vec<_> = (0..holds)
            .map(|_| std::mem::ManuallyDrop::new(gate.acquire(Holder::NicRead).unwrap()))
            .collect();
        // SAFETY: GATE-2: nobody acquires the gate from here on.
        let mut freed = usize::from(unsafe { Gate::orphan(&gate) });
        for _ in out {
            // SAFETY: GATE-1: one of the holds above, whose permit gives nothing back itself.
            freed += usize::from(unsafe { Gate::release(&gate, Kind::NicRead) });
        }
        assert_eq!(freed, 1);
    }
}

#[test]
fn a_count_that_would_overflow_panics_before_any_damage() {
    let gate = Gate::new();
    let full = Word::MAX_COUNT * Word::READER;
    gate.word.store(full, Ordering::Relaxed);
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        gate.try_acquire(Holder::CpuRead).map(|_| ())
    }))
    .unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.contains("forgotten"), "{text}");
    assert_eq!(gate.word.load(Ordering::Relaxed), full);
    assert!(gate.try_acquire(Holder::NicRead).is_ok());
}
