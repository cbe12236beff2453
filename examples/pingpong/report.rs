//! Percentiles, and what the layer adds.

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

/// The places of the contestants that matter below.
const PLAIN: usize = 0;
const AGAIN: usize = 1;
const LAYERS: [usize; 2] = [3, 4];

pub struct Report {
    names: [&'static str; 6],
    /// Nanoseconds, in order.
    times: [Vec<u64>; 6],
    /// How much more each one's median is than the plain one's, in percent.
    added: [f64; 6],
}

impl Report {
    /// Of times in the order in which they were played, in turns of `block`.
    pub fn new(names: [&'static str; 6], mut times: [Vec<u64>; 6], block: usize) -> Self {
        let added = std::array::from_fn(|of| added(&times[of], &times[PLAIN], block));
        times.iter_mut().for_each(|times| times.sort_unstable());
        Report {
            names,
            times,
            added,
        }
    }

    /// How much the plain one was disturbed: its median beside its lower decile.
    pub fn unrest(&self) -> f64 {
        let plain = &self.times[PLAIN];
        percentile(plain, 50.0) as f64 / percentile(plain, 10.0) as f64
    }

    /// Prints it all, and fails if the layer adds more than it may.
    pub fn finish(&self, device: &str, options: &Options) -> Result<(), Failure> {
        let (size, block) = (options.size, options.block);
        let inline = if options.inline { " inline" } else { "" };
        println!(
            "{} round trips each, {size} B{inline}, over {device}",
            options.iterations
        );
        println!("in turns of {block}; microseconds");
        if options.contests > 1 {
            let (contests, unrest) = (options.contests, self.unrest());
            println!(
                "the calmest of {contests} contests: plain's p50 is {unrest:.2} times its p10"
            );
        }
        print!("{:14}", "");
        PERCENTILES
            .iter()
            .for_each(|(_, name)| print!("{name:>10}"));
        println!("{:>12}", "to plain");
        for (of, name) in self.names.iter().enumerate() {
            print!("{name:14}");
            for (percent, _) in PERCENTILES {
                print!(
                    "{:10.2}",
                    percentile(&self.times[of], percent) as f64 / 1000.0
                );
            }
            println!("{:12.4}", 1.0 + self.added[of] / 100.0);
        }
        println!("plain differs from itself by {:+.2} %", self.added[AGAIN]);
        for of in LAYERS {
            println!("{}: layer adds {:.2} %", self.names[of], self.added[of]);
        }
        let worst = LAYERS
            .map(|of| self.added[of])
            .into_iter()
            .fold(f64::MIN, f64::max);
        match options.check {
            Some(limit) if worst > limit => {
                Err(format!("the layer adds {worst:.2} % at the median: --check {limit}").into())
            }
            _ => Ok(()),
        }
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
