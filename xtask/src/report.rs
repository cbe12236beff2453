//! `cargo xtask bench-report`: runs the benches, and writes docs/performance.md with its plots from what they
//! measured. What was measured is kept in the target directory, so that a page can be written anew, and benches
//! can be run one by one.

mod bars;
mod curves;
mod machine;
mod page;
mod plots;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::figures::Report;
use crate::workspace::{self, executables};
use crate::{instructions, lines, process};
use machine::Machine;

/// Benches that measure no time: commands of their own count with them, and write their part of the report.
const COUNTING: &[&str] = &["locked", "instructions", "lines"];

/// Those commands.
const COUNTS: &[Count] = &[("instructions", instructions::run), ("lines", lines::run)];

type Count = (&'static str, fn() -> Result<()>);

/// In the root of the repository.
const PAGE: &str = "docs/performance.md";
const PLOTS: &str = "docs/plots";

#[derive(Default)]
pub struct Options {
    /// One short measurement of each.
    pub quick: bool,
    /// No measurement: what was measured before.
    pub draw: bool,
    /// A part of the names of the benches that are run; the others as they were measured before.
    pub filter: String,
}

pub fn run(options: &Options) -> Result<()> {
    let directory = directory()?;
    if !options.draw {
        measure(options, &directory)?;
    }
    let machine = Machine::read(&directory)?;
    let reports = read(&directory)?;
    let root = workspace::root();
    fs::create_dir_all(root.join(PLOTS))?;
    for (name, figure) in plots::all(&reports) {
        let file = root.join(PLOTS).join(name).with_extension("svg");
        plots::draw(&file, &figure).with_context(|| format!("the plot `{name}`"))?;
    }
    fs::write(root.join(PAGE), page::page(&machine, &reports))?;
    println!("{PAGE} is written");
    Ok(())
}

/// Where what was measured is kept: a file of each bench. Files that other commands put there, in the same
/// form, are part of the report as well.
pub fn directory() -> Result<PathBuf> {
    let directory = workspace::target_dir()?.join("bench-report");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn measure(options: &Options, directory: &Path) -> Result<()> {
    let built = executables(workspace::cargo_bench().arg("--no-run"), "bench")?;
    let timed = built
        .iter()
        .filter(|(name, _)| !COUNTING.contains(&name.as_str()) && name.contains(&options.filter));
    for (name, program) in timed {
        println!("== {name}");
        let mut bench = Command::new(program);
        // As cargo does: criterion runs nothing without it.
        bench.arg("--bench").current_dir(workspace::root());
        bench.arg("--report").arg(file(directory, name));
        if options.quick {
            bench.arg("--quick");
        }
        process::run(&mut bench)?;
    }
    for (name, count) in COUNTS {
        if name.contains(&options.filter) {
            println!("== {name}");
            count()?;
        }
    }
    Machine::this(options.quick)?.write(directory)
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(name).with_extension("json")
}

/// All that was measured, in the order of the page.
fn read(directory: &Path) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != machine::FILE) {
            let report = Report::read(&path).with_context(|| path.display().to_string())?;
            reports.push(report);
        }
    }
    reports.sort_by_key(|report| text::position(&report.bench));
    Ok(reports)
}
