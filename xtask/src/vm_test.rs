//! `cargo xtask vm test`: runs what needs a verbs device, in one VM that has one; `vm pair`: what needs two
//! hosts, in two.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::packages::{self, Use};
use crate::vm::{self, Guest};
use crate::workspace::{self, executables};

/// Shell functions; the items to run are appended.
const FUNCTIONS: &str = include_str!("vm_test.sh");

/// More of them, for two guests that are joined.
const PAIR: &str = include_str!("vm_pair.sh");

const MODES: [&str; 3] = ["send", "write", "read"];

/// How many of a hundred packets are lost between two guests.
const LOSSES: [u8; 2] = [0, 1];

const EXAMPLES: [&str; 5] = [
    "transfer",
    "raw_verbs",
    "adopt_rdma_sys",
    "pingpong",
    "answers",
];

/// The test that looks for bytes in the wrong order: an optimiser may order them as no other build does.
const OPTIMISED: &str = "verbs_torture";

/// The example that is a crate of its own.
const SIDEWAY: &str = "adopt_sideway";

/// Each transfer has a port of its own: a closed one may stay taken for a while.
const FIRST_PORT: u16 = 18515;

/// Builds the programs, boots a VM with `options` and runs them in it.
pub fn run(options: vm::Options) -> Result<()> {
    vm::prerequisites()?;
    packages::ensure(&[Use::Build])?;
    let tests = tests()?;
    let mut command = optimised("build");
    for name in EXAMPLES {
        command.args(["--example", name]);
    }
    let mut examples = executables(&mut command, "example")?;
    examples.extend(executables(&mut workspace::build_sideway()?, "bin")?);

    let mut guest = Guest::new()?;
    let mut script = FUNCTIONS.to_owned();
    for (name, path) in &tests {
        let program = format!("/tests/{name}");
        guest.add_file(path, &program)?;
        script += &format!("run_test {name} {program}\n");
    }
    for name in EXAMPLES.into_iter().chain([SIDEWAY]) {
        let mut built = examples.iter();
        let example = built.find(|(example, _)| example == name);
        let (_, path) = example.with_context(|| format!("cargo built no `{name}`"))?;
        guest.add_file(path, &format!("/tests/{name}"))?;
    }
    for (mode, port) in MODES.iter().zip(FIRST_PORT..) {
        script += &format!("run_transfer /tests/transfer {mode} {port}\n");
    }
    script += "run_lost /tests/transfer 18530\n";
    script += "run_refusal 'transfer to nobody' 'cannot reach' \\\n\
               /tests/transfer --connect $RDMA_MR_VM_ADDR:18531 $DATA\n";
    script += "run_refusal 'transfer of no file' 'cannot open' \\\n\
               /tests/transfer --connect $RDMA_MR_VM_ADDR:18532 /no/such/file\n";
    for name in ["raw_verbs", "adopt_rdma_sys", SIDEWAY] {
        script += &format!("run_program {name} /tests/{name}\n");
    }
    script += "run_program answers /tests/answers --seconds 2\n";
    script += "run_program 'pingpong --soft' /tests/pingpong --iterations 1000\n";
    // At most 3 % at the median: what the crate promises.
    for size in [8, 4096] {
        script += &format!(
            "run_pingpong 'pingpong --device --size {size} --check 3' \\\n\
               /tests/pingpong --device --size {size} --contests 6 --iterations 2000 --block 10 --check 3\n"
        );
    }
    script += "finish\n";
    guest.add_script("/tests/run", &script);
    vm::boot(&options, guest, &["/tests/run".to_owned()])
}

/// Builds all tests of devices, but for [`OPTIMISED`] with what is asserted in debug builds, and on the libraries
/// that `cargo test` has built.
fn tests() -> Result<Vec<(String, PathBuf)>> {
    let (last, names): (Vec<_>, Vec<_>) = workspace::test_targets("verbs_")?
        .into_iter()
        .partition(|name| name == OPTIMISED);
    if names.is_empty() || last.is_empty() {
        bail!("there is no test target `verbs_*` or no `{OPTIMISED}` to run");
    }
    let mut tests = Vec::new();
    for (mut command, names) in [(build("test"), names), (optimised("test"), last)] {
        command.arg("--no-run");
        command.args(names.iter().flat_map(|name| ["--test", name]));
        tests.extend(executables(&mut command, "test")?);
    }
    Ok(tests)
}

/// `cargo xtask vm pair`: sends a file of so many MiB from one VM to another, in all modes, and again while packets are lost.
pub fn pair(options: &vm::Options, mib: usize) -> Result<()> {
    vm::prerequisites()?;
    packages::ensure(&[Use::Build])?;
    let built = executables(
        optimised("build").args(["--example", "transfer"]),
        "example",
    )?;
    let (_, transfer) = built.first().context("cargo built no `transfer`")?;
    let mut guest = Guest::new()?;
    guest.add_file(transfer, "/tests/transfer")?;
    let mut file = vec![0; mib << 20];
    SmallRng::from_os_rng().fill_bytes(&mut file);
    guest.add_data("/data", file);
    let mut script = format!("{FUNCTIONS}DATA=/data\n{PAIR}");
    let losses = LOSSES
        .iter()
        .flat_map(|loss| MODES.map(|mode| (mode, loss)));
    for ((mode, loss), port) in losses.zip(FIRST_PORT..) {
        script += &format!("run_joined /tests/transfer {mode} {port} {loss}\n");
    }
    script += "finish\n";
    guest.add_script("/tests/run", &script);
    vm::boot_pair(options, guest, &["/tests/run".to_owned()])
}

fn build(subcommand: &str) -> Command {
    let mut command = workspace::cargo(subcommand);
    command.args(["--package", workspace::PACKAGE, "--features", "verbs"]);
    command
}

fn optimised(subcommand: &str) -> Command {
    let mut command = build(subcommand);
    command.arg("--release");
    command
}
