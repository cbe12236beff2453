//! Percentiles, and what the layer adds.

use std::fmt;

use crate::{Failure, Options};

/// Those that make up the table, in percent.
const PERCENTILES: [(f64, &str); 6] = [
    (0.0, "min"),
    (50.0, "p50"),
    (90.0, "p90"),
    (99.0, "p99"),
    (99.9, "p99.9"),
    (100.0, "max"),
];

/// The contestants, in the order in which the table has them.
pub const NAMES: [&str; 6] = [
    "plain",
    "plain again",
    "bare queues",
    "hold as wr_id",
    "endpoint",
    "async",
];

/// The places of those that matter below.
const PLAIN: usize = 0;
const AGAIN: usize = 1;
const LAYERS: [usize; 2] = [3, 4];

/// One contest.
pub struct Report {
    /// Nanoseconds, in order.
    times: [Vec<u64>; NAMES.len()],
    /// How much more each one's median is than the plain one's, in percent.
    added: [f64; NAMES.len()],
}

impl Report {
    /// Of times in the order in which they were played, in turns of `block`.
    pub fn new(mut times: [Vec<u64>; NAMES.len()], block: usize) -> Self {
        let added = std::array::from_fn(|of| added(&times[of], &times[PLAIN], block));
        times.iter_mut().for_each(|times| times.sort_unstable());
        Report { times, added }
    }

    /// How much the plain one was disturbed: its median beside its lower decile.
    fn unrest(&self) -> f64 {
        let plain = &self.times[PLAIN];
        percentile(plain, 50.0) as f64 / percentile(plain, 10.0) as f64
    }

    /// Prints the calmest contest, and what the layer added in all of them; fails if that is more than
    /// it may add.
    pub fn finish(contests: &[Self], device: &str, options: &Options) -> Result<(), Failure> {
        let (size, block) = (options.size, options.block);
        let inline = if options.inline { " inline" } else { "" };
        println!(
            "{} round trips each, {size} B{inline}, over {device}",
            options.iterations
        );
        println!("in turns of {block}; microseconds");
        let calmest = contests
            .iter()
            .min_by(|one, other| one.unrest().total_cmp(&other.unrest()))
            .ok_or("there was no contest")?;
        if contests.len() > 1 {
            let (contests, unrest) = (contests.len(), calmest.unrest());
            println!(
                "the calmest of {contests} contests: plain's p50 is {unrest:.2} times its p10"
            );
        }
        calmest.print();
        let again = Spread::of(contests, AGAIN);
        println!("plain differs from itself by {again}");
        let mut least = f64::MIN;
        for of in LAYERS {
            let spread = Spread::of(contests, of);
            println!("{}: layer adds {spread}", NAMES[of]);
            least = least.max(spread.percent(0.0));
        }
        match options.check {
            Some(limit) if least > limit => Err(format!(
                "the layer adds {least:.2} % at the median, or more, in every contest: \
                 --check {limit}"
            )
            .into()),
            _ => Ok(()),
        }
    }

    fn print(&self) {
        print!("{:14}", "");
        PERCENTILES
            .iter()
            .for_each(|(_, name)| print!("{name:>10}"));
        println!("{:>12}", "to plain");
        for (of, name) in NAMES.iter().enumerate() {
            print!("{name:14}");
            for (percent, _) in PERCENTILES {
                print!(
                    "{:10.2}",
                    percentile(&self.times[of], percent) as f64 / 1000.0
                );
            }
            println!("{:12.4}", 1.0 + self.added[of] / 100.0);
        }
    }
}

/// What one contestant added to the plain one's median, contest by contest; in order.
struct Spread(Vec<f64>);

impl Spread {
    fn of(contests: &[Report], contestant: usize) -> Self {
        let mut added: Vec<f64> = contests.iter().map(|one| one.added[contestant]).collect();
        added.sort_unstable_by(f64::total_cmp);
        Spread(added)
    }

    fn percent(&self, percent: f64) -> f64 {
        percentile(&self.0, percent)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.2} %", self.percent(50.0))?;
        if self.0.len() > 1 {
            let [least, quarter, most] = [0.0, 25.0, 100.0].map(|percent| self.percent(percent));
            write!(
                f,
                " (contests: least {least:+.2}, lower quartile {quarter:+.2}, most {most:+.2})"
            )?;
        }
        Ok(())
    }
}

/// That percentile of what is in order, by the nearest rank.
fn percentile<T: Copy>(sorted: &[T], percent: f64) -> T {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted[rank.saturating_sub(1)]
}

/// The machine is faster at some times than at others, so what is compared are the medians of one
/// turn of each, which lie side by side; of all turns the median. In percent.
fn added(ours: &[u64], plain: &[u64], block: usize) -> f64 {
    let median = |times: &[u64]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        percentile(&times, 50.0) as f64
    };
    let turns = ours.chunks(block).zip(plain.chunks(block));
    let mut ratios: Vec<f64> = turns
        .map(|(ours, plain)| median(ours) / median(plain))
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    (percentile(&ratios, 50.0) - 1.0) * 100.0
}
