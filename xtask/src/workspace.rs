//! Where the workspace is, what targets it has, and how cargo is called on it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The package that is tested.
pub const PACKAGE: &str = "rdma-mr";

/// The package of what is measured.
const BENCHES: &str = "rdma-mr-benches";

pub const NIGHTLY: &str = "nightly";

/// The root of the repository.
///
/// What `cargo run` says goes before what the compiler saw: checkouts that share a target directory
/// share this program.
pub fn root() -> PathBuf {
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR");
    let mut root = PathBuf::from(manifest_dir.unwrap_or(env!("CARGO_MANIFEST_DIR").into()));
    root.pop();
    root
}

/// `cargo SUBCOMMAND` in the root of the workspace, by the cargo that started this program.
pub fn cargo(subcommand: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg(subcommand).current_dir(root());
    command
}

/// `cargo bench` of that package.
pub fn cargo_bench() -> Command {
    let mut bench = cargo("bench");
    bench.args(["--package", BENCHES]);
    bench
}

/// `PROGRAM` of the nightly toolchain, in the root of the workspace.
pub fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", NIGHTLY, program]).current_dir(root());
    // What the cargo that runs this program says of its own toolchain.
    for variable in ["CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(variable);
    }
    command
}

/// `cargo build` of the example that is a crate of its own, because of the binding that it uses.
pub fn build_sideway() -> Result<Command> {
    let mut build = cargo("build");
    build.args(["--manifest-path", "examples/adopt_sideway/Cargo.toml"]);
    build.arg("--target-dir").arg(target_dir()?);
    Ok(build)
}

/// The directory that build products and caches go to.
pub fn target_dir() -> Result<PathBuf> {
    let directory = metadata()?["target_directory"].as_str().map(PathBuf::from);
    directory.context("cargo metadata names no target directory")
}

/// The names of the package's test targets that start with `prefix`.
pub fn test_targets(prefix: &str) -> Result<Vec<String>> {
    let metadata = metadata()?;
    let package = items(&metadata["packages"]).find(|package| package["name"] == PACKAGE);
    let package = package.with_context(|| format!("no package `{PACKAGE}` in the workspace"))?;
    let names = items(&package["targets"])
        .filter(|target| is_kind(target, "test"))
        .filter_map(|target| target["name"].as_str())
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect();
    Ok(names)
}

/// Builds the bench of that name, and says where it is.
pub fn bench(name: &str) -> Result<PathBuf> {
    let mut build = cargo_bench();
    let built = executables(build.args(["--no-run", "--bench", name]), "bench")?;
    let program = built.into_iter().next().map(|(_, program)| program);
    program.with_context(|| format!("cargo built no bench `{name}`"))
}

/// Runs a `cargo build` or `cargo test --no-run` and returns the executables it made of targets of
/// this kind, by name and path, in the order of names. Compiler messages go to the terminal.
pub fn executables(command: &mut Command, kind: &str) -> Result<Vec<(String, PathBuf)>> {
    let messages = process::text(command.arg("--message-format=json-render-diagnostics"))?;
    let found = messages
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).context("cargo printed an unreadable message"))
        .filter_map(|message| message.map(|m| executable(&m, kind)).transpose());
    let mut found = found.collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

fn executable(message: &Value, kind: &str) -> Option<(String, PathBuf)> {
    let path = message["executable"].as_str()?;
    let name = message["target"]["name"].as_str()?;
    is_kind(&message["target"], kind).then(|| (name.to_owned(), path.into()))
}

fn metadata() -> Result<Value> {
    let mut command = cargo("metadata");
    command.args(["--no-deps", "--format-version=1"]);
    serde_json::from_slice(&process::output(&mut command)?).context("cargo metadata is unreadable")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is_kind(target: &Value, kind: &str) -> bool {
    items(&target["kind"]).any(|k| k == kind)
}

/// Where in `text` the lines are that are written between the lines `begin` and `end`.
pub fn between(text: &str, begin: &str, end: &str) -> Result<Range<usize>> {
    let start = text
        .find(begin)
        .with_context(|| format!("no line {begin}"))?;
    let start = start + begin.len();
    let length = text[start..].find(end);
    Ok(start..start + length.with_context(|| format!("no line {end}"))?)
}

/// All Rust files below a directory, with their text.
pub fn sources(directory: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            found.insert(path, text);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executables_of_the_kind_are_taken() {
        let message = |kind: &str, executable: Value| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "target": {"name": "verbs_a", "kind": [kind]},
                "executable": executable,
            })
        };
        let found = executable(&message("test", "/t/verbs_a-1".into()), "test");
        assert_eq!(found, Some(("verbs_a".into(), "/t/verbs_a-1".into())));
        assert_eq!(executable(&message("test", Value::Null), "test"), None);
        assert_eq!(executable(&message("lib", "/t/x".into()), "test"), None);
    }
}
