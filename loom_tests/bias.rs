//! Models of read bias: published readers and exclusive sides exclude each other, a reader that is moved
//! into the word gives its count back once, nobody sleeps for ever. Membarrier is a fence on both sides
//! here (AX-8).
#![cfg(not(crossbeam_loom))]

use std::mem;
use std::time::Duration;

use crate::common::{Bytes, exhaust, explore, leak};
use loom::sync::Arc;
use loom::thread;
use rdma_mr::gate::{Barrier, Gate, Holder, Patience, ReadBias};

/// A biased gate whose waiters park at once, and which is biased again by its first counted reader.
fn gate(barrier: Barrier) -> Gate {
    let gate = Gate::with_patience(Patience {
        spin: Duration::ZERO,
        ..Patience::default()
    });
    biased(gate, barrier)
}

fn biased(gate: Gate, barrier: Barrier) -> Gate {
    gate.with_read_bias(ReadBias {
        quiet: Duration::ZERO,
        barrier,
    })
}

type Shared = Arc<(Gate, Bytes)>;

fn shared(barrier: Barrier) -> Shared {
    Arc::new((gate(barrier), Bytes::new()))
}

/// As [`shared`], but that waiters spin, for as long as one look takes: exclusive sides go ahead of readers.
fn spinning() -> Shared {
    Arc::new((biased(Gate::new(), Barrier::Fence), Bytes::new()))
}

fn spawn(shared: &Shared, run: impl FnOnce(&Gate, &Bytes) + 'static) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || run(&shared.0, &shared.1))
}

fn read(gate: &Gate, bytes: &Bytes) -> u64 {
    let _guard = gate.acquire(Holder::CpuRead).unwrap();
    bytes.read()
}

fn write(gate: &Gate, bytes: &Bytes) {
    let _in_flight = gate.acquire(Holder::NicWrite).unwrap();
    bytes.add(1);
}

/// A reader that is published and a NIC write: also the second read, which comes while the bias is off, or
/// on again, and the second write.
/// Shows: GUARD-1, GATE-1.
#[test]
fn published_readers_and_a_write_exclude_each_other() {
    exhaust(
        "published_readers_and_a_write_exclude_each_other",
        3,
        500,
        || {
            let shared = shared(Barrier::Fence);
            let nic = spawn(&shared, |gate, bytes| {
                write(gate, bytes);
            });
            let before = read(&shared.0, &shared.1);
            assert!(before <= read(&shared.0, &shared.1));
            nic.join().unwrap();
            write(&shared.0, &shared.1);
            assert_eq!(read(&shared.0, &shared.1), 2);
        },
    );
}

/// The same where the exclusive side pays for the order.
/// Shows: GUARD-1, GATE-1.
#[test]
fn published_readers_and_a_write_by_membarrier_exclude_each_other() {
    exhaust(
        "published_readers_and_a_write_by_membarrier_exclude_each_other",
        3,
        500,
        || {
            let shared = shared(Barrier::Membarrier);
            let nic = spawn(&shared, write);
            let before = read(&shared.0, &shared.1);
            assert!(before <= read(&shared.0, &shared.1));
            nic.join().unwrap();
        },
    );
}

/// A try never waits, neither for the word nor for the slots; what it lets in is as safe as what waits, and
/// what it does not is left as it was.
/// Shows: GUARD-1.
#[test]
fn a_try_leaves_published_readers_alone() {
    exhaust("a_try_leaves_published_readers_alone", 3, 100, || {
        let shared = shared(Barrier::Fence);
        let reader = spawn(&shared, |gate, bytes| {
            if let Ok(_guard) = gate.try_acquire(Holder::CpuRead) {
                bytes.read();
            }
        });
        if let Ok(_in_flight) = shared.0.try_acquire(Holder::NicWrite) {
            bytes_of(&shared).write(7);
        }
        reader.join().unwrap();
        assert!(shared.0.state().is_free());
        assert!(shared.0.try_acquire(Holder::CpuWrite).is_ok());
    });
}

fn bytes_of(shared: &Shared) -> &Bytes {
    &shared.1
}

/// Two readers, on a thread each, and an exclusive side, which finds one in, or both, or moves them.
/// Shows: GUARD-1, GATE-1.
#[test]
fn readers_with_a_slot_each_and_a_write_exclude_each_other() {
    explore(
        "readers_with_a_slot_each_and_a_write_exclude_each_other",
        2,
        1000,
        || {
            let shared = shared(Barrier::Fence);
            let nic = spawn(&shared, write);
            let reader = spawn(&shared, |gate, bytes| {
                read(gate, bytes);
            });
            read(&shared.0, &shared.1);
            nic.join().unwrap();
            reader.join().unwrap();
            assert!(shared.0.state().is_free());
            assert_eq!(read(&shared.0, &shared.1), 1);
        },
    );
}

fn two_exclusive_sides_and_a_reader(shared: &Shared) {
    let nic = spawn(shared, write);
    let cpu = spawn(shared, |gate, bytes| {
        let _guard = gate.acquire(Holder::CpuWrite).unwrap();
        bytes.add(1);
    });
    read(&shared.0, &shared.1);
    nic.join().unwrap();
    cpu.join().unwrap();
    assert_eq!(read(&shared.0, &shared.1), 2);
}

/// Two exclusive sides and a reader.
/// Shows: GUARD-1, GUARD-2, GATE-1.
#[test]
fn exclusive_sides_and_a_published_reader_exclude_each_other() {
    explore(
        "exclusive_sides_and_a_published_reader_exclude_each_other",
        2,
        1000,
        || {
            two_exclusive_sides_and_a_reader(&shared(Barrier::Fence));
        },
    );
}

/// The same where they spin, and one goes ahead of a reader that is counted by then.
/// Shows: GUARD-1, GUARD-2, GATE-1.
#[test]
fn exclusive_sides_that_spin_and_readers_exclude_each_other() {
    explore(
        "exclusive_sides_that_spin_and_readers_exclude_each_other",
        2,
        1000,
        || {
            two_exclusive_sides_and_a_reader(&spinning());
        },
    );
}

/// Two readers, one of them with a guard that is counted beside the published one, and an exclusive side that spins.
/// Shows: GUARD-1, GATE-1.
#[test]
fn readers_on_two_threads_and_a_write_that_spins_exclude_each_other() {
    explore(
        "readers_on_two_threads_and_a_write_that_spins_exclude_each_other",
        2,
        1000,
        || {
            let shared = spinning();
            let nic = spawn(&shared, write);
            let reader = spawn(&shared, |gate, bytes| {
                let _first = gate.acquire(Holder::CpuRead).unwrap();
                let seen = bytes.read();
                let _second = gate.acquire(Holder::CpuRead).unwrap();
                assert_eq!(bytes.read(), seen);
            });
            read(&shared.0, &shared.1);
            nic.join().unwrap();
            reader.join().unwrap();
            assert!(shared.0.state().is_free());
            assert_eq!(read(&shared.0, &shared.1), 1);
        },
    );
}

/// A thread that wants in parks, and is woken by a reader that was published when it came.
#[test]
fn a_moved_reader_wakes_a_thread() {
    exhaust("a_moved_reader_wakes_a_thread", 3, 50, || {
        let shared = shared(Barrier::Fence);
        let guard = shared.0.acquire(Holder::CpuRead).unwrap();
        let nic = spawn(&shared, write);
        shared.1.read();
        drop(guard);
        nic.join().unwrap();
        assert!(shared.0.state().is_free());
    });
}

/// The same of a future.
#[test]
fn a_moved_reader_wakes_a_future() {
    exhaust("a_moved_reader_wakes_a_future", 3, 50, || {
        let shared = shared(Barrier::Fence);
        let guard = shared.0.acquire(Holder::CpuRead).unwrap();
        let nic = spawn(&shared, |gate, bytes| {
            let _in_flight = loom::future::block_on(gate.acquire_async(Holder::NicWrite)).unwrap();
            bytes.add(1);
        });
        shared.1.read();
        drop(guard);
        nic.join().unwrap();
        assert!(shared.0.state().is_free());
    });
}

/// A thread that holds a guard, published, and asks for another does not wait for a writer that waits for the
/// first.
#[test]
fn a_second_guard_does_not_wait_for_a_writer_that_moved_the_first() {
    explore(
        "a_second_guard_does_not_wait_for_a_writer_that_moved_the_first",
        3,
        100,
        || {
            let shared = shared(Barrier::Fence);
            let nic = spawn(&shared, write);
            {
                let _first = shared.0.acquire(Holder::CpuRead).unwrap();
                let _second = shared.0.acquire(Holder::CpuRead).unwrap();
                shared.1.read();
            }
            nic.join().unwrap();
            assert!(shared.0.state().is_free());
        },
    );
}

/// An exclusive side that spins goes ahead of a reader that is counted, and takes its bit off again: the one that is
/// published, and whom it has not come to, is a reader still when the counted one has left.
/// Shows: GUARD-1, GATE-1.
#[test]
fn who_went_ahead_of_a_counted_reader_leaves_the_published_one() {
    explore(
        "who_went_ahead_of_a_counted_reader_leaves_the_published_one",
        3,
        100,
        || {
            let shared = spinning();
            let nic = spawn(&shared, write);
            {
                let _published = shared.0.acquire(Holder::CpuRead).unwrap();
                let counted = shared.0.acquire(Holder::CpuRead).unwrap();
                let seen = shared.1.read();
                drop(counted);
                assert_eq!(shared.1.read(), seen);
            }
            nic.join().unwrap();
            assert!(shared.0.state().is_free());
        },
    );
}

/// A guard is dropped by another thread than the one in whose slot it is published, and that slot goes on
/// to a reader of another gate. Who writes the first one's bytes comes after the last of both.
/// Shows: GUARD-1, GATE-1.
#[test]
fn a_slot_goes_on_to_another_gate() {
    explore("a_slot_goes_on_to_another_gate", 3, 100, || {
        let first = &*leak((gate(Barrier::Fence), Bytes::new()));
        let second = &*leak(gate(Barrier::Fence));
        let guard = first.0.acquire(Holder::CpuRead).unwrap();
        let drops = thread::spawn(|| {
            first.1.read();
            drop(guard);
        });
        let nic = thread::spawn(|| {
            if let Ok(_in_flight) = first.0.try_acquire(Holder::NicWrite) {
                first.1.write(7);
            }
        });
        drop(second.acquire(Holder::CpuRead));
        nic.join().unwrap();
        drops.join().unwrap();
    });
}

/// A slot whose reader is moved by one gate while it goes on to another one, which moves it as well. That
/// both are at it at once takes three preemptions: `--full`.
#[test]
fn each_gate_settles_what_it_moved() {
    explore("each_gate_settles_what_it_moved", 2, 100, || {
        let gates: Arc<[(Gate, Bytes); 2]> = Arc::new(std::array::from_fn(|_| {
            (gate(Barrier::Fence), Bytes::new())
        }));
        let nics: Vec<_> = (0..2)
            .map(|at| {
                let gates = Arc::clone(&gates);
                thread::spawn(move || {
                    let (gate, bytes) = &gates[at];
                    write(gate, bytes);
                })
            })
            .collect();
        for (gate, bytes) in &*gates {
            read(gate, bytes);
        }
        for nic in nics {
            nic.join().unwrap();
        }
        assert!(gates.iter().all(|(gate, _)| gate.state().is_free()));
    });
}

/// A reader that was forgotten by a thread that has ended keeps its slot: who gets the line does not publish
/// over it.
#[test]
fn a_line_goes_on_with_what_is_published_in_it() {
    explore("a_line_goes_on_with_what_is_published_in_it", 2, 20, || {
        let shared = shared(Barrier::Fence);
        let other: Shared = self::shared(Barrier::Fence);
        // Both want the first line; the second one may have it after the first one's end.
        let forgets = spawn(&shared, |gate, _| {
            mem::forget(gate.acquire(Holder::CpuRead))
        });
        let reads = spawn(&other, |gate, bytes| {
            read(gate, bytes);
            read(gate, bytes);
        });
        forgets.join().unwrap();
        reads.join().unwrap();
        assert!(shared.0.try_acquire(Holder::NicWrite).is_err());
        assert_eq!(shared.0.state().cpu_readers, 1);
    });
}
