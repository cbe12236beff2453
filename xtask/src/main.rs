//! `cargo xtask`: the command line of the project's own tools, and nothing but the command line.

mod coverage;
mod downstream;
#[allow(dead_code, reason = "benches write what is read here")]
#[path = "../../benches/shapes/report.rs"]
mod figures;
mod fuzz;
mod house;
mod instructions;
mod lines;
mod loom;
mod miri;
mod models;
mod mutants;
mod packages;
mod process;
mod report;
mod sanitize;
mod shuttle;
mod soak;
mod steps;
mod tasks;
mod tools;
mod vm;
mod vm_test;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

use crate::process::Exit;

const USAGE: &str = "\
Usage: cargo xtask <command>

  test                     everything: packages, lint, tests, models, real verbs in a VM
  lint                     rustfmt, the house's own rules, clippy (with and without `verbs`),
                           rustdoc; warnings are errors
  loom [--full] [--write] [FILTER] [-- ARGS...]
                           the models in loom_tests/ whose path, as in gate::NAME, contains FILTER;
                           ARGS go to the test harness; --full raises the bounds, or
                           lifts them; --write puts the table into their README
  shuttle [--seed SEED] [--iterations N] [FILTER]
                           the models in loom_tests/shuttle/ whose name contains FILTER, N executions
                           of each by each scheduler; a failure prints the SEED that brings it back
  downstream               the crates in examples/downstream_*, which stand for those of users
  clauses                  writes into SAFETY.md which model shows and which breaks each clause
  mutants [--list] [--sample N [--seed S]] [FILTER]
                           breaks the crate, one change at a time, in the files whose path contains
                           FILTER: each ordering by one step, and by hand; a model must fail each
                           time. All of them, or N at random
  asan                     what takes memory down, under AddressSanitizer (nightly)
  miri [tree|stacked]      tests under Miri, with these borrows or with both (nightly)
  fuzz [--time SECONDS] [TARGET...]
                           the fuzz targets, or these, so long each (20 s), under AddressSanitizer (nightly)
  soak [--minutes N] [--seed S] [--csv FILE] [--verbs [--loss PERCENT] [--answers MIX]]
                           everything at once for N minutes (20), with a live line: bytes, leaks, holds, memory;
                           --verbs on soft-RoCE in a VM, where PERCENT of the packets are lost; --answers
                           in its place requests by the verbs alone, as in add,write8: examples/answers
  coverage                 which lines of src/ the tests run (cargo-llvm-cov)
  instructions             what an operation costs, counted under callgrind: RMWs, instructions
  bench-report [--quick] [--draw] [FILTER]
                           runs the benches whose name contains FILTER and writes docs/performance.md;
                           --quick measures once, --draw takes what was measured before
  lines                    how often a cache line comes from elsewhere per operation, with 1 to 16 threads:
                           accesses recorded by lackey, replayed in a simulation; for the report as well
  vm [--timeout SECONDS] [--memory MIB] [--file HOST[:GUEST]]... -- CMD [ARGS...]
                           run CMD in a VM with a soft-RoCE device (rxe0, 10.0.0.1)
  vm test [--timeout SECONDS] [--memory MIB]
                           tests/verbs_*.rs and examples/transfer.rs in such a VM
  vm pair [--timeout SECONDS] [--memory MIB] [--size MIB]
                           a file (64 MiB) from one VM to another, joined by a wire, without loss and with 1 %
  ci                       test, and the README's example
";

/// The limit of `vm test`, which boots once and runs many programs.
const VM_TEST_TIMEOUT: Duration = Duration::from_secs(900);

/// What `vm pair` sends.
const PAIR_MIB: usize = 64;

fn main() -> ExitCode {
    let result = dispatch(std::env::args_os().skip(1).collect());
    let result = result.map_err(|error| match error.downcast::<lexopt::Error>() {
        Ok(error) => Exit::usage(error).into(),
        Err(error) => error,
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit = error.downcast_ref::<Exit>();
            if exit.is_none_or(|exit| !exit.message.is_empty()) {
                eprintln!("xtask: {error:#}");
            }
            ExitCode::from(exit.map_or(1, |exit| exit.code))
        }
    }
}

fn dispatch(mut args: Vec<OsString>) -> Result<()> {
    let rest = split_at_dashes(&mut args);
    let mut args = lexopt::Parser::from_args(args);
    let command = match args.next()? {
        Some(Value(command)) => command.string()?,
        Some(Long("help") | Short('h')) => {
            print!("{USAGE}");
            return Ok(());
        }
        Some(other) => return Err(other.unexpected().into()),
        None => bail!(Exit::usage(format!("no command given\n\n{USAGE}"))),
    };
    if rest.is_some() && !matches!(command.as_str(), "vm" | "loom") {
        bail!(Exit::usage(format!("`{command}` takes nothing after `--`")));
    }
    match command.as_str() {
        "vm" => return vm_command(args, rest),
        "loom" => return loom_command(args, rest.unwrap_or_default()),
        "shuttle" => return shuttle_command(args),
        "mutants" => return mutants_command(args),
        "miri" => return miri_command(args),
        "fuzz" => return fuzz_command(args),
        "soak" => return soak_command(args),
        "bench-report" => return report_command(args),
        _ => {}
    }
    if let Some(extra) = args.next()? {
        return Err(extra.unexpected().into());
    }
    match command.as_str() {
        "test" => tasks::test(),
        "lint" => tasks::lint(),
        "clauses" => house::clauses::write(),
        "downstream" => downstream::test(),
        "asan" => sanitize::run(),
        "coverage" => coverage::run(),
        "instructions" => instructions::run(),
        "lines" => lines::run(),
        "ci" => tasks::ci(),
        other => bail!(Exit::usage(format!("no command `{other}`\n\n{USAGE}"))),
    }
}

/// Takes everything behind the first `--` out of `args`; `None` when there is no `--`.
///
/// Done before the options are parsed, so that `vm test` is the subcommand and `vm -- test` the
/// guest's program of that name.
fn split_at_dashes(args: &mut Vec<OsString>) -> Option<Vec<OsString>> {
    let at = args.iter().position(|arg| arg == "--")?;
    let rest = args.split_off(at + 1);
    args.pop();
    Some(rest)
}

fn loom_command(mut args: lexopt::Parser, harness_args: Vec<OsString>) -> Result<()> {
    let mut options = loom::Options::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("full") => options.full = true,
            Long("write") => options.write = true,
            Value(value) if options.filter.is_empty() => options.filter = value.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    loom::run(&options, &harness_args)
}

fn shuttle_command(mut args: lexopt::Parser) -> Result<()> {
    let mut options = shuttle::Options::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("seed") => options.seed = Some(args.value()?.parse()?),
            Long("iterations") => options.iterations = Some(args.value()?.parse()?),
            Value(value) if options.filter.is_none() => options.filter = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    shuttle::run(&options)
}

fn mutants_command(mut args: lexopt::Parser) -> Result<()> {
    let mut options = mutants::Options::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("list") => options.list = true,
            Long("sample") => options.sample = Some(args.value()?.parse()?),
            Long("seed") => options.seed = Some(args.value()?.parse()?),
            Value(value) if options.filter.is_empty() => options.filter = value.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    mutants::run(&options)
}

fn miri_command(mut args: lexopt::Parser) -> Result<()> {
    let mut only = None;
    while let Some(arg) = args.next()? {
        match arg {
            Value(value) if only.is_none() => only = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    miri::run(only.as_deref())
}

fn fuzz_command(mut args: lexopt::Parser) -> Result<()> {
    let mut options = fuzz::Options::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("time") => options.seconds = args.value()?.parse()?,
            Value(value) => options.targets.push(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    fuzz::run(&options)
}

fn soak_command(mut args: lexopt::Parser) -> Result<()> {
    let mut options = soak::Options::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("minutes") => options.minutes = args.value()?.parse()?,
            Long("verbs") => options.verbs = true,
            Long("loss") => options.loss = args.value()?.parse()?,
            Long("seed") => options.seed = Some(args.value()?.parse()?),
            Long("csv") => options.csv = Some(args.value()?.into()),
            Long("answers") => options.answers = Some(args.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    soak::run(&options)
}

fn report_command(mut args: lexopt::Parser) -> Result<()> {
    let mut options = report::Options::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("quick") => options.quick = true,
            Long("draw") => options.draw = true,
            Value(value) if options.filter.is_empty() => options.filter = value.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    report::run(&options)
}

fn vm_command(mut args: lexopt::Parser, command: Option<Vec<OsString>>) -> Result<()> {
    let mut options = vm::Options::default();
    let mut timeout = None;
    let (mut several, mut size) = (None, None);
    while let Some(arg) = args.next()? {
        match arg {
            Long("timeout") => timeout = Some(Duration::from_secs(args.value()?.parse()?)),
            Long("memory") => options.memory_mib = args.value()?.parse()?,
            Long("size") => size = Some(args.value()?.parse()?),
            Long("file") => options.files.push(args.value()?.string()?.parse()?),
            Value(value) if (value == "test" || value == "pair") && several.is_none() => {
                several = Some(value.string()?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if size.is_some() && several.as_deref() != Some("pair") {
        bail!(Exit::usage("`--size` is of `vm pair`"));
    }
    if let Some(several) = several {
        if command.is_some() || !options.files.is_empty() {
            bail!(Exit::usage(format!(
                "`vm {several}` takes no command and no files"
            )));
        }
        options.timeout = timeout.unwrap_or(VM_TEST_TIMEOUT);
        return match several.as_str() {
            "pair" => vm_test::pair(&options, size.unwrap_or(PAIR_MIB)),
            _ => vm_test::run(options),
        };
    }
    options.timeout = timeout.unwrap_or(options.timeout);
    let command = command
        .unwrap_or_default()
        .into_iter()
        .map(|arg| arg.string().context("the guest's arguments must be UTF-8"))
        .collect::<Result<Vec<_>>>()?;
    if command.is_empty() {
        bail!(Exit::usage("`vm` needs a command behind `--`"));
    }
    vm::run(&options, &command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_behind_the_first_dashes_are_left_alone() {
        let mut args: Vec<OsString> = ["vm", "--memory", "9", "--", "sh", "--", "-c"]
            .map(OsString::from)
            .to_vec();
        let rest = split_at_dashes(&mut args).unwrap();
        assert_eq!(args, ["vm", "--memory", "9"]);
        assert_eq!(rest, ["sh", "--", "-c"]);
        assert_eq!(split_at_dashes(&mut args), None);
    }
}
