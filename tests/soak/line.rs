//! The live line: on a terminal one that changes each second, otherwise a plain one every ten.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use rdma_mr::{Counts, counts};

use super::leaked;
use super::memory::resident_kib;
use crate::torture::random::from_env;
use crate::torture::report::{mismatches, progressed};

const EACH: Duration = Duration::from_secs(1);

/// How many samples for one plain line.
const PLAIN: usize = 10;

pub struct Line {
    start: Instant,
    limit: Duration,
    before: Counts,
    bar: Option<ProgressBar>,
    csv: Option<BufWriter<File>>,
    /// In KiB, one for each second.
    samples: Vec<u64>,
    operations: u64,
}

/// One on which a line can be written over.
fn is_terminal() -> bool {
    stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

impl Line {
    /// The samples also go to the file that `RDMA_MR_CSV` names.
    pub fn new(limit: Duration, before: Counts) -> Self {
        let csv = from_env::<String>("RDMA_MR_CSV").map(|path| {
            let file = File::create(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut csv = BufWriter::new(file);
            writeln!(csv, "seconds,operations,waits,leaks,rss_kib,mismatches").unwrap();
            csv
        });
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("valid");
        let bar = ProgressBar::new_spinner().with_style(style);
        Line {
            start: Instant::now(),
            limit,
            before,
            bar: is_terminal().then_some(bar),
            csv,
            samples: Vec::with_capacity(limit.as_secs() as usize + 60),
            operations: 0,
        }
    }

    /// Tells what there is if it is time for that. Whether the whole time has passed.
    pub fn tick(&mut self) -> bool {
        let passed = self.start.elapsed();
        if passed >= EACH * (self.samples.len() as u32 + 1) {
            self.sample(passed);
        }
        passed >= self.limit
    }

    /// Whether it takes so much longer than it should.
    pub fn passed(&self, grace: Duration) -> bool {
        self.start.elapsed() >= self.limit + grace
    }

    fn sample(&mut self, passed: Duration) {
        let operations = progressed();
        let each_second = operations - self.operations;
        self.operations = operations;
        let counts = counts().since(self.before);
        let (waits, leaks, mismatches) = (counts.waits, leaked(counts), mismatches());
        let rss = resident_kib();
        self.samples.push(rss);
        if let Some(csv) = &mut self.csv {
            let seconds = passed.as_secs();
            writeln!(
                csv,
                "{seconds},{operations},{waits},{leaks},{rss},{mismatches}"
            )
            .unwrap();
            csv.flush().unwrap();
        }
        let left = HumanDuration(Duration::from_secs(
            self.limit.saturating_sub(passed).as_secs(),
        ));
        let text = format!(
            "{left} left: {each_second} operations/s, {waits} waits, {leaks} leaks, RSS {:.1} MiB, \
             {mismatches} mismatches",
            rss as f64 / 1024.0
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None if self.samples.len() % PLAIN == 0 => println!("{text}"),
            None => {}
        }
    }

    /// All samples of memory, in KiB.
    pub fn end(self) -> Vec<u64> {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.samples
    }
}
