//! What a bench is asked to do.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

use super::report::Report;

#[derive(Debug, Default)]
pub struct Args {
    /// It is an error to miss a promise.
    pub check: bool,
    /// Only whether it runs at all.
    pub test: bool,
    /// A short measurement.
    pub quick: bool,
    /// Where what was found goes to.
    report: Option<PathBuf>,
    filters: Vec<String>,
}

impl Args {
    /// What is unknown here is criterion's, or cargo's.
    pub fn parse() -> Result<Self, lexopt::Error> {
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

    /// [`parse`](Self::parse), then `run`.
    pub fn with(run: impl FnOnce(Args) -> ExitCode) -> ExitCode {
        Self::parse().map_or_else(failed, run)
    }

    pub fn is_asked(&self, title: &str) -> bool {
        self.filters.iter().all(|filter| title.contains(filter))
    }

    /// Whether a report is asked for.
    pub fn is_for_report(&self) -> bool {
        self.report.is_some()
    }

    /// Writes what was found to where it is asked for, if it is.
    pub fn write(&self, report: Report) -> ExitCode {
        let report = Report {
            bench: env!("CARGO_CRATE_NAME").into(),
            ..report
        };
        let written = self.report.as_deref().map(|file| report.write(file));
        written
            .transpose()
            .map_or_else(failed, |_| ExitCode::SUCCESS)
    }
}

fn failed(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
