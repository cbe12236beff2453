//! Instructions in all, by gungraun: its runner has to be there, in the version of the library.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{process, tools, workspace};

const RUNNER: &str = "gungraun-runner";

/// Runs `benches/instructions.rs`, which fails when a path has more instructions than it may.
pub fn run() -> Result<()> {
    let mut bench = workspace::cargo_bench();
    bench.args(["--bench", "instructions"]);
    process::run(bench.env("GUNGRAUN_RUNNER", runner()?))
}

/// The runner, installed if it is missing.
fn runner() -> Result<PathBuf> {
    let lock = std::fs::read_to_string(workspace::root().join("Cargo.lock"))?;
    let version = version_in(&lock, "gungraun").context("Cargo.lock has no gungraun")?;
    tools::tool(RUNNER, version)
}

/// The version of `package` that a lock file has.
fn version_in<'l>(lock: &'l str, package: &str) -> Option<&'l str> {
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(rest.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_the_lock_file() {
        let lock = "name = \"gungraun-runner\"\nversion = \"2\"\n\n\
                    name = \"gungraun\"\nversion = \"1.2.3\"\nsource = \"x\"\n";
        assert_eq!(version_in(lock, "gungraun"), Some("1.2.3"));
        assert_eq!(version_in(lock, "gung"), None);
    }
}
