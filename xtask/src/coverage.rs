//! `cargo xtask coverage`: which lines of src/ the tests run, by cargo-llvm-cov, without feature `verbs` and without
//! models. What no test runs is in docs/coverage.md, with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};

use crate::process::{self, Exit};
use crate::{house, sanitize, workspace};

/// Of a hundred lines so many have to be run.
const LEAST: f64 = 95.0;

/// Parts of names of test targets that are left out: they run programs, or need a device.
const LEFT_OUT: &[&str] = &["_cli", "verbs_", "loom"];

const REASONS: &str = "docs/coverage.md";

/// Lines by their number from 1: how often each was run.
type Lines = BTreeMap<usize, u64>;

pub fn run() -> Result<()> {
    if !process::succeeds(workspace::cargo("llvm-cov").arg("--version")) {
        bail!(Exit::usage(
            "cargo-llvm-cov is missing: rustup component add llvm-tools && \
             cargo install cargo-llvm-cov --locked"
        ));
    }
    let report = workspace::target_dir()?.join("coverage.lcov");
    let mut test = workspace::cargo("llvm-cov");
    test.args(["test", "--package", workspace::PACKAGE, "--lib"]);
    for target in workspace::test_targets("")? {
        if !LEFT_OUT.iter().any(|part| target.contains(part)) {
            test.args(["--test", &target]);
        }
    }
    test.args(["--lcov", "--output-path"])
        .arg(&report)
        .env("RDMA_MR_THIN", sanitize::THIN);
    process::run(&mut test)?;
    let report = fs::read_to_string(&report).context("cargo-llvm-cov wrote no report")?;
    judge(&report)
}

fn judge(report: &str) -> Result<()> {
    let root = workspace::root();
    let prefix = format!("{}/", root.display());
    let reasons = fs::read_to_string(root.join(REASONS)).context(REASONS)?;
    let (mut rooms, mut total) = (BTreeMap::<String, Tally>::new(), Tally::default());
    let mut unknown = BTreeSet::new();
    for (path, lines) in parse(report) {
        let Some(name) = path.strip_prefix(&prefix) else {
            continue;
        };
        if !name.starts_with("src/") || name.ends_with("/tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let code = house::before_tests(&text);
        let count = code.lines().count();
        let lines: Lines = lines.into_iter().filter(|(at, _)| *at <= count).collect();
        let tally = Tally::of(&lines);
        total.add(tally);
        rooms
            .entry(house::room_of(name).into())
            .or_default()
            .add(tally);
        let missed: Vec<usize> = missed(&lines).collect();
        if !missed.is_empty() {
            println!("{name}: {}", ranges(&missed));
        }
        for function in not_run(code, &lines) {
            if !reasons.contains(&format!("| `{name}` | `{function}` |")) {
                unknown.insert(format!("{name}: {function}"));
            }
        }
    }
    for (room, tally) in &rooms {
        println!("{tally}  {room}");
    }
    println!("{total}  src/");
    if !unknown.is_empty() {
        let unknown = Vec::from_iter(unknown).join("\n");
        bail!("no test runs these, and {REASONS} has no reason:\n{unknown}");
    }
    if total.percent() < LEAST {
        bail!("less than {LEAST} % of the lines");
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Tally {
    lines: usize,
    run: usize,
}

impl Tally {
    fn of(lines: &Lines) -> Self {
        let run = lines.values().filter(|times| **times > 0).count();
        let lines = lines.len();
        Tally { lines, run }
    }

    fn add(&mut self, other: Tally) {
        self.lines += other.lines;
        self.run += other.run;
    }

    fn percent(self) -> f64 {
        100.0 * self.run as f64 / self.lines.max(1) as f64
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { lines, run } = self;
        write!(f, "{:6.2} %  {run:>5} of {lines:>5} lines", self.percent())
    }
}

/// Files and their lines, of a report in the format of lcov.
fn parse(report: &str) -> BTreeMap<String, Lines> {
    let mut files = BTreeMap::<String, Lines>::new();
    let mut file = String::new();
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            path.clone_into(&mut file);
        } else if let Some((at, times)) = line.strip_prefix("DA:").and_then(|l| l.split_once(','))
            && let (Ok(at), Ok(times)) = (at.parse(), times.parse::<u64>())
        {
            *files
                .entry(file.clone())
                .or_default()
                .entry(at)
                .or_default() += times;
        }
    }
    files
}

fn missed(lines: &Lines) -> impl Iterator<Item = usize> + '_ {
    let missed = lines.iter().filter(|(_, times)| **times == 0);
    missed.map(|(at, _)| *at)
}

/// Functions of which no line was run.
fn not_run<'a>(code: &'a str, lines: &Lines) -> BTreeSet<&'a str> {
    let mut functions = Vec::<(&str, Tally)>::new();
    for (number, line) in (1..).zip(code.lines()) {
        functions.extend(function(line).map(|name| (name, Tally::default())));
        if let (Some(times), Some((_, tally))) = (lines.get(&number), functions.last_mut()) {
            tally.lines += 1;
            tally.run += usize::from(*times > 0);
        }
    }
    let none = |(_, tally): &&(&str, Tally)| tally.lines > 0 && tally.run == 0;
    functions
        .iter()
        .filter(none)
        .map(|(name, _)| *name)
        .collect()
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if line.starts_with("//") {
        return None;
    }
    let (before, after) = line.split_once("fn ")?;
    let is_word = |word: &str| {
        let word = word.trim_end_matches(')');
        ["pub", "const", "unsafe", "async"].contains(&word)
            || word.starts_with("pub(")
            || word == "in"
            || word.contains("::")
    };
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    before
        .split_whitespace()
        .all(is_word)
        .then(|| &after[..end])
}

/// `3, 5-7` of 3, 5, 6, 7.
fn ranges(numbers: &[usize]) -> String {
    let mut ranges = Vec::<(usize, usize)>::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let show = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_no_line_was_run_of_are_found() {
        let code =
            "fn a() {\n    1\n}\n    pub(in crate::op) unsafe fn b(x: u8) {\n    // fn no\n}\n";
        let report = "SF:/x.rs\nDA:1,0\nDA:2,1\nDA:4,0\nDA:6,0\nDA:6,0\nend_of_record\n";
        let files = parse(report);
        let lines = &files["/x.rs"];
        assert_eq!(not_run(code, lines), BTreeSet::from(["b"]));
        assert_eq!(ranges(&missed(lines).collect::<Vec<_>>()), "1, 4, 6");
        assert_eq!(ranges(&[3, 5, 6, 7]), "3, 5-7");
        assert_eq!((Tally::of(lines).lines, Tally::of(lines).run), (4, 1));
    }
}
