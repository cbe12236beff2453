//! `cargo xtask mutants`: shows that the models can fail. Breaks the crate's source in a copy, one
//! hand-made change at a time, and expects a model to fail each time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{loom, workspace};

mod gate;
mod list;
mod op;
mod pool;
mod shared;

use list::MUTANTS;

/// What the copy needs to be a package whose models build.
const COPIED: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "benches",
    "examples",
    "loom_tests",
];

struct Mutant {
    name: &'static str,
    /// Stands exactly once in the file.
    from: &'static str,
    to: &'static str,
    /// A model that must fail: its file and its name.
    model: (&'static str, &'static str),
}

/// Those of the files whose path contains `filter`.
pub fn run(filter: &str) -> Result<()> {
    let root = workspace::root();
    let copy = loom::target_dir()?.join("mutant");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    fs::create_dir_all(&copy)?;
    for name in COPIED {
        let status = Command::new("cp")
            .arg("-r")
            .args([root.join(name), copy.join(name)])
            .status()?;
        ensure!(status.success(), "cannot copy {name}");
    }
    // The copy is a workspace of its own, without this program.
    edit(
        &copy.join("Cargo.toml"),
        "members = [\"xtask\"]",
        "members = []",
    )?;

    // Without a change the models pass: a failure below is the change's.
    ensure!(passes(&copy, None)?, "the models fail in an unchanged copy");
    let (mut count, mut survived) = (0, 0);
    for (name, mutants) in MUTANTS.iter().filter(|(name, _)| name.contains(filter)) {
        let file = copy.join(name);
        for mutant in *mutants {
            edit(&file, mutant.from, mutant.to).with_context(|| mutant.name)?;
            let passed = passes(&copy, Some(mutant.model)).with_context(|| mutant.name)?;
            fs::copy(root.join(name), &file)?;
            count += 1;
            survived += usize::from(passed);
            let verdict = if passed { "SURVIVED" } else { "killed by" };
            println!("{verdict} {}: {name}: {}", mutant.model.1, mutant.name);
        }
    }
    println!("{count} mutants, {survived} survived");
    if survived > 0 {
        bail!("a model does not see what it is there to see");
    }
    Ok(())
}

/// Replaces the one place where `from` stands.
fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let places = text.matches(from).count();
    ensure!(
        places == 1,
        "{} has {places} places like {from:?}",
        file.display()
    );
    fs::write(file, text.replace(from, to))?;
    Ok(())
}

/// Whether the models, or the one named, pass in the crate at `root`; an error if it does not build.
fn passes(root: &Path, model: Option<(&str, &str)>) -> Result<bool> {
    let mut build = loom::cargo_test(root)?;
    let file = model.map_or("*", |(file, _)| file);
    build.args(["--quiet", "--no-run", "--test", &format!("loom_{file}")]);
    // Most of the time goes into builds.
    for setting in ["opt-level=1", "debug=0", "incremental=true"] {
        let package = match setting {
            "incremental=true" => String::new(),
            _ => format!("package.{}.", workspace::PACKAGE),
        };
        let setting = format!("profile.release.{package}{setting}");
        build.args(["--config", &setting]);
    }
    let programs = workspace::executables(&mut build, "test")?;
    ensure!(!programs.is_empty(), "no models were built");
    for (_, program) in programs {
        let mut run = Command::new(program);
        if let Some((_, model)) = model {
            run.args(["--exact", model]);
        }
        // A model that fails says so at length, and may abort.
        run.env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !run.status()?.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_changes_one_place() {
        for (file, mutants) in MUTANTS {
            let text = fs::read_to_string(workspace::root().join(file)).unwrap();
            for mutant in *mutants {
                assert_eq!(text.matches(mutant.from).count(), 1, "{}", mutant.name);
                assert_ne!(mutant.from, mutant.to);
            }
        }
    }
}
