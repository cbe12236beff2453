//! `cargo xtask fuzz`: the targets in `fuzz/`, each for so many seconds, under AddressSanitizer and its search for leaks.
//! Needs the nightly toolchain and cargo-fuzz, and installs what is missing.
//!
//! They are started by themselves, as `cargo fuzz run` would do it, but that what they find interesting does not go to
//! the seeds in the repository.

mod run;

use std::collections::VecDeque;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, Exit};
use crate::tools;
use crate::workspace::{self, NIGHTLY};
use run::{Outcome, Seen};

const CARGO_FUZZ: &str = "cargo-fuzz";
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// What cargo-fuzz builds for.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The most files that a target's seeds may be, and the most bytes of each.
const SEEDS: usize = 60;
const SEED_LENGTH: u64 = 4096;

pub struct Options {
    /// For each target.
    pub seconds: u64,
    /// All of them, if none is named.
    pub targets: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seconds: 20,
            targets: Vec::new(),
        }
    }
}

/// Where the crate of the targets is.
pub fn directory() -> PathBuf {
    workspace::root().join("fuzz")
}

pub fn run(options: &Options) -> Result<()> {
    let known = targets()?;
    if let Some(name) = options.targets.iter().find(|name| !known.contains(name)) {
        let known = known.join(", ");
        bail!(Exit::usage(format!(
            "no fuzz target `{name}`; there are: {known}"
        )));
    }
    let chosen = match options.targets.is_empty() {
        true => known,
        false => options.targets.clone(),
    };
    lint()?;
    build()?;
    let outcomes = run_all(&chosen, Duration::from_secs(options.seconds))?;
    print(&outcomes);
    for outcome in outcomes.iter().filter(|outcome| outcome.finding.is_some()) {
        outcome.explain();
    }
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.finding.is_some())
        .map(|outcome| &*outcome.name)
        .collect();
    ensure!(failed.is_empty(), "found by {}", failed.join(", "));
    Ok(())
}

/// The names of the targets.
pub fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory().join("fuzz_targets"))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        names.push(name.context("a target's name is no text")?.to_owned());
    }
    names.sort();
    Ok(names)
}

/// What is wrong with the targets as they lie there: each is in the manifest, and has a few small seeds.
pub fn problems() -> Result<Vec<String>> {
    let manifest = fs::read_to_string(directory().join("Cargo.toml"))?;
    let mut problems = Vec::new();
    for name in targets()? {
        if !manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")) {
            problems.push(format!("fuzz/Cargo.toml does not have the target {name}"));
        }
        problems
            .extend(seed_problem(&name).map(|problem| format!("fuzz/corpus/{name}: {problem}")));
    }
    Ok(problems)
}

fn seed_problem(name: &str) -> Option<String> {
    // Others may lie there, of `cargo fuzz run`.
    let mut list = Command::new("git");
    list.args(["ls-files", "-z"]).arg(seeds(name));
    let files = process::text(list.current_dir(workspace::root())).ok()?;
    let files: Vec<&str> = files.split_terminator('\0').collect();
    if files.is_empty() || files.len() > SEEDS {
        return Some(format!("{} seeds, not 1 to {SEEDS}", files.len()));
    }
    let long = |file: &&&str| {
        let file = fs::metadata(workspace::root().join(file));
        file.is_ok_and(|file| file.len() > SEED_LENGTH)
    };
    let long = files.iter().find(long)?;
    Some(format!("{long} has more than {SEED_LENGTH} bytes"))
}

fn seeds(name: &str) -> PathBuf {
    directory().join("corpus").join(name)
}

/// Format and clippy, which the workspace's own do not see.
fn lint() -> Result<()> {
    let manifest = directory().join("Cargo.toml");
    let mut fmt = workspace::cargo("fmt");
    process::run(fmt.arg("--manifest-path").arg(&manifest).arg("--check"))?;
    let mut clippy = workspace::cargo("clippy");
    clippy.arg("--manifest-path").arg(&manifest);
    clippy.arg("--target-dir").arg(workspace::target_dir()?);
    // Nothing is linked, so libFuzzer need not be built; what generates code is there from the workspace's own lint.
    clippy.env("CUSTOM_LIBFUZZER_PATH", "/none/libfuzzer.a");
    process::run(clippy.args(["--lib", "--bins", "--release", "--", "-D", "warnings"]))
}

/// Where `cargo fuzz` builds by itself.
fn target_dir() -> PathBuf {
    directory().join("target")
}

/// Builds all targets at once.
fn build() -> Result<()> {
    let tool = tool()?;
    let mut build = workspace::nightly(&tool.to_string_lossy());
    build.args(["fuzz", "build", "--fuzz-dir", "fuzz", "--target", TRIPLE]);
    process::run(build.arg("--target-dir").arg(target_dir()))
}

/// The toolchain is there; cargo-fuzz, installed if it is missing.
fn tool() -> Result<PathBuf> {
    if !process::succeeds(workspace::nightly("rustc").arg("--version")) {
        println!("installing the {NIGHTLY} toolchain");
        let mut install = Command::new("rustup");
        install.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
        process::run(&mut install)?;
    }
    if let Some(tool) = process::find_program(CARGO_FUZZ) {
        return Ok(tool);
    }
    tools::tool(CARGO_FUZZ, CARGO_FUZZ_VERSION)
}

/// The command that runs a target for that long.
fn command(name: &str, time: Duration) -> Result<Command> {
    let artifacts = directory().join("artifacts").join(name);
    let found = target_dir().join("corpus").join(name);
    for directory in [&artifacts, &found] {
        fs::create_dir_all(directory)?;
    }
    let mut command = Command::new(target_dir().join(TRIPLE).join("release").join(name));
    command
        .current_dir(workspace::root())
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=20", "-len_control=20", "-print_final_stats=1"])
        // Not after every input, where what is freed later (epochs) would be looked for: at the end, for all of them.
        .arg("-detect_leaks=0")
        .env("ASAN_OPTIONS", "detect_leaks=1:detect_odr_violation=0");
    let dictionary = directory().join(format!("{name}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.args([found, seeds(name)]);
    Ok(command)
}

/// Runs them, as many at a time as there are processors.
fn run_all(names: &[String], time: Duration) -> Result<Vec<Outcome>> {
    let logs = target_dir().join("logs");
    fs::create_dir_all(&logs)?;
    let waiting = Mutex::new(names.iter().collect::<VecDeque<_>>());
    let running = Mutex::new(Vec::<(String, Seen)>::new());
    let at_once = std::thread::available_parallelism()?.get().min(names.len());
    let live = |name: &str, seen: Option<Seen>| {
        let mut running = running.lock().expect("nothing panics under it");
        running.retain(|(other, _)| other != name);
        running.extend(seen.map(|seen| (name.to_owned(), seen)));
        show(&running);
    };
    let next = || waiting.lock().expect("nothing panics under it").pop_front();
    let work = || -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        while let Some(name) = next() {
            let log = logs.join(format!("{name}.log"));
            let seen = |seen| live(name, Some(seen));
            let outcome = run::follow(name, command(name, time)?, &log, seen)?;
            live(name, None);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    };
    let mut outcomes = std::thread::scope(|scope| -> Result<Vec<Outcome>> {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            outcomes.extend(worker.join().expect("it does not panic")?);
        }
        Ok(outcomes)
    })?;
    outcomes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(outcomes)
}

/// One line that changes, where there is somebody to see it.
fn show(running: &[(String, Seen)]) {
    let mut out = std::io::stdout();
    if !out.is_terminal() {
        return;
    }
    let one = |(name, seen): &(String, Seen)| format!("{name}: {seen}");
    let line: Vec<String> = running.iter().map(one).collect();
    // The rest of the line before is wiped out.
    let _ = write!(out, "\r{}\x1b[K", line.join("   "));
    let _ = out.flush();
}

fn print(outcomes: &[Outcome]) {
    println!(
        "\n{:14}{:>12}{:>10}{:>9}{:>8}  ",
        "target", "executions", "per s", "corpus", "edges"
    );
    for Outcome {
        name,
        seen,
        seconds,
        finding,
    } in outcomes
    {
        let Seen {
            runs,
            corpus,
            edges,
        } = seen;
        let per_second = *runs as f64 / seconds.max(0.001);
        let end = if finding.is_some() { "FOUND" } else { "" };
        println!("{name:14}{runs:>12}{per_second:>10.0}{corpus:>9}{edges:>8}  {end}");
    }
}

/// `path` as seen from the root of the workspace.
fn relative(path: &Path) -> &Path {
    path.strip_prefix(workspace::root()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_in_the_manifest_and_has_seeds() {
        assert!(targets().unwrap().contains(&"word".to_owned()));
        assert_eq!(problems().unwrap(), [""; 0]);
    }
}
