//! `cargo xtask asan`: what takes memory down, under AddressSanitizer and its search for leaks, which need
//! the nightly toolchain.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, Exit};
use crate::workspace::{self, NIGHTLY};

/// Named, so that build scripts and macros, which run on the host, go without.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How the names of the test targets begin that are run; each of them there is.
const TARGETS: &[&str] = &[
    "leases",
    "operation_holds",
    "pool",
    "rotation",
    "shared",
    "split",
    "teardown",
];

/// Of the orders of teardown each so many-th: all of them take minutes.
pub const THIN: &str = "7";

/// Tests that leak on purpose, and what. They are run by themselves, without the search for leaks.
const LEAKS: &[(&str, &str)] = &[
    (
        "r05_a_lease_that_was_forgotten_ends_when_its_time_has_passed",
        "forgets a lease",
    ),
    (
        "r14_the_registration_ends_before_anybody_has_the_bytes",
        "forgets a lease that is reaped",
    ),
    (
        "r14_what_can_not_be_revoked_in_a_drop_is_leaked_and_counted",
        "the region of a lease that the provider refuses to end",
    ),
    (
        "r9_a_forgotten_slot_is_out_for_ever",
        "forgets a slot, and a hold on another",
    ),
    (
        "unsplit_refuses_a_neighbour_on_another_registration",
        "cuts a leaked slice in two, for registrations side by side",
    ),
];

pub fn run() -> Result<()> {
    has_toolchain()?;
    let known = workspace::test_targets("")?;
    let targets = select(&known)?;
    let mut test = cargo_test(&targets)?;
    test.env("ASAN_OPTIONS", "detect_leaks=1").arg("--");
    for (name, _) in LEAKS {
        test.args(["--skip", name]);
    }
    process::run(&mut test)?;

    for (name, why) in LEAKS {
        println!("leaks on purpose: {name} ({why})");
    }
    let mut test = cargo_test(&targets)?;
    test.env("ASAN_OPTIONS", "detect_leaks=0")
        .args(["--", "--exact"])
        .args(LEAKS.iter().map(|(name, _)| name));
    process::run(&mut test)
}

fn cargo_test(targets: &[&String]) -> Result<Command> {
    let mut test = workspace::nightly("cargo");
    test.arg("test")
        .args(["--package", workspace::PACKAGE, "--target", TARGET])
        // Other flags mean other artifacts, as for loom.
        .arg("--target-dir")
        .arg(workspace::target_dir()?.join("asan"))
        .args(targets.iter().flat_map(|target| ["--test", target]))
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("RDMA_MR_THIN", THIN);
    Ok(test)
}

fn has_toolchain() -> Result<()> {
    if process::succeeds(workspace::nightly("rustc").arg("--version")) {
        return Ok(());
    }
    bail!(Exit::usage(format!(
        "AddressSanitizer needs the {NIGHTLY} toolchain: \
         rustup toolchain install {NIGHTLY} --profile minimal"
    )))
}

/// Those to run; a name that stands for none is an error, or nobody would notice.
fn select(known: &[String]) -> Result<Vec<&String>> {
    let mut selected = Vec::new();
    for name in TARGETS {
        let before = selected.len();
        selected.extend(known.iter().filter(|target| target.starts_with(name)));
        if selected.len() == before {
            bail!("there is no test target `{name}*`");
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_selected_by_how_they_begin_and_none_is_missed() {
        let mut known: Vec<String> = TARGETS.iter().map(|name| (*name).to_owned()).collect();
        known.extend(["leases_refused", "verbs_leases"].map(str::to_owned));
        let selected = select(&known).unwrap();
        assert_eq!(selected.len(), TARGETS.len() + 1);
        assert!(selected.iter().any(|name| *name == "leases_refused"));
        known.retain(|name| name != "split");
        assert!(select(&known).is_err());
    }
}
