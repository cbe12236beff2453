//! Contestants that take turns within one run, so that a machine which does other things as well does
//! them to all alike: a table of medians, and ratios to a baseline among them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use criterion::Criterion;

/// Takes that many operations, and says how long that took.
pub type Run = Box<dyn FnMut(u64) -> Duration>;

pub struct Contestant {
    pub name: &'static str,
    run: Run,
    role: Role,
    /// The most that it may take of what the baseline takes.
    promised: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Compared,
    /// What ratios are to: the fastest of these.
    Baseline,
    /// What all others do besides, taken off theirs.
    Overhead,
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
/// quarters of them.
pub fn main(contests: &[Contest]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let is_asked = |title: &str| {
        let mut filters = args.iter().filter(|arg| !arg.starts_with('-'));
        filters.all(|filter| title.contains(filter))
    };
    if has("--check") {
        let mut kept = true;
        for (title, contestants) in contests.iter().filter(|(title, _)| is_asked(title)) {
            let missed = (0..CHECKS).filter(|_| table(title, &mut contestants()));
            kept &= 4 * missed.count() < 3 * CHECKS;
        }
        return if kept {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (title, contestants) in contests {
        let mut contestants = contestants();
        by_themselves(&mut criterion, title, &mut contestants);
        if !has("--test") && is_asked(title) {
            table(title, &mut contestants);
        }
    }
    criterion.final_summary();
    ExitCode::SUCCESS
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

/// Rounds in which all take turns: medians of the times, and of the ratios to the baseline of the same
/// round, so that what slows a round down slows all down. Whether a promise was missed.
fn table(title: &str, contestants: &mut [Contestant]) -> bool {
    let mut times = vec![Vec::new(); contestants.len()];
    let mut ratios = times.clone();
    for _ in 0..ROUNDS {
        let mut round: Vec<f64> = contestants
            .iter_mut()
            .map(|contestant| (contestant.run)(OPERATIONS).as_nanos() as f64 / OPERATIONS as f64)
            .collect();
        let overhead = fastest(Role::Overhead, contestants, &round).unwrap_or(0.0);
        round.iter_mut().for_each(|nanos| *nanos -= overhead);
        let baseline = fastest(Role::Baseline, contestants, &round).expect("one is");
        for ((nanos, times), ratios) in round.iter().zip(&mut times).zip(&mut ratios) {
            times.push(*nanos);
            ratios.push(nanos / baseline);
        }
    }
    println!("{title}: taking turns, medians of {ROUNDS} rounds");
    println!("{:>9} {:>7} {:>9}", "ns", "ratio", "promised");
    let mut missed = false;
    for ((contestant, times), ratios) in contestants.iter().zip(times).zip(ratios) {
        let (nanos, ratio) = (median(times), median(ratios));
        let promised = match contestant.promised {
            Some(promised) if ratio > promised => {
                missed = true;
                format!("{promised} MISSED")
            }
            Some(promised) => promised.to_string(),
            None => String::new(),
        };
        println!(
            "{nanos:>9.2} {ratio:>7.2} {promised:>9}  {}",
            contestant.name
        );
    }
    missed
}

/// The time of the fastest of those with that role.
fn fastest(role: Role, contestants: &[Contestant], nanos: &[f64]) -> Option<f64> {
    let those = contestants.iter().zip(nanos);
    let those = those.filter(|(contestant, _)| contestant.role == role);
    those.map(|(_, nanos)| *nanos).reduce(f64::min)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}
