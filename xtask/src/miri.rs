//! `cargo xtask miri`: tests under Miri, with one model of borrows or both. Needs the nightly toolchain with its
//! component `miri`.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, Exit};
use crate::workspace::{self, NIGHTLY};

/// A `wr_id` is an address as a number, and leads to its region again: what that allows is exposed
/// provenance. Time is the system's: threads that wait have deadlines. Statics are not dropped.
const FLAGS: &str = "-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks";

/// A model of borrows, and what is run with it: targets, and of their tests those whose names contain none
/// of these. The NIC's own tests move megabytes, which takes hours here.
struct Borrows {
    name: &'static str,
    flag: &'static str,
    runs: &'static [(&'static [&'static str], &'static [&'static str])],
}

const MODELS: &[Borrows] = &[
    Borrows {
        name: "tree",
        flag: "-Zmiri-tree-borrows",
        runs: &[
            (&["--lib"], &["soft::"]),
            (&["--test", "pool", "--test", "leases"], &[]),
        ],
    },
    // No registrations: crossbeam-epoch's list of threads breaks this model's rules.
    Borrows {
        name: "stacked",
        flag: "",
        runs: &[(&["--lib"], &["soft::", "dispatch::"])],
    },
];

/// Runs them with the model of that name, or with both.
pub fn run(model: Option<&str>) -> Result<()> {
    let chosen = |borrows: &&Borrows| model.is_none_or(|model| model == borrows.name);
    let models: Vec<_> = MODELS.iter().filter(chosen).collect();
    if models.is_empty() {
        bail!(Exit::usage(
            "the models of borrows are `tree` and `stacked`"
        ));
    }
    has_miri()?;
    for Borrows { name, flag, runs } in models {
        println!("-- {name} borrows");
        for (targets, skipped) in *runs {
            let mut test = miri(&["test", "--package", workspace::PACKAGE]);
            test.args(*targets)
                .arg("--target-dir")
                .arg(workspace::target_dir()?.join("miri"))
                .env("MIRIFLAGS", format!("{FLAGS} {flag}"))
                .arg("--");
            for skipped in *skipped {
                test.args(["--skip", skipped]);
            }
            process::run(&mut test)?;
        }
    }
    Ok(())
}

fn miri(args: &[&str]) -> Command {
    let mut miri = workspace::nightly("cargo");
    miri.arg("miri").args(args);
    miri
}

fn has_miri() -> Result<()> {
    if process::succeeds(&mut miri(&["--version"])) {
        return Ok(());
    }
    bail!(Exit::usage(format!(
        "Miri is missing: rustup toolchain install {NIGHTLY} --profile minimal --component miri,rust-src"
    )))
}
