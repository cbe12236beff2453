//! How a scenario is run, and what is printed if it fails.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::time::{SystemTime, UNIX_EPOCH};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{
    PctScheduler, RandomScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// Changes of priority in an execution under PCT.
const DEPTH: usize = 3;

/// Executions that are run twice, to see that they are the same.
const TWICE: usize = 3;

/// More turns than any execution takes that does not hang.
const MAX_TURNS: usize = 400_000;

/// Runs `scenario` so many times with turns by chance, and so many times by PCT; some of them twice.
///
/// `cargo xtask shuttle` sets the variables: `SHUTTLE_RANDOM_SEED`, without which the seed is another one each
/// time, and `RDMA_MR_SHUTTLE_ITERATIONS`.
pub fn explore(name: &str, executions: usize, scenario: fn()) {
    let seed = number("SHUTTLE_RANDOM_SEED").unwrap_or_else(any);
    let executions = number("RDMA_MR_SHUTTLE_ITERATIONS").map_or(executions, |n| n as usize);
    let random = |n| RandomScheduler::new_from_seed(seed, n);
    let twice = UncontrolledNondeterminismCheckScheduler::new(random(TWICE));
    run(name, "is not the same twice", seed, twice, scenario);
    run(
        name,
        "failed with turns by chance",
        seed,
        random(executions),
        scenario,
    );
    let pct = PctScheduler::new_from_seed(seed, DEPTH, executions);
    run(name, "failed with turns by PCT", seed, pct, scenario);
    println!("{name}: {executions} executions by chance and as many by PCT, seed {seed}");
}

fn run(name: &str, what: &str, seed: u64, scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = 0x4_0000;
    // The seed is enough, and a schedule is as long as a chapter.
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(MAX_TURNS);
    config.silence_warnings = true;
    let report = Report { name, what, seed };
    Runner::new(scheduler, config).run(scenario);
    drop(report);
}

struct Report<'a> {
    name: &'a str,
    what: &'a str,
    seed: u64,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let Report { name, what, seed } = self;
        if std::thread::panicking() {
            eprintln!("`{name}` {what}. Once more:\n    cargo xtask shuttle --seed {seed} {name}");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value}: not a number")),
    )
}

fn any() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64
}

thread_local!(static WRONG: Cell<bool> = const { Cell::new(false) });

/// Says, before a model fails for that reason, that bytes are not what they must be.
pub fn bytes_are(right: bool) {
    WRONG.set(WRONG.get() | !right);
}

/// As [`explore`], for a model that must fail by wrong bytes: then this panics, and says so. (Which of the
/// panics that follow the first one shuttle hands on is chance.)
pub fn explore_wrong(name: &str, executions: usize, scenario: fn()) {
    let failed = catch_unwind(|| explore(name, executions, scenario)).is_err();
    assert!(!(failed && WRONG.get()), "wrong bytes were noticed");
}

/// A number below `n`, by the scheduler's choice.
pub fn chance(n: usize) -> usize {
    thread_rng().gen_range(0..n)
}
