//! Models of the gate: what it protects is handed on whole, nobody sleeps for ever, an orphan is
//! freed once. The gate is the crate's own, over loom's atomics; the bytes are loom's `UnsafeCell`,
//! and the NIC is a thread whose post and completion are the acquisition and the release.
#![cfg(not(crossbeam_loom))]

use std::sync::atomic::Ordering::Relaxed;

use crate::common::{Bytes, Registrar, exhaust, explore};
use loom::sync::Arc;
use loom::thread;
use rdma_mr::gate::{Gate, Holder, Patience};
use rdma_mr::registration::StableMemory;

/// A gate whose waiters park at once: a spin gives the others a turn, and hides the races of parking.
fn gate() -> Gate {
    Gate::with_patience(Patience {
        spin: std::time::Duration::ZERO,
        ..Patience::default()
    })
}

/// A gate whose waiters spin, for as long as one look takes: exclusive sides go ahead of readers.
fn gate_with_spins() -> Gate {
    Gate::new()
}

/// What a reader sees is all of what the NIC wrote, or nothing of it.
/// Shows: GUARD-1, GATE-1.
#[test]
fn a_reader_sees_a_nic_write_whole() {
    exhaust("a_reader_sees_a_nic_write_whole", 3, 40, || {
        let shared = Arc::new((gate(), Bytes::new()));
        let nic = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let in_flight = shared.0.acquire(Holder::NicWrite).unwrap();
                shared.1.write(7);
                drop(in_flight);
            }
        });
        let guard = shared.0.acquire(Holder::CpuRead).unwrap();
        let seen = shared.1.read();
        assert!(seen == 0 || seen == 7);
        drop(guard);
        nic.join().unwrap();
        let _guard = shared.0.try_acquire(Holder::CpuRead).unwrap();
        assert_eq!(shared.1.read(), 7);
    });
}

/// `try` never waits, and what it lets in is as safe as what waits.
/// Shows: GUARD-1.
#[test]
fn a_try_that_succeeds_sees_the_write_whole() {
    exhaust("a_try_that_succeeds_sees_the_write_whole", 3, 20, || {
        let shared = Arc::new((gate(), Bytes::new()));
        let nic = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                if let Ok(in_flight) = shared.0.try_acquire(Holder::NicWrite) {
                    shared.1.write(7);
                    drop(in_flight);
                }
            }
        });
        if let Ok(_guard) = shared.0.try_acquire(Holder::CpuRead) {
            shared.1.read();
        }
        nic.join().unwrap();
        assert!(shared.0.state().is_free());
    });
}

/// Two exclusive sides and a reader: none of them ever meets another's half-done work.
/// Shows: GUARD-1, GUARD-2, GATE-1.
#[test]
fn exclusive_sides_and_a_reader_exclude_each_other() {
    explore(
        "exclusive_sides_and_a_reader_exclude_each_other",
        3,
        500,
        || {
            let shared = Arc::new((gate(), Bytes::new()));
            let sides: Vec<_> = [Holder::CpuWrite, Holder::CpuRead]
                .into_iter()
                .map(|holder| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        let permit = shared.0.acquire(holder).unwrap();
                        if holder.is_shared() {
                            shared.1.read();
                        } else {
                            shared.1.add(1);
                        }
                        drop(permit);
                    })
                })
                .collect();
            let in_flight = shared.0.acquire(Holder::NicWrite).unwrap();
            shared.1.add(1);
            drop(in_flight);
            for side in sides {
                side.join().unwrap();
            }
            let _guard = shared.0.try_acquire(Holder::CpuRead).unwrap();
            assert_eq!(shared.1.read(), 2);
        },
    );
}

/// What readers read is over before the NIC writes: the releases of shared holders are seen.
/// Shows: GUARD-1, GATE-1.
#[test]
fn a_nic_write_comes_after_the_last_reader() {
    explore("a_nic_write_comes_after_the_last_reader", 3, 100, || {
        let shared = Arc::new((gate(), Bytes::new()));
        let readers: Vec<_> = [Holder::CpuRead, Holder::NicRead]
            .into_iter()
            .map(|holder| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    if let Ok(_guard) = shared.0.try_acquire(holder) {
                        shared.1.read();
                    }
                })
            })
            .collect();
        let in_flight = shared.0.acquire(Holder::NicWrite).unwrap();
        shared.1.write(1);
        drop(in_flight);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A thread that parks is woken, whichever way the release and the parking interleave. A wake-up
/// that is lost leaves loom with no thread that can run, which it reports as a deadlock.
#[test]
fn no_wake_up_of_a_thread_is_lost() {
    for (inside, waits) in [
        (Holder::NicWrite, Holder::CpuRead),
        (Holder::NicRead, Holder::CpuWrite),
        (Holder::CpuWrite, Holder::NicWrite),
    ] {
        exhaust("no_wake_up_of_a_thread_is_lost", 3, 20, move || {
            let gate = Arc::new(gate());
            let held = gate.try_acquire(inside).unwrap();
            let waiter = thread::spawn({
                let gate = Arc::clone(&gate);
                move || drop(gate.acquire(waits).unwrap())
            });
            drop(held);
            waiter.join().unwrap();
            assert!(gate.state().is_free());
        });
    }
}

/// The same of a future and its waker.
#[test]
fn no_wake_up_of_a_future_is_lost() {
    for (inside, waits) in [
        (Holder::NicWrite, Holder::CpuRead),
        (Holder::CpuRead, Holder::NicWrite),
    ] {
        exhaust("no_wake_up_of_a_future_is_lost", 3, 20, move || {
            let gate = Arc::new(gate());
            let held = gate.try_acquire(inside).unwrap();
            let waiter = thread::spawn({
                let gate = Arc::clone(&gate);
                move || drop(loom::future::block_on(gate.acquire_async(waits)).unwrap())
            });
            drop(held);
            waiter.join().unwrap();
            assert!(gate.state().is_free());
        });
    }
}

/// One who gives up (a dropped future) leaves the others able to get in.
#[test]
fn one_who_gives_up_takes_no_wake_up_along() {
    use std::future::Future;
    use std::task::{Context, Waker};

    explore("one_who_gives_up_takes_no_wake_up_along", 3, 20, || {
        let gate = Arc::new(gate());
        let held = gate.try_acquire(Holder::NicRead).unwrap();
        let waiter = thread::spawn({
            let gate = Arc::clone(&gate);
            move || drop(gate.acquire(Holder::NicWrite).unwrap())
        });
        let mut future = Box::pin(gate.acquire_async(Holder::CpuWrite));
        let _ = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        drop(held);
        drop(future);
        waiter.join().unwrap();
        assert!(gate.state().is_free());
    });
}

/// A thread that holds a guard and asks for another gets it although a writer waits for the first.
#[test]
fn a_second_guard_does_not_wait_for_a_writer_that_waits_for_the_first() {
    let name = "a_second_guard_does_not_wait_for_a_writer_that_waits_for_the_first";
    exhaust(name, 3, 20, || {
        let gate = Arc::new(gate());
        let first = gate.try_acquire(Holder::CpuRead).unwrap();
        let writer = thread::spawn({
            let gate = Arc::clone(&gate);
            move || drop(gate.acquire(Holder::NicWrite).unwrap())
        });
        let second = gate.acquire(Holder::CpuRead).unwrap();
        drop((first, second));
        writer.join().unwrap();
    });
}

/// A writer that waits is not starved by readers who come anew: from when they can see that it asks to
/// stand back, those who would not wait are refused, and those who wait let it pass first.
#[test]
fn new_readers_stand_back_for_a_writer_that_waits() {
    exhaust(
        "new_readers_stand_back_for_a_writer_that_waits",
        3,
        20,
        || {
            let gate = Arc::new(gate());
            let first = gate.try_acquire(Holder::CpuRead).unwrap();
            let writer = thread::spawn({
                let gate = Arc::clone(&gate);
                move || drop(gate.acquire(Holder::CpuWrite).unwrap())
            });
            let reader = thread::spawn({
                let gate = Arc::clone(&gate);
                move || {
                    let asked = gate.state().pending;
                    let second = gate.try_acquire(Holder::CpuRead);
                    // The writer may be in, and gone, between the two looks: then nobody asks any more.
                    assert!(!asked || second.is_err() || !gate.state().pending);
                }
            });
            reader.join().unwrap();
            drop(first);
            writer.join().unwrap();
        },
    );
}

/// Memory whose end is a write to bytes that loom watches: whoever frees it has to be the last.
struct Watched {
    memory: Vec<u8>,
    bytes: std::sync::Arc<Bytes>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.bytes.write(1);
    }
}

// SAFETY: MEM-1 to MEM-4, as the Vec that it consists of.
unsafe impl StableMemory for Watched {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }

    fn length(&self) -> usize {
        self.memory.len()
    }
}

/// A region whose handle is dropped is freed by exactly one: the handle or the last hold; and what
/// the handle and each holder did comes before.
/// Shows: GATE-2, REGION-5, REGION-7.
#[test]
fn an_orphan_is_freed_once_and_after_the_last_hold() {
    use rdma_mr::op::{Begin, Hold};
    use rdma_mr::{LocalMr, LocalMrReadAccess};

    exhaust(
        "an_orphan_is_freed_once_and_after_the_last_hold",
        3,
        10,
        || {
            let registrar = Registrar::new();
            let bytes = std::sync::Arc::new(Bytes::new());
            let memory = Watched {
                memory: vec![0; 8],
                bytes: std::sync::Arc::clone(&bytes),
            };
            let mr = LocalMr::register(&registrar, memory).unwrap();
            let holds: Vec<Hold> = (0..2).map(|_| mr.begin_read().unwrap()).collect();
            let threads: Vec<_> = holds
                .into_iter()
                .map(|hold| {
                    let registrar = std::sync::Arc::clone(&registrar);
                    let bytes = std::sync::Arc::clone(&bytes);
                    thread::spawn(move || {
                        bytes.read();
                        assert_eq!(registrar.ended.load(Relaxed), 0);
                        // The way of a hold through a work request.
                        let wr_id = hold.into_wr_id();
                        // SAFETY: WRID-1 to WRID-3: made just above, and no work request was posted.
                        drop(unsafe { Hold::from_wr_id(wr_id) });
                    })
                })
                .collect();
            assert!(mr.is_readable());
            bytes.read();
            drop(mr);
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(registrar.ended.load(Relaxed), 1);
        },
    );
}

/// An exclusive side that goes ahead of readers is in when they have left, or takes its bit off again.
/// Shows: GUARD-1, GATE-1.
#[test]
fn who_goes_ahead_of_a_reader_is_in_after_it() {
    exhaust("who_goes_ahead_of_a_reader_is_in_after_it", 3, 50, || {
        let shared = Arc::new((gate_with_spins(), Bytes::new()));
        let nic = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let in_flight = shared.0.acquire(Holder::NicWrite).unwrap();
                shared.1.write(7);
                drop(in_flight);
            }
        });
        let guard = shared.0.acquire(Holder::CpuRead).unwrap();
        let first = shared.1.read();
        drop(guard);
        let guard = shared.0.acquire(Holder::CpuRead).unwrap();
        assert!(first == 0 || shared.1.read() == 7);
        drop(guard);
        nic.join().unwrap();
        assert!(shared.0.state().is_free());
    });
}

/// And a reader that asks for a second guard meanwhile has it.
/// Shows: GUARD-1, GATE-1.
#[test]
fn who_goes_ahead_of_a_reader_lets_it_have_a_second_guard() {
    explore(
        "who_goes_ahead_of_a_reader_lets_it_have_a_second_guard",
        3,
        200,
        || {
            let shared = Arc::new((gate_with_spins(), Bytes::new()));
            let nic = thread::spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let in_flight = shared.0.acquire(Holder::NicWrite).unwrap();
                    shared.1.write(7);
                    drop(in_flight);
                }
            });
            {
                let _first = shared.0.acquire(Holder::CpuRead).unwrap();
                let seen = shared.1.read();
                let _second = shared.0.acquire(Holder::CpuRead).unwrap();
                assert_eq!(shared.1.read(), seen);
            }
            nic.join().unwrap();
            assert!(shared.0.state().is_free());
        },
    );
}
