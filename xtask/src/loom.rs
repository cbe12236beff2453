//! `cargo xtask loom`: runs the models in `loom_tests/`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::models::{self, Model};
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

/// Models are run less long than they are built. Without any optimiser their stacks overflow, which loom makes small.
const SETTINGS: &[&str] = &[
    "debug=0",
    "opt-level=1",
    "package.loom.opt-level=2",
    "package.generator.opt-level=2",
    // Nothing of these is run.
    "package.regex-automata.opt-level=0",
    "package.regex-syntax.opt-level=0",
    "package.tracing-subscriber.opt-level=0",
];

/// The program that the models in `loom_tests/` are, and its source.
pub const TARGET: &str = "loom";
const MAIN: &str = "loom_tests/main.rs";

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
        for setting in SETTINGS {
            cargo.args(["--config", &format!("profile.release.{setting}")]);
        }
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

/// Runs every model whose path contains `filter`; `full` tells the models to raise their bounds. Prints
/// what they explored; `write` puts that into their README.
pub fn run(options: &Options, harness_args: &[OsString]) -> Result<()> {
    let Options {
        full,
        write,
        filter,
    } = options;
    let files = model_files(&workspace::root().join("loom_tests"))?;
    check_modules(&files, &fs::read_to_string(workspace::root().join(MAIN))?)?;
    let models = select(models::all(&workspace::root())?, &files, filter)?;
    let report = report::file()?;
    for build in BUILDS {
        let mut of_build = models.iter().map(|model| build_of(&model.file));
        if !of_build.any(|other| std::ptr::eq(build, other)) {
            continue;
        }
        let mut test = build.cargo_test(&workspace::root())?;
        test.args(["--test", TARGET]);
        if filter.is_empty() && std::ptr::eq(build, &LOOM) {
            // Models of what is private stand beside the code.
            test.arg("--lib");
        }
        test.args(["--", "--test-threads=2"])
            .args((!filter.is_empty()).then_some(filter))
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
    /// Part of a model's path.
    pub filter: String,
}

/// All models of the crate at `root`, a `cargo test` for each build that there is.
pub fn builds(root: &Path) -> Result<[Command; 2]> {
    let (mut loom, mut epoch) = (LOOM.cargo_test(root)?, EPOCH.cargo_test(root)?);
    loom.args(["--lib", "--test", TARGET]);
    epoch.args(["--test", TARGET]);
    Ok([loom, epoch])
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

/// The files of models.
fn model_files(directory: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(stem) = path.file_stem()
            && stem != "main"
        {
            files.insert(stem.to_string_lossy().into_owned());
        }
    }
    Ok(files)
}

/// A file that is no module of `main` would never be run, and nobody would notice.
fn check_modules(files: &BTreeSet<String>, main: &str) -> Result<()> {
    for file in files {
        if !main.lines().any(|line| line == format!("mod {file};")) {
            bail!("loom_tests/{file}.rs is no module of {MAIN}");
        }
    }
    Ok(())
}

/// The models in `loom_tests/` to run.
fn select(models: Vec<Model>, files: &BTreeSet<String>, filter: &str) -> Result<Vec<Model>> {
    let is_selected = |model: &Model| files.contains(&model.file) && model.path().contains(filter);
    let selected: Vec<Model> = models.into_iter().filter(is_selected).collect();
    if selected.is_empty() {
        let known: Vec<&str> = files.iter().map(String::as_str).collect();
        bail!(Exit::usage(format!(
            "no model in loom_tests/ is called `{filter}`; the files are: {}",
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
    fn models_are_selected_by_part_of_their_path() {
        let model = |file: &str, name: &str| Model {
            file: file.into(),
            name: name.into(),
            ..Model::default()
        };
        let models = vec![
            model("gate", "waits"),
            model("ring", "ends"),
            model("lib", "x"),
        ];
        let files = set(&["gate", "ring"]);
        let selected = |filter| {
            let selected = select(models.clone(), &files, filter)?;
            anyhow::Ok(selected.iter().map(Model::path).collect::<Vec<_>>())
        };
        assert_eq!(selected("").unwrap(), ["gate::waits", "ring::ends"]);
        assert_eq!(selected("gate::").unwrap(), ["gate::waits"]);
        assert_eq!(selected("end").unwrap(), ["ring::ends"]);
        assert!(selected("lib").is_err());
    }

    #[test]
    fn no_model_goes_unrun() {
        assert!(check_modules(&set(&["gate"]), "mod common;\nmod gate;\n").is_ok());
        assert!(check_modules(&set(&["gate"]), "mod investigate;\n").is_err());
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
