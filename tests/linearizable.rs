//! Small histories of `try_acquire`, `acquire` and releases by up to three threads: each has an order, one call after the
//! other, in which a gate that is nothing but a count and a flag gives the same answers.
#![cfg(all(feature = "soft", not(loom)))]

mod history;

use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use history::{Ask, Call, Kind, is_linearizable};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rdma_mr::gate::{Gate, Holder, Patience, Permit, ReadBias};

/// Calls of one thread, its last release besides.
const CALLS: usize = 3;
/// Runs of each program: its threads meet differently each time.
const RUNS: usize = 10;

/// What a gate is to a program.
trait Subject: Sync {
    type Hold<'a>
    where
        Self: 'a;

    fn try_enter(&self, kind: Kind) -> Option<Self::Hold<'_>>;
    fn enter(&self, kind: Kind) -> Self::Hold<'_>;
}

impl Subject for Gate {
    type Hold<'a> = Permit<'a>;

    fn try_enter(&self, kind: Kind) -> Option<Permit<'_>> {
        self.try_acquire(holder(kind)).ok()
    }

    fn enter(&self, kind: Kind) -> Permit<'_> {
        self.acquire(holder(kind)).expect("it is not closed")
    }
}

fn holder(kind: Kind) -> Holder {
    match kind {
        Kind::CpuRead => Holder::CpuRead,
        Kind::NicRead => Holder::NicRead,
        Kind::CpuWrite => Holder::CpuWrite,
        Kind::NicWrite => Holder::NicWrite,
    }
}

struct Recorder<'s, S: Subject> {
    subject: &'s S,
    clock: &'s AtomicU64,
    calls: Vec<Call>,
    held: Option<(Kind, S::Hold<'s>)>,
}

impl<'s, S: Subject> Recorder<'s, S> {
    fn record(&mut self, ask: Ask, call: impl FnOnce(&mut Self) -> bool) {
        let asked = self.clock.fetch_add(1, Ordering::SeqCst);
        let granted = call(self);
        let answered = self.clock.fetch_add(1, Ordering::SeqCst);
        self.calls.push(Call {
            asked,
            answered,
            ask,
            granted,
        });
    }

    fn release(&mut self) {
        if let Some((kind, hold)) = self.held.take() {
            self.record(Ask::Release(kind), |_| {
                drop(hold);
                true
            });
        }
    }

    /// One hold at a time, so that nobody waits for ever.
    fn ask(&mut self, ask: Ask) {
        self.release();
        self.record(ask, |own| {
            own.held = match ask {
                Ask::Try(kind) => own.subject.try_enter(kind).map(|hold| (kind, hold)),
                Ask::Wait(kind) => Some((kind, own.subject.enter(kind))),
                Ask::Release(_) => None,
            };
            own.held.is_some()
        });
    }
}

/// What came of it.
fn run<S: Subject>(subject: &S, programs: &[Vec<Ask>]) -> Vec<Call> {
    let clock = AtomicU64::new(0);
    let start = Barrier::new(programs.len());
    let work = |program: &Vec<Ask>| {
        let mut recorder = Recorder {
            subject,
            clock: &clock,
            calls: Vec::new(),
            held: None,
        };
        start.wait();
        program.iter().for_each(|ask| recorder.ask(*ask));
        recorder.release();
        recorder.calls
    };
    thread::scope(|scope| {
        let threads: Vec<_> = programs
            .iter()
            .map(|program| scope.spawn(|| work(program)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn programs() -> impl Strategy<Value = Vec<Vec<Ask>>> {
    let kind = prop::sample::select(&Kind::ALL[..]);
    let ask = prop_oneof![kind.clone().prop_map(Ask::Try), kind.prop_map(Ask::Wait),];
    prop::collection::vec(prop::collection::vec(ask, 1..=CALLS), 2..=3)
}

fn gate(biased: bool, spin: Duration) -> Gate {
    let gate = Gate::with_patience(Patience {
        spin,
        stand_back: Duration::from_micros(50),
    });
    match biased {
        true => gate.with_read_bias(ReadBias {
            quiet: Duration::ZERO,
            ..ReadBias::default()
        }),
        false => gate,
    }
}

fn persisted() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::with_cases(64)
    }
}

proptest! {
    #![proptest_config(persisted())]

    #[test]
    fn any_history_of_a_gate_has_an_order(
        programs in programs(), biased: bool, spins: bool
    ) {
        let gate = gate(biased, Duration::from_micros(if spins { 20 } else { 0 }));
        for _ in 0..RUNS {
            let calls = run(&gate, &programs);
            prop_assert!(is_linearizable(&calls, biased), "{calls:#?}");
            prop_assert!(gate.state().is_free());
        }
    }
}

/// Looks, and then takes.
#[derive(Default)]
struct Broken(AtomicI64);

struct BrokenHold<'a>(&'a AtomicI64, i64);

impl Drop for BrokenHold<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

impl Subject for Broken {
    type Hold<'a> = BrokenHold<'a>;

    fn try_enter(&self, kind: Kind) -> Option<BrokenHold<'_>> {
        let weight = if kind.is_shared() { 1 } else { 100 };
        let seen = self.0.load(Ordering::SeqCst);
        thread::yield_now();
        let free = seen == 0 || kind.is_shared() && seen < 100;
        free.then(|| {
            self.0.fetch_add(weight, Ordering::SeqCst);
            BrokenHold(&self.0, weight)
        })
    }

    fn enter(&self, kind: Kind) -> BrokenHold<'_> {
        loop {
            if let Some(hold) = self.try_enter(kind) {
                return hold;
            }
            thread::yield_now();
        }
    }
}

/// The check is asked whether it would notice.
#[test]
fn a_gate_that_looks_and_then_takes_is_noticed() {
    let writes = vec![Ask::Wait(Kind::NicWrite), Ask::Wait(Kind::CpuWrite)];
    let programs = [writes.clone(), writes.clone(), writes];
    let noticed = (0..10_000).any(|_| !is_linearizable(&run(&Broken::default(), &programs), false));
    assert!(noticed);
}

fn call(times: (u64, u64), ask: Ask, granted: bool) -> Call {
    let (asked, answered) = times;
    Call {
        asked,
        answered,
        ask,
        granted,
    }
}

#[test]
fn histories_with_and_without_an_order_are_told_apart() {
    let is_linearizable = |calls: &[Call]| history::is_linearizable(calls, false);
    let write = |times, granted| call(times, Ask::Try(Kind::CpuWrite), granted);
    let ends = |times| call(times, Ask::Release(Kind::CpuWrite), true);
    let read = |times, granted| call(times, Ask::Try(Kind::CpuRead), granted);
    // Two at a time, and then one after the other's end.
    let both = [write((0, 1), true), write((2, 3), true)];
    assert!(!is_linearizable(&both));
    assert!(is_linearizable(&[
        write((0, 1), true),
        ends((2, 3)),
        write((4, 5), true)
    ]));
    // The second one's call may have come after the release, or not.
    assert!(is_linearizable(&[
        write((0, 1), true),
        ends((2, 6)),
        write((3, 5), true)
    ]));
    assert!(is_linearizable(&[
        write((0, 1), true),
        ends((2, 6)),
        write((3, 5), false)
    ]));
    // Nobody was in, and nobody came.
    assert!(!is_linearizable(&[read((0, 1), false)]));
    assert!(!is_linearizable(&[
        write((0, 1), true),
        ends((2, 3)),
        read((4, 5), false)
    ]));
    // A reader is in: who else reads is let in, unless a writer waits.
    let reads = [read((0, 1), true), read((3, 4), false)];
    assert!(!is_linearizable(&reads));
    let waits = call((2, 9), Ask::Wait(Kind::NicWrite), true);
    let end = call((6, 7), Ask::Release(Kind::CpuRead), true);
    assert!(is_linearizable(&[reads[0], reads[1], waits, end]));
    // One that does not wait makes nobody stand back, unless it can't know whom it meets; nor does a reader who is let in
    // stand in the way before.
    let alone = [read((0, 3), false), write((1, 2), false)];
    assert!(!is_linearizable(&alone));
    assert!(!is_linearizable(&[
        write((0, 3), false),
        read((4, 5), true)
    ]));
    let beside = [reads[0], reads[1], write((2, 9), false), end];
    assert!(!is_linearizable(&beside));
    assert!(history::is_linearizable(&beside, true));
}
