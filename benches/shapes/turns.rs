//! Contestants that take turns within one run, so that a machine which does other things as well does
//! them to all alike: a table of medians, and ratios to a baseline among them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use criterion::Criterion;

use super::args::Args;
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
        for n in 0..count {
            once(n as usize);
        }
        start.elapsed()
    })
}

/// A title, and who is compared under it.
pub type Contest = (&'static str, fn() -> Vec<Contestant>);

/// The `main` of a bench: criterion times each by itself, then come the tables. With `--check` the tables
/// alone, several of each with contestants made anew; it is an error if a promise is missed in three
/// quarters of them. With `--report FILE` the tables alone as well, in JSON, each of all rounds of several.
pub fn main(contests: &[Contest]) -> ExitCode {
    Args::with(|args| {
        let asked = || contests.iter().filter(|(title, _)| args.is_asked(title));
        if args.check {
            // All of them, whatever the first brings.
            return match asked().filter(|contest| !is_kept(contest)).count() {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
        if args.is_for_report() {
            let count = if args.quick { 1 } else { CHECKS };
            let tables = asked().map(|contest| tables(contest, count)).collect();
            return args.write(Report {
                tables,
                ..Report::default()
            });
        }
        let mut criterion = Criterion::default().configure_from_args();
        for (title, contestants) in contests {
            let mut contestants = contestants();
            by_themselves(&mut criterion, title, &mut contestants);
            if !args.test && args.is_asked(title) {
                let mut rounds = Rounds::default();
                rounds.take(&mut contestants);
                rounds.table(title, &contestants);
            }
        }
        criterion.final_summary();
        ExitCode::SUCCESS
    })
}

fn is_kept(contest: &Contest) -> bool {
    let missed = (0..CHECKS).filter(|_| tables(contest, 1).is_missed());
    4 * missed.count() < 3 * CHECKS
}

/// A table of so many, with contestants made anew for each.
fn tables((title, contestants): &Contest, count: usize) -> Table {
    let mut rounds = Rounds::default();
    (1..count).for_each(|_| rounds.take(&mut contestants()));
    let mut contestants = contestants();
    rounds.take(&mut contestants);
    rounds.table(title, &contestants)
}

fn by_themselves(criterion: &mut Criterion, title: &str, contestants: &mut [Contestant]) {
    let mut group = criterion.benchmark_group(title);
    for contestant in contestants {
        group.bench_function(contestant.name, |b| {
            b.iter_custom(|count| (contestant.run)(count));
        });
    }
    group.finish();
}

/// Where memory lies, and who else is at work, makes one table worse than the next.
const CHECKS: usize = 8;
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
