//! One target while it runs: what libFuzzer says is read as it comes.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    pub runs: u64,
    pub corpus: u64,
    pub edges: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { runs, edges, .. } = self;
        write!(f, "{runs} executions, {edges} edges")
    }
}

/// How a target ended.
pub struct Outcome {
    pub name: String,
    pub seen: Seen,
    pub seconds: f64,
    pub finding: Option<Finding>,
}

/// Something was found.
pub struct Finding {
    /// What the program said of it.
    said: Vec<String>,
    /// The input; there is none if the process itself came to grief.
    input: Option<PathBuf>,
    log: PathBuf,
}

/// Lines of what the program said that are shown; the rest is in the log.
const SHOWN: usize = 12;

impl Outcome {
    /// Tells what was found, and how to see it again.
    pub fn explain(&self) {
        let Some(Finding { said, input, log }) = &self.finding else {
            return;
        };
        println!(
            "\n{} found something (all of it: {}):",
            self.name,
            super::relative(log).display()
        );
        said.iter().for_each(|line| println!("  {line}"));
        if let Some(input) = input {
            let input = super::relative(input).display();
            println!("again:   cargo +nightly fuzz run {} {input}", self.name);
            println!("shorter: cargo +nightly fuzz tmin {} {input}", self.name);
        }
    }
}

/// Runs a target to its end; `seen` is told whenever something is new.
pub fn follow(
    name: &str,
    mut command: Command,
    log: &Path,
    mut seen: impl FnMut(Seen),
) -> Result<Outcome> {
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run the fuzz target `{name}`"))?;
    let output = child.stderr.take().context("it was asked for")?;
    let mut file = File::create(log)?;
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(file, "{line}")?;
        if reader.read(&line) {
            seen(reader.seen);
        }
    }
    let status = child.wait()?;
    let finding = (!status.success()).then(|| Finding {
        said: reader.said,
        input: reader.input,
        log: log.to_owned(),
    });
    Ok(Outcome {
        name: name.to_owned(),
        seen: reader.seen,
        seconds: start.elapsed().as_secs_f64(),
        finding,
    })
}

#[derive(Default)]
struct Reader {
    seen: Seen,
    said: Vec<String>,
    input: Option<PathBuf>,
}

impl Reader {
    /// Whether that was a line about how far it is.
    fn read(&mut self, line: &str) -> bool {
        const FINDINGS: [&str; 3] = ["panicked at", "ERROR: ", "SUMMARY: "];
        let is_first = self.said.is_empty() && FINDINGS.iter().any(|what| line.contains(what));
        if is_first || !self.said.is_empty() && self.said.len() < SHOWN {
            self.said.push(line.to_owned());
        }
        if let Some((_, input)) = line.split_once("Test unit written to ") {
            self.input = Some(input.trim().into());
        }
        if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:") {
            self.seen.runs = runs.trim().parse().unwrap_or(self.seen.runs);
        }
        let Some((runs, rest)) = line
            .strip_prefix('#')
            .and_then(|line| line.split_once('\t'))
        else {
            return false;
        };
        let after = |name: &str| {
            let (_, rest) = rest.split_once(name)?;
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            rest[..end].parse().ok()
        };
        self.seen = Seen {
            runs: runs.parse().unwrap_or(self.seen.runs),
            corpus: after("corp: ").unwrap_or(self.seen.corpus),
            edges: after("cov: ").unwrap_or(self.seen.edges),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let mut reader = Reader::default();
        assert!(!reader.read("INFO: Seed: 1"));
        assert!(reader.read("#12\tNEW    cov: 34 ft: 56 corp: 7/89b exec/s: 0 rss: 40Mb L: 1/9"));
        let seen = Seen {
            runs: 12,
            corpus: 7,
            edges: 34,
        };
        assert_eq!(reader.seen, seen);
        assert!(!reader.read("stat::number_of_executed_units: 99"));
        assert_eq!(reader.seen.runs, 99);
        assert!(reader.said.is_empty());
        for line in ["thread '<unnamed>' panicked at a.rs:1:2:", "not alone"] {
            assert!(!reader.read(line));
        }
        assert!(!reader.read("x; Test unit written to /a/crash-1"));
        assert_eq!(reader.said.len(), 3);
        assert_eq!(reader.input, Some("/a/crash-1".into()));
    }
}
