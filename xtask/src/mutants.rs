//! `cargo xtask mutants`: shows that the models can fail. Breaks the crate's source in a copy, one
//! hand-made change at a time, and expects a model to fail each time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{loom, workspace};

/// What the copy needs to be a package whose models build.
const COPIED: &[&str] = &["Cargo.toml", "Cargo.lock", "src", "benches", "loom_tests"];

struct Mutant {
    name: &'static str,
    file: &'static str,
    /// Stands exactly once in the file.
    from: &'static str,
    to: &'static str,
    /// A model that must fail.
    model: &'static str,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "exclusive release Release -> Relaxed",
        file: "src/gate/mod.rs",
        from: "compare_exchange(seen, left, Ordering::Release,",
        to: "compare_exchange(seen, left, Ordering::Relaxed,",
        model: "a_reader_sees_a_nic_write_whole",
    },
    Mutant {
        name: "shared release Release -> Relaxed",
        file: "src/gate/mod.rs",
        from: "fetch_sub(holder.unit(), Ordering::Release)",
        to: "fetch_sub(holder.unit(), Ordering::Relaxed)",
        model: "a_nic_write_comes_after_the_last_reader",
    },
    Mutant {
        name: "shared acquire Acquire -> Relaxed",
        file: "src/gate/mod.rs",
        from: "fetch_add(holder.unit(), Ordering::Acquire)",
        to: "fetch_add(holder.unit(), Ordering::Relaxed)",
        model: "a_try_that_succeeds_sees_the_write_whole",
    },
    Mutant {
        name: "exclusive acquire Acquire -> Relaxed",
        file: "src/gate/mod.rs",
        from: "Ordering::Acquire,\n                Ordering::Relaxed,",
        to: "Ordering::Relaxed,\n                Ordering::Relaxed,",
        model: "exclusive_sides_and_a_reader_exclude_each_other",
    },
    Mutant {
        name: "a release wakes nobody",
        file: "src/gate/mod.rs",
        from: "if owed.wake {",
        to: "if false {",
        model: "no_wake_up_of_a_thread_is_lost",
    },
    Mutant {
        name: "parking without looking at what the mark showed",
        file: "src/gate/wait.rs",
        from: "Look::Blocked(_) => place.mark()?,",
        to: "Look::Blocked(entry) => place.mark().map(|_| entry)?,",
        model: "no_wake_up_of_a_thread_is_lost",
    },
];

pub fn run() -> Result<()> {
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
    let mut survived = 0;
    for mutant in MUTANTS {
        let file = copy.join(mutant.file);
        edit(&file, mutant.from, mutant.to).with_context(|| mutant.name)?;
        let passed = passes(&copy, Some(mutant.model)).with_context(|| mutant.name)?;
        fs::copy(root.join(mutant.file), &file)?;
        survived += usize::from(passed);
        let verdict = if passed { "SURVIVED" } else { "killed by" };
        println!("{verdict} {}: {}", mutant.model, mutant.name);
    }
    println!("{} mutants, {survived} survived", MUTANTS.len());
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
fn passes(root: &Path, model: Option<&str>) -> Result<bool> {
    let mut build = loom::cargo_test(root)?;
    build.args(["--quiet", "--no-run", "--test", "loom_*"]);
    let programs = workspace::executables(&mut build, "test")?;
    ensure!(!programs.is_empty(), "no models were built");
    for (_, program) in programs {
        let mut run = Command::new(program);
        if let Some(model) = model {
            run.args(["--exact", model]);
        }
        // A model that fails says so at length, and may abort.
        run.stdout(Stdio::null()).stderr(Stdio::null());
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
        for mutant in MUTANTS {
            let text = fs::read_to_string(workspace::root().join(mutant.file)).unwrap();
            assert_eq!(text.matches(mutant.from).count(), 1, "{}", mutant.name);
            assert_ne!(mutant.from, mutant.to);
        }
    }
}
