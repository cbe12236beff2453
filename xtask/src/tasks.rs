//! The sequences behind `cargo xtask lint`, `test` and `ci`.

use std::process::Command;

use anyhow::Result;

use crate::packages::{self, Use};
use crate::process::run;
use crate::steps::Steps;
use crate::workspace::{PACKAGE, cargo};
use crate::{
    VM_TEST_TIMEOUT, downstream, house, instructions, loom, mutants, shuttle, vm, vm_test,
};

/// What is off by default, but for real devices.
const OBSERVED: &str = "tracing,count-refusals";

/// The tests of what only those have.
const OBSERVING: &[&str] = &["counts", "tracing", "watch", "descriptions"];

/// How long `tests/torture.rs` goes on; by itself it is done in a few seconds.
const TORTURE: &str = "60";

/// What goes from one VM to the other: enough for some of the packets to be lost.
const PAIR_MIB: usize = 2;

pub fn lint() -> Result<()> {
    let mut steps = Steps::default();
    steps.run("packages", packages_for_all)?;
    lint_steps(&mut steps)?;
    steps.summary();
    Ok(())
}

pub fn test() -> Result<()> {
    let mut steps = Steps::default();
    test_steps(&mut steps)?;
    steps.summary();
    Ok(())
}

pub fn ci() -> Result<()> {
    let mut steps = Steps::default();
    test_steps(&mut steps)?;
    steps.run("example", || {
        run(cargo("run").args(["--release", "--example", "transfer"]))
    })?;
    steps.summary();
    Ok(())
}

fn test_steps(steps: &mut Steps) -> Result<()> {
    steps.run("packages", packages_for_all)?;
    lint_steps(steps)?;
    let this = std::env::current_exe()?;
    let own = |name| {
        let mut command = Command::new(&this);
        command.arg(name);
        (name, command)
    };
    // Tests wait much of their time, and instructions are counted on one processor: the rest goes to what is built elsewhere.
    steps.beside(["fuzz", "asan"].map(own), |steps| {
        steps.run("tests", || {
            run(cargo("test")
                .arg("--workspace")
                .env("RDMA_MR_SECONDS", TORTURE))
        })?;
        steps.run("tests, observed", || {
            let mut test = cargo("test");
            test.args(["--workspace", "--features", OBSERVED]);
            run(test.args(OBSERVING.iter().flat_map(|name| ["--test", name])))
        })?;
        steps.run("instructions", instructions::run)
    })?;
    steps.run("loom", || loom::run(&loom::Options::default(), &[]))?;
    steps.run("shuttle", || shuttle::run(&shuttle::Options::default()))?;
    steps.run("downstream", downstream::test)?;
    steps.run("mutants", || mutants::run(&mutants::Options::default()))?;
    let options = || vm::Options {
        timeout: VM_TEST_TIMEOUT,
        ..vm::Options::default()
    };
    steps.run("vm test", || vm_test::run(options()))?;
    steps.run("vm pair", || vm_test::pair(&options(), PAIR_MIB))
}

fn lint_steps(steps: &mut Steps) -> Result<()> {
    steps.run("rustfmt", || run(cargo("fmt").args(["--all", "--check"])))?;
    steps.run("house", house::check)?;
    steps.run("orderings", mutants::check)?;
    // What stands in the place of what is off.
    steps.run("clippy", || clippy(&["--package", PACKAGE]))?;
    steps.run("clippy of all with all features", || {
        clippy(&["--workspace", "--features", "verbs", "--features", OBSERVED])
    })?;
    steps.run("rustdoc", || {
        let mut doc = cargo("doc");
        doc.args(["--no-deps", "--release"]);
        run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
    })
}

/// As for a release: what generates code for the build is there already, or is needed for real devices anyway.
fn clippy(what: &[&str]) -> Result<()> {
    let mut clippy = cargo("clippy");
    clippy.args(["--all-targets", "--release"]).args(what);
    run(clippy.args(["--", "-D", "warnings"]))
}

fn packages_for_all() -> Result<()> {
    packages::ensure(&[Use::Build, Use::Vm, Use::Count])
}
