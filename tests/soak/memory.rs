//! Whether memory grew, from samples of it.

use std::fmt;

/// What the allocator may keep, or give back late, with some hundred regions, queue pairs and threads that
/// come and go.
const SLACK_KIB: u64 = 4096;

/// And by so much of what there is.
const SLACK_PERCENT: u64 = 5;

/// Below that the start is all there is.
const FEWEST: usize = 50;

/// One heap for all threads: with several, each has its own leftovers, and it takes an hour until all have as
/// many as they ever will.
pub fn keep_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes two numbers, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// The memory of this process that is in RAM, in KiB.
pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse(&status).unwrap_or(0)
}

fn parse(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the samples say, which were taken at even intervals.
#[derive(Debug, PartialEq, Eq)]
pub enum Growth {
    TooShort,
    /// From the median of the second fifth to that of the last: the first fifth is the start, when caches
    /// and heaps are filled, and single samples depend on what was alive just then.
    Known {
        early_kib: u64,
        late_kib: u64,
    },
}

impl Growth {
    pub fn judge(samples_kib: &[u64]) -> Growth {
        let fifth = samples_kib.len() / 5;
        if samples_kib.len() < FEWEST {
            return Growth::TooShort;
        }
        Growth::Known {
            early_kib: median(&samples_kib[fifth..2 * fifth]),
            late_kib: median(&samples_kib[samples_kib.len() - fifth..]),
        }
    }

    pub fn has_grown(&self) -> bool {
        match *self {
            Growth::TooShort => false,
            Growth::Known {
                early_kib,
                late_kib,
            } => late_kib > early_kib + early_kib * SLACK_PERCENT / 100 + SLACK_KIB,
        }
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Growth::TooShort => f.write_str("too short to tell"),
            Growth::Known {
                early_kib,
                late_kib,
            } => {
                let how = if self.has_grown() { "GROWN" } else { "flat" };
                write!(f, "{how}, {early_kib} KiB early, {late_kib} KiB late")
            }
        }
    }
}

#[test]
fn what_stays_or_swings_has_not_grown() {
    let flat = [50_000; 100];
    assert!(!Growth::judge(&flat).has_grown());
    // The start does not count, nor what one sample says.
    let mut start: Vec<u64> = (0..100).map(|at| 1000 * at.min(19)).collect();
    start[99] = 1_000_000;
    assert!(!Growth::judge(&start).has_grown());
    let swings: Vec<u64> = (0..100).map(|at| 50_000 + at % 7 * 1000).collect();
    assert!(!Growth::judge(&swings).has_grown());
    assert_eq!(Growth::judge(&flat[..FEWEST - 1]), Growth::TooShort);
    assert!(!Growth::TooShort.has_grown());
}

#[test]
fn what_goes_up_steadily_or_by_a_step_has_grown() {
    // 16 KiB a second for 20 minutes.
    let steady: Vec<u64> = (0..1200).map(|at| 20_000 + 16 * at).collect();
    assert!(Growth::judge(&steady).has_grown());
    let step: Vec<u64> = (0..100)
        .map(|at| if at < 60 { 50_000 } else { 65_000 })
        .collect();
    let judged = Growth::judge(&step);
    assert!(judged.has_grown());
    assert_eq!(judged.to_string(), "GROWN, 50000 KiB early, 65000 KiB late");
}

#[test]
fn resident_memory_is_found_in_the_status() {
    let status = "VmHWM:\t    9000 kB\nVmRSS:\t    8192 kB\nRssAnon:\t 100 kB\n";
    assert_eq!(parse(status), Some(8192));
    assert_eq!(parse("Name:\tx\n"), None);
    assert!(resident_kib() > 0);
}
