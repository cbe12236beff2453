//! The crates in `examples/downstream_*`, which stand for those of users: their models under loom, and their fuzz harness
//! on a corpus from a seed.

use std::process::Command;

use anyhow::Result;

use crate::process::run;
use crate::{loom, workspace};

const LOOM: &str = "examples/downstream_loom/Cargo.toml";
const FUZZ: &str = "examples/downstream_fuzz/Cargo.toml";

pub fn test() -> Result<()> {
    for manifest in [LOOM, FUZZ] {
        run(cargo("fmt", manifest).arg("--check"))?;
        let mut clippy = in_target_dir(cargo("clippy", manifest))?;
        run(clippy.args(["--all-targets", "--release", "--", "-D", "warnings"]))?;
    }
    run(loom::under_loom(cargo("test", LOOM).arg("--release"))?)?;
    run(&mut in_target_dir(cargo("test", FUZZ))?)
}

fn cargo(subcommand: &str, manifest: &str) -> Command {
    let mut cargo = workspace::cargo(subcommand);
    cargo.args(["--manifest-path", manifest]);
    cargo
}

/// Crates of their own would build in a directory of their own.
fn in_target_dir(mut cargo: Command) -> Result<Command> {
    cargo.arg("--target-dir").arg(workspace::target_dir()?);
    Ok(cargo)
}
