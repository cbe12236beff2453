//! Contestants that take turns within one run, so that a machine which does other things as well does
//! them to all alike: a table of medians, and ratios to a baseline among them.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use criterion::Criterion;

use super::bench;
use super::report::{Report, Role, Row, Table};

/// Takes that many operations, and says how long that took.
pub type Run = Box<dyn FnMut(u64) -> Duration>;

pub struct Contestant {
    pub name: &'static str,
    run: Run,
    role: Role,
    /// The most that it may take of what the baseline takes.
    promised: Option<f64>,
}

pub fn contestant(name: &'static str, run: Run) -> Contestant {
    Contestant {
        name,
        run,
        role: Role::Compared,
        promised: None,
    }
}

impl Contestant {
    pub fn promised(self, promised: f64) -> Self {
        Contestant {
            promised: Some(promised),
            ..self
        }
    }

    pub fn baseline(self) -> Self {
        Contestant {
            role: Role::Baseline,
            ..self
        }
    }

    pub fn overhead(self) -> Self {
        Contestant {
            role: Role::Overhead,
            ..self
        }
    }
}

/// One after the other, on this thread.
pub fn alone(mut once: impl FnMut(usize) + 'static) -> Run {
    Box::new(move |count| {
        let start = Instant::now();
        take(&mut once, 0..count as usize);
        start.elapsed()
    })
}

/// Turns with these numbers, and nothing beside them in the loop.
#[inline(never)]
pub fn take(once: &mut impl FnMut(usize), numbers: Range<usize>) {
    for n in numbers {
        once(n);
    }
}

/// A title, and who is compared under it.
pub type Contest = (&'static str, fn() -> Vec<Contestant>);

/// The `main` of a bench.
pub fn main(contests: &[Contest]) -> ExitCode {
    bench::main(contests)
}

impl bench::Contest for Contest {
    fn title(&self) -> &str {
        self.0
    }

    fn by_themselves(&self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(self.0);
        for mut contestant in (self.1)() {
            group.bench_function(contestant.name, |b| {
                b.iter_custom(|count| (contestant.run)(count));
            });
        }
        group.finish();
    }

    fn in_turns(&self, times: usize) -> Report {
        let (title, contestants) = self;
        let mut rounds = Rounds::default();
        (1..times).for_each(|_| rounds.take(&mut contestants()));
        let mut contestants = contestants();
        rounds.take(&mut contestants);
        rounds.table(title, &contestants).into()
    }
}

const ROUNDS: usize = 101;
const OPERATIONS: u64 = 25_000;

/// Rounds in which all take turns: by contestant, the times, and the ratios to the baseline of the same
/// round, so that what slows a round down slows all down.
#[derive(Default)]
struct Rounds {
    times: Vec<Vec<f64>>,
    ratios: Vec<Vec<f64>>,
}

impl Rounds {
    fn take(&mut self, contestants: &mut [Contestant]) {
        self.times.resize(contestants.len(), Vec::new());
        self.ratios.resize(contestants.len(), Vec::new());
        for _ in 0..ROUNDS {
            let mut round: Vec<f64> = contestants
                .iter_mut()
                .map(|contestant| {
                    (contestant.run)(OPERATIONS).as_nanos() as f64 / OPERATIONS as f64
                })
                .collect();
            let overhead = fastest(Role::Overhead, contestants, &round).unwrap_or(0.0);
            round.iter_mut().for_each(|nanos| *nanos -= overhead);
            let baseline = fastest(Role::Baseline, contestants, &round).expect("one is");
            let both = self.times.iter_mut().zip(&mut self.ratios);
            for (nanos, (times, ratios)) in round.iter().zip(both) {
                times.push(*nanos);
                ratios.push(nanos / baseline);
            }
        }
    }

    /// The medians, printed.
    fn table(self, title: &str, contestants: &[Contestant]) -> Table {
        let rounds = self.times.first().map_or(0, Vec::len);
        let both = self.times.into_iter().zip(self.ratios);
        let rows = contestants.iter().zip(both);
        let rows = rows.map(|(contestant, (times, ratios))| Row {
            name: contestant.name.into(),
            role: contestant.role,
            value: median(times),
            ratio: Some(median(ratios)),
            promised: contestant.promised,
            ..Row::default()
        });
        let table = Table {
            title: title.into(),
            unit: "ns".into(),
            rows: rows.collect(),
        };
        table.print(&format!("taking turns, medians of {rounds} rounds"));
        table
    }
}

/// The time of the fastest of those with that role.
fn fastest(role: Role, contestants: &[Contestant], nanos: &[f64]) -> Option<f64> {
    let those = contestants.iter().zip(nanos);
    let those = those.filter(|(contestant, _)| contestant.role == role);
    those.map(|(_, nanos)| *nanos).reduce(f64::min)
}

pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}
