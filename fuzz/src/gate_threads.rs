//! The gate with several threads at it. Which of them is faster is chance, so what is found may take more than one try
//! to be found again; what must hold does so whoever is.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use rdma_mr::Error;
use rdma_mr::gate::{Gate, Holder, Permit};

use crate::gate_ops::{self, Kind};

/// How many threads.
const THREADS: usize = 3;

/// What each is told, at most: threads are slow, and what is to be found is in the first steps of each.
const STEPS: usize = 12;

/// How often they do it: a thread costs more than its steps.
const ROUNDS: usize = 32;

/// What each of the threads does.
#[derive(Arbitrary, Debug)]
pub struct Program {
    bias: Option<bool>,
    spins: bool,
    lanes: [Vec<Step>; THREADS],
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// Asks, and does not wait.
    Try(Kind),
    /// Waits for a short time.
    Until(Kind),
    /// Waits, if it has nothing that others may be waiting for.
    Wait(Kind),
    /// As that, calling something over and over.
    With(Kind),
    /// Gives back what it has.
    Release,
    /// Closes the gate.
    Close,
}

/// What the gate stands for.
struct Room {
    gate: Gate,
    /// Shared holders; -1 for an exclusive one.
    inside: AtomicI64,
    /// Equal, but while they are written by who has the room exclusively.
    bytes: [AtomicU64; 2],
}

impl Room {
    fn enter(&self, holder: Holder) {
        let [first, second] = &self.bytes;
        if holder.is_shared() {
            let before = self.inside.fetch_add(1, Ordering::Relaxed);
            assert!(before >= 0, "beside an exclusive holder");
            let (first, second) = (
                first.load(Ordering::Relaxed),
                second.load(Ordering::Relaxed),
            );
            assert_eq!(first, second, "seen before they were written");
        } else {
            let before = self.inside.swap(-1, Ordering::Relaxed);
            assert_eq!(before, 0, "not alone");
            let value = first.load(Ordering::Relaxed);
            assert_eq!(second.load(Ordering::Relaxed), value);
            first.store(value + 1, Ordering::Relaxed);
            second.store(value + 1, Ordering::Relaxed);
        }
    }

    fn leave(&self, permit: Permit<'_>) {
        let alone = if permit.holder().is_shared() { 1 } else { -1 };
        let before = self.inside.fetch_sub(alone, Ordering::Relaxed);
        assert!(before * alone > 0);
        drop(permit);
    }
}

fn thread(room: &Room, steps: &[Step]) {
    let steps = &steps[..steps.len().min(STEPS)];
    for number in 1..=ROUNDS {
        round(room, steps, number == ROUNDS);
    }
}

fn round(room: &Room, steps: &[Step], last: bool) {
    let mut held: Option<Permit<'_>> = None;
    for step in steps {
        let (kind, got) = match *step {
            Step::Release => {
                held.take()
                    .into_iter()
                    .for_each(|permit| room.leave(permit));
                continue;
            }
            Step::Close => {
                if last {
                    room.gate.close();
                }
                continue;
            }
            // One permit at a time, so that nobody waits for ever.
            _ if held.is_some() => continue,
            Step::Try(kind) => (kind, room.gate.try_acquire(kind.into())),
            Step::Until(kind) => {
                let deadline = Instant::now() + Duration::from_micros(20);
                (kind, room.gate.acquire_until(kind.into(), deadline))
            }
            Step::Wait(kind) => (kind, room.gate.acquire(kind.into())),
            Step::With(kind) => {
                let got = room.gate.acquire_with(kind.into(), std::thread::yield_now);
                (kind, got)
            }
        };
        match got {
            Ok(permit) => {
                room.enter(kind.into());
                held = Some(permit);
            }
            Err(Error::Closed) => assert!(Holder::from(kind).is_nic()),
            Err(Error::Held { .. } | Error::Deadline { .. }) => {
                assert!(matches!(step, Step::Try(_) | Step::Until(_)));
            }
            Err(error) => panic!("{error}"),
        }
    }
    held.into_iter().for_each(|permit| room.leave(permit));
}

/// Carries it out.
///
/// # Panics
/// If one is in who should not be, or something is left behind.
pub fn run(program: Program) {
    let Program { bias, spins, lanes } = program;
    let room = Room {
        gate: gate_ops::gate(bias, spins),
        inside: AtomicI64::new(0),
        bytes: [AtomicU64::new(0), AtomicU64::new(0)],
    };
    std::thread::scope(|scope| {
        let [mine, others @ ..] = &lanes;
        let others = others
            .each_ref()
            .map(|lane| scope.spawn(|| thread(&room, lane)));
        thread(&room, mine);
        // Until they have ended altogether, with all that they had.
        for other in others {
            other.join().expect("a panic ends the process");
        }
    });
    let state = room.gate.state();
    assert!(state.is_free(), "{state}");
    let permit = room.gate.try_acquire(Holder::CpuWrite);
    assert!(permit.is_ok(), "{state}");
}
