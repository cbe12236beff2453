//! Contestants of whom it matters how their times are spread, not only what is usual: they take turns within
//! one run, each time for many samples.

use std::time::Duration;

use criterion::Criterion;

use super::bench;
use super::report::{Distribution, Promise, Quantiles, Report, Role, Row, Table};
use super::turns::median;

/// What one turn brought.
#[derive(Default)]
pub struct Taken {
    /// The samples, in nanoseconds.
    pub nanos: Vec<f64>,
    /// What it cost somebody else, in nanoseconds.
    pub aside: Option<f64>,
}

/// Takes that many samples.
pub type Sample = Box<dyn FnMut(usize) -> Taken>;

pub struct Contestant {
    name: &'static str,
    sample: Sample,
    promised: Vec<(f64, Promise)>,
}

pub fn contestant(name: &'static str, sample: Sample) -> Contestant {
    Contestant {
        name,
        sample,
        promised: Vec::new(),
    }
}

impl Contestant {
    /// What this quantile may be, against that of the baseline.
    pub fn promised(mut self, quantile: f64, promise: Promise) -> Self {
        self.promised.push((quantile, promise));
        self
    }
}

pub struct Contest {
    pub title: &'static str,
    pub contestants: fn() -> Vec<Contestant>,
    /// Which quantiles there are tables of, and the name of the baseline of each.
    pub baselines: &'static [(f64, &'static str)],
    /// What was counted aside, and the baseline of that.
    pub aside: Option<(&'static str, &'static str)>,
    pub rounds: usize,
    /// Per contestant and round.
    pub samples: usize,
}

/// By contestant and round.
type Turns = Vec<Vec<Taken>>;

impl bench::Contest for Contest {
    fn title(&self) -> &str {
        self.title
    }

    fn by_themselves(&self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(self.title);
        for mut contestant in (self.contestants)() {
            group.bench_function(contestant.name, |b| {
                b.iter_custom(|count| {
                    let taken = (contestant.sample)(count as usize);
                    let nanos: f64 = taken.nanos.iter().sum();
                    Duration::from_nanos(nanos.max(1.0) as u64)
                });
            });
        }
        group.finish();
    }

    fn in_turns(&self, times: usize) -> Report {
        let mut turns = Turns::new();
        let mut contestants = Vec::new();
        for _ in 0..times {
            contestants = (self.contestants)();
            turns.resize_with(contestants.len(), Vec::new);
            for _ in 0..self.rounds {
                for (contestant, turns) in contestants.iter_mut().zip(&mut turns) {
                    let mut taken = (contestant.sample)(self.samples);
                    taken.nanos.sort_unstable_by(f64::total_cmp);
                    turns.push(taken);
                }
            }
        }
        let about = format!(
            "taking turns, {} samples in each of {} rounds",
            self.samples,
            times * self.rounds
        );
        let mut report = Report::default();
        for &(at, baseline) in self.baselines {
            let title = format!("{}, p{}", self.title, at * 100.0);
            let figures = of_rounds(&turns, |taken| quantile(&taken.nanos, at));
            let promised = |contestant: &Contestant| {
                let those = contestant.promised.iter();
                let those = those.filter(|(of, _)| *of == at);
                those.map(|(_, promise)| *promise).collect()
            };
            let table = table(title, &contestants, &figures, baseline, promised);
            table.print(&about);
            report.tables.push(table);
        }
        if let Some((title, baseline)) = self.aside {
            let title = format!("{}, {title}", self.title);
            let figures = of_rounds(&turns, |taken| taken.aside.unwrap_or_default());
            let table = table(title, &contestants, &figures, baseline, |_| Vec::new());
            table.print(&about);
            report.tables.push(table);
        }
        report.distributions.push(Distribution {
            title: self.title.into(),
            unit: "ns".into(),
            series: contestants
                .iter()
                .zip(turns)
                .map(|(contestant, turns)| series(contestant.name, turns))
                .collect(),
        });
        report
    }
}

/// A figure of each turn, by contestant and round.
fn of_rounds(turns: &Turns, figure: impl Fn(&Taken) -> f64) -> Vec<Vec<f64>> {
    let of_contestant = |turns: &Vec<Taken>| turns.iter().map(&figure).collect();
    turns.iter().map(of_contestant).collect()
}

/// Medians over the rounds: of the figures, of their ratios to the baseline's of the same round, and of the
/// differences.
fn table(
    title: String,
    contestants: &[Contestant],
    figures: &[Vec<f64>],
    baseline: &str,
    promised: impl Fn(&Contestant) -> Vec<Promise>,
) -> Table {
    let named = contestants.iter().position(|c| c.name == baseline);
    let base = &figures[named.expect("the baseline is one of them")];
    let against = |own: &[f64], f: fn(f64, f64) -> f64| {
        let pairs = own.iter().zip(base);
        Some(median(pairs.map(|(own, base)| f(*own, *base)).collect()))
    };
    let rows = contestants.iter().zip(figures).map(|(contestant, own)| {
        let mut row = Row {
            name: contestant.name.into(),
            value: median(own.clone()),
            ratio: against(own, |own, base| own / base),
            more: against(own, |own, base| own - base),
            ..Row::default()
        };
        if contestant.name == baseline {
            row.role = Role::Baseline;
        }
        promised(contestant)
            .into_iter()
            .for_each(|promise| row.promise(promise));
        row
    });
    Table {
        title,
        unit: "ns".into(),
        rows: rows.collect(),
    }
}

/// Of all turns.
fn series(name: &str, turns: Vec<Taken>) -> Quantiles {
    let mut all: Vec<f64> = turns.into_iter().flat_map(|taken| taken.nanos).collect();
    all.sort_unstable_by(f64::total_cmp);
    let percents = (0..=99).map(|percent| f64::from(percent) / 100.0);
    let at = percents.chain([0.995, 0.999, 1.0]);
    Quantiles {
        name: name.into(),
        quantiles: at.map(|at| (at, quantile(&all, at))).collect(),
    }
}

fn quantile(sorted: &[f64], at: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}
