//! What a bench is asked to do, and the `main` that all have.

use std::path::PathBuf;
use std::process::ExitCode;

use criterion::Criterion;
use lexopt::prelude::*;

use super::report::{Report, Table};

/// Contestants, and how they are compared.
pub trait Contest {
    fn title(&self) -> &str;

    /// One after the other, by criterion.
    fn by_themselves(&self, criterion: &mut Criterion);

    /// Taking turns, that many times with contestants made anew; prints what it found.
    fn in_turns(&self, times: usize) -> Report;
}

/// Where memory lies, and who else is at work, makes one measurement worse than the next.
const CHECKS: usize = 8;
const REPORTED: usize = 5;

/// Criterion times each contestant by itself, then they take turns. With `--check` they only take turns, several
/// times; it is an error if a promise is missed in three quarters of them. With `--report FILE` that as well, all
/// in one, in JSON; once if it is to be `--quick`.
pub fn main(contests: &[impl Contest]) -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(error) => return failed(error),
    };
    let asked = || contests.iter().filter(|contest| args.is_asked(*contest));
    if args.check {
        // All of them, whatever the first brings.
        return match asked().filter(|contest| !is_kept(*contest)).count() {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
    }
    if let Some(file) = &args.report {
        let times = if args.quick { 1 } else { REPORTED };
        let mut report = Report::default();
        asked().for_each(|contest| report.add(contest.in_turns(times)));
        report.bench = env!("CARGO_CRATE_NAME").into();
        return report
            .write(file)
            .map_or_else(failed, |()| ExitCode::SUCCESS);
    }
    let mut criterion = Criterion::default().configure_from_args();
    for contest in contests {
        contest.by_themselves(&mut criterion);
        if !args.test && args.is_asked(contest) {
            contest.in_turns(1);
        }
    }
    criterion.final_summary();
    ExitCode::SUCCESS
}

fn is_kept(contest: &impl Contest) -> bool {
    let missed = (0..CHECKS).filter(|_| contest.in_turns(1).tables.iter().any(Table::is_missed));
    4 * missed.count() < 3 * CHECKS
}

fn failed(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

#[derive(Default)]
struct Args {
    check: bool,
    /// Only whether it runs at all.
    test: bool,
    quick: bool,
    report: Option<PathBuf>,
    filters: Vec<String>,
}

impl Args {
    /// What is unknown here is criterion's, or cargo's.
    fn parse() -> Result<Self, lexopt::Error> {
        let mut args = Args::default();
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("check") => args.check = true,
                Long("test") => args.test = true,
                Long("quick") => args.quick = true,
                Long("report") => args.report = Some(parser.value()?.into()),
                Value(filter) => args.filters.push(filter.string()?),
                _ => drop(parser.optional_value()),
            }
        }
        Ok(args)
    }

    fn is_asked(&self, contest: &impl Contest) -> bool {
        let mut filters = self.filters.iter();
        filters.all(|filter| contest.title().contains(filter))
    }
}
