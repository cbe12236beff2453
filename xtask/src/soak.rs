//! `cargo xtask soak`: `tests/soak.rs` for as long as one likes, on the NIC in software or, in a VM, on
//! soft-RoCE.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::packages::{self, Use};
use crate::process::Exit;
use crate::vm::{self, Guest};
use crate::workspace::{self, executables};

/// Sends what goes from the device to itself over a wire on which packets can be lost.
const MIRROR: &str = include_str!("soak.sh");

/// What the boot may take, and the end.
const MARGIN: Duration = Duration::from_secs(180);

pub struct Options {
    pub minutes: f64,
    /// On soft-RoCE.
    pub verbs: bool,
    /// How many of a hundred packets are lost there.
    pub loss: f64,
    pub seed: Option<u64>,
    /// Where each second's samples go.
    pub csv: Option<PathBuf>,
    /// Not the soak, but these requests by the verbs alone: `examples/answers`.
    pub answers: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            minutes: 20.0,
            verbs: false,
            loss: 0.0,
            seed: None,
            csv: None,
            answers: None,
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    if !options.verbs && options.loss != 0.0 {
        bail!(Exit::usage("packets are lost with `--verbs` only"));
    }
    if options.verbs && options.csv.is_some() {
        bail!(Exit::usage(
            "the VM keeps no files: no `--csv` with `--verbs`"
        ));
    }
    if !options.verbs && options.answers.is_some() {
        bail!(Exit::usage("`--answers` is about a device: with `--verbs`"));
    }
    let time = Duration::try_from_secs_f64(options.minutes * 60.0);
    let time = time.map_err(|error| Exit::usage(format!("--minutes: {error}")))?;
    let mut environment = vec![("RDMA_MR_SOAK_SECONDS", time.as_secs().to_string())];
    environment.extend(options.seed.map(|seed| ("RDMA_MR_SEED", seed.to_string())));
    if options.verbs {
        return on_a_device(&environment, time, options);
    }
    let program = build("test", &["--no-run", "--test", "soak"])?;
    let mut soak = Command::new(program);
    soak.args([
        "--exact",
        "all_at_once_on_the_nic_in_software",
        "--nocapture",
    ]);
    soak.envs(environment);
    if let Some(csv) = &options.csv {
        soak.env("RDMA_MR_CSV", std::path::absolute(csv)?);
    }
    // In this program's place: an interrupt is for it alone.
    Err(soak.exec()).context("cannot run the soak")
}

fn on_a_device(environment: &[(&str, String)], time: Duration, options: &Options) -> Result<()> {
    vm::prerequisites()?;
    packages::ensure(&[Use::Build])?;
    let (program, command) = match &options.answers {
        None => (
            build(
                "test",
                &["--features", "verbs", "--no-run", "--test", "soak"],
            )?,
            "--exact all_at_once_on_a_device --include-ignored --nocapture".to_owned(),
        ),
        Some(mix) => (
            build("build", &["--features", "verbs", "--example", "answers"])?,
            format!(
                "--seconds {} --mix '{mix}' ${{RDMA_MR_GIDS:+--gids $RDMA_MR_GIDS}}",
                time.as_secs()
            ),
        ),
    };
    let mut guest = Guest::new()?;
    guest.add_file(&program, "/tests/program")?;
    let loss = options.loss;
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in environment {
        script += &format!("export {name}={value}\n");
    }
    if loss > 0.0 {
        script += &format!("{MIRROR}lose {loss}\n");
    }
    script += &format!("/tests/program {command}\nstatus=$?\n");
    if loss > 0.0 {
        script += "account || status=1\n";
    }
    script += "exit $status\n";
    guest.add_script("/tests/run", &script);
    let options = vm::Options {
        timeout: time + MARGIN,
        ..vm::Options::default()
    };
    vm::boot(&options, guest, &["/tests/run".to_owned()])
}

fn build(subcommand: &str, what: &[&str]) -> Result<PathBuf> {
    let mut build = workspace::cargo(subcommand);
    build.args(["--package", workspace::PACKAGE, "--release"]);
    let kind = if subcommand == "test" {
        "test"
    } else {
        "example"
    };
    let built = executables(build.args(what), kind)?;
    let (_, program) = built.into_iter().next().context("cargo built no program")?;
    Ok(program)
}
