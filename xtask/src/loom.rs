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

/// Models that are built with the same flags. Other flags mean other artifacts: in one directory each build
/// would evict the other's.
struct Build {
    flags: &'static str,
    directory: &'static str,
    /// The files of `loom_tests/` that are models in this build only; all others are in [`LOOM`].
    own: &'static [&'static str],
}

static LOOM: Build = Build {
    flags: "--cfg loom",
    directory: "loom",
    own: &[],
};

/// With crossbeam-epoch as loom sees it: models that don't ask for it would take longer by far.
static EPOCH: Build = Build {
    flags: "--cfg loom --cfg crossbeam_loom",
    directory: "loom-epoch",
    own: &["snapshot"],
};

static BUILDS: [&Build; 2] = [&LOOM, &EPOCH];

/// Not a build for loom, but of the same kind.
static SHUTTLE: Build = Build {
    flags: "--cfg shuttle",
    directory: "shuttle",
    own: &[],
};

/// The build in which that file of `loom_tests/` has models.
fn build_of(file: &str) -> &'static Build {
    let owner = BUILDS.into_iter().find(|build| build.own.contains(&file));
    owner.unwrap_or(&LOOM)
}

impl Build {
    /// `cargo test` in this build of the crate at `root`.
    fn cargo_test(&self, root: &Path) -> Result<Command> {
        let mut test = workspace::cargo("test");
        test.current_dir(root)
            .args(["--package", workspace::PACKAGE, "--release"])
            .args(["--no-default-features", "--features", "soft"]);
        self.apply(&mut test)?;
        Ok(test)
    }

    /// Makes a cargo build one of this kind.
    fn apply<'c>(&self, cargo: &'c mut Command) -> Result<&'c mut Command> {
        Ok(cargo
            .arg("--target-dir")
            .arg(workspace::target_dir()?.join(self.directory))
            .env("RUSTFLAGS", self.rustflags(std::env::var("RUSTFLAGS").ok())))
    }

    fn rustflags(&self, existing: Option<String>) -> String {
        let existing = existing.unwrap_or_default();
        format!("{existing} {}", self.flags).trim_start().to_owned()
    }
}

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
    for build in BUILDS {
        let mut test = build.cargo_test(&workspace::root())?;
        let files = models
            .iter()
            .filter(|file| std::ptr::eq(build_of(file), build));
        let targets: Vec<String> = files.map(|file| target(file)).collect();
        // Models of what is private stand beside the code.
        let has_lib = filter.is_empty() && std::ptr::eq(build, &LOOM);
        if targets.is_empty() && !has_lib {
            continue;
        }
        test.args(has_lib.then_some("--lib"))
            .args(targets.iter().flat_map(|name| ["--test", name.as_str()]))
            .args(["--", "--test-threads=2"])
            .args(harness_args)
            .env("RDMA_MR_LOOM_REPORT", &report);
        if *full {
            test.env("RDMA_MR_LOOM", "full");
        }
        process::run(&mut test)?;
    }
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

/// All models of the crate at `root`, a `cargo test` for each build that there is.
pub fn builds(root: &Path) -> Result<Vec<Command>> {
    let mut all = LOOM.cargo_test(root)?;
    all.args(["--lib", "--test", "loom_*"]);
    let mut builds = vec![all];
    for build in BUILDS.into_iter().filter(|build| !build.own.is_empty()) {
        let mut test = build.cargo_test(root)?;
        test.args(
            build
                .own
                .iter()
                .flat_map(|file| ["--test".to_owned(), target(file)]),
        );
        builds.push(test);
    }
    Ok(builds)
}

/// `cargo test` under shuttle.
pub fn under_shuttle() -> Result<Command> {
    SHUTTLE.cargo_test(&workspace::root())
}

/// Makes a cargo build for loom.
pub fn under_loom(cargo: &mut Command) -> Result<&mut Command> {
    LOOM.apply(cargo)
}

/// Where builds under loom go.
pub fn target_dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join(LOOM.directory))
}

/// The name of that file's target.
fn target(file: &str) -> String {
    format!("loom_{file}")
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

/// The files to run. One that is no target would never be run, and nobody would notice.
fn select(
    files: &BTreeSet<String>,
    targets: &BTreeSet<String>,
    filter: &str,
) -> Result<Vec<String>> {
    let mut selected = Vec::new();
    for file in files {
        let target = target(file);
        if !targets.contains(&target) {
            bail!("loom_tests/{file}.rs is no [[test]] `{target}` in Cargo.toml");
        }
        if file.contains(filter) {
            selected.push(file.clone());
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
        assert_eq!(all, ["gate", "ring"]);
        assert_eq!(select(&files, &targets, "rin").unwrap(), ["ring"]);
        assert!(select(&files, &targets, "word").is_err());
    }

    #[test]
    fn no_model_goes_unrun() {
        assert!(select(&set(&["gate"]), &set(&[]), "").is_err());
        assert!(select(&set(&[]), &set(&[]), "").is_err());
    }

    #[test]
    fn flags_are_appended_to_the_users() {
        assert_eq!(LOOM.rustflags(None), "--cfg loom");
        assert_eq!(
            LOOM.rustflags(Some("-Dwarnings".into())),
            "-Dwarnings --cfg loom"
        );
    }

    #[test]
    fn every_build_has_its_models() {
        assert_eq!(build_of("gate").directory, LOOM.directory);
        assert_eq!(build_of("snapshot").directory, EPOCH.directory);
        let files = model_files(&workspace::root().join("loom_tests")).unwrap();
        let mut own = BUILDS.iter().flat_map(|build| build.own);
        assert!(own.all(|file| files.contains(*file)));
    }
}
