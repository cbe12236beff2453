//! `cargo xtask loom`: runs the models in `loom_tests/`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, Exit};
use crate::workspace;

pub mod report;

/// Runs every model whose file name contains `filter`; `full` tells the models to raise their
/// bounds. Prints what they explored; `write` puts that into their README.
pub fn run(options: &Options, harness_args: &[OsString]) -> Result<()> {
    let Options {
        full,
        write,
        filter,
    } = options;
    let files = model_files(&workspace::root().join("loom_tests"))?;
    let targets = workspace::test_targets("loom_")?.into_iter().collect();
    let models = select(&files, &targets, filter)?;
    let report = report::file()?;
    let mut test = cargo_test(&workspace::root())?;
    if filter.is_empty() {
        // Models of what is private stand beside the code.
        test.arg("--lib");
    }
    test.args(models.iter().flat_map(|model| ["--test", model.as_str()]))
        .args(["--", "--test-threads=2"])
        .args(harness_args);
    test.env("RDMA_MR_LOOM_REPORT", &report);
    if *full {
        test.env("RDMA_MR_LOOM", "full");
    }
    process::run(&mut test)?;
    report::print(&report)?;
    if *write {
        report::write(&report, *full)?;
    }
    Ok(())
}

/// What is run, and how.
#[derive(Default)]
pub struct Options {
    /// Bounds are raised, or lifted.
    pub full: bool,
    /// The README is written.
    pub write: bool,
    /// Part of the names of files.
    pub filter: String,
}

/// `cargo test` under loom of the crate at `root`.
pub fn cargo_test(root: &Path) -> Result<Command> {
    let mut test = workspace::cargo("test");
    test.current_dir(root)
        .args(["--package", workspace::PACKAGE, "--release"])
        .args(["--no-default-features", "--features", "soft"])
        // Other flags mean other artifacts: in the common directory each would evict the other's.
        .arg("--target-dir")
        .arg(target_dir()?)
        .env("RUSTFLAGS", rustflags(std::env::var("RUSTFLAGS").ok()));
    Ok(test)
}

/// All models of the crate at `root`, a `cargo test` for each build that there is.
pub fn builds(root: &Path) -> Result<Vec<Command>> {
    let mut test = cargo_test(root)?;
    test.args(["--lib", "--test", "loom_*"]);
    Ok(vec![test])
}

/// Where builds under loom go.
pub fn target_dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("loom"))
}

fn rustflags(existing: Option<String>) -> String {
    let existing = existing.unwrap_or_default();
    format!("{existing} --cfg loom").trim_start().to_owned()
}

fn model_files(directory: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(stem) = path.file_stem()
        {
            files.insert(stem.to_string_lossy().into_owned());
        }
    }
    Ok(files)
}

/// The test targets to run. A file that is no target would never be run, and nobody would notice.
fn select(
    files: &BTreeSet<String>,
    targets: &BTreeSet<String>,
    filter: &str,
) -> Result<Vec<String>> {
    let mut selected = Vec::new();
    for file in files {
        let target = format!("loom_{file}");
        if !targets.contains(&target) {
            bail!("loom_tests/{file}.rs is no [[test]] `{target}` in Cargo.toml");
        }
        if file.contains(filter) {
            selected.push(target);
        }
    }
    if selected.is_empty() {
        let known: Vec<&str> = files.iter().map(String::as_str).collect();
        bail!(Exit::usage(format!(
            "no model in loom_tests/ is called `{filter}`; there are: {}",
            known.join(", ")
        )));
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn models_are_selected_by_part_of_their_name() {
        let (files, targets) = (set(&["gate", "ring"]), set(&["loom_gate", "loom_ring"]));
        let all = select(&files, &targets, "").unwrap();
        assert_eq!(all, ["loom_gate", "loom_ring"]);
        assert_eq!(select(&files, &targets, "rin").unwrap(), ["loom_ring"]);
        assert!(select(&files, &targets, "word").is_err());
    }

    #[test]
    fn no_model_goes_unrun() {
        assert!(select(&set(&["gate"]), &set(&[]), "").is_err());
        assert!(select(&set(&[]), &set(&[]), "").is_err());
    }

    #[test]
    fn flags_are_appended_to_the_users() {
        assert_eq!(rustflags(None), "--cfg loom");
        assert_eq!(
            rustflags(Some("-Dwarnings".into())),
            "-Dwarnings --cfg loom"
        );
    }
}
