//! The models as programs: what each of them reaches, and whether one fails.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{loom, process, workspace};

/// A model that goes on for this many times as long as it took unchanged, and for at least that long, is
/// given up.
const PATIENCE: (u32, Duration) = (20, Duration::from_secs(20));

/// How long the programs' ends are waited for between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// One model: a test of one of the programs.
#[derive(Debug)]
pub struct Model {
    program: PathBuf,
    /// `loom_tests/` file, or `lib`, and the name of the test.
    pub name: String,
    test: String,
    time: Duration,
    /// The sites that it comes by.
    reached: BTreeSet<usize>,
}

/// How a run of a model ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    /// Also by an execution without end, as loom's limit of branches tells: somebody waits for what never
    /// comes, while somebody else polls.
    Failed,
    /// It was not done in time: there are too many executions, and that is no finding.
    Late,
}

/// Builds the models of the crate at `root`, whose orderings are asked for at run time, and runs each by
/// itself. One that fails is an error: nothing is changed yet.
pub fn build(root: &Path, scratch: &Path) -> Result<Vec<Model>> {
    let mut tests = Vec::new();
    for mut build in loom::builds(root)? {
        build.args(["--quiet", "--no-run"]);
        let mut programs = workspace::executables(&mut build, "test")?;
        programs.extend(workspace::executables(&mut build, "lib")?);
        for (name, program) in programs {
            let mut list = Command::new(&program);
            let listed = process::text(list.args(["--list", "--format", "terse"]))?;
            let names = listed
                .lines()
                .filter_map(|line| line.strip_suffix(": test"));
            // In the library the path of a test is not that of a file.
            let is_file = name == loom::TARGET;
            let model = |test: &str| match test.split_once("::") {
                Some((file, model)) if is_file => format!("{file}: {model}"),
                _ => format!("lib: {test}"),
            };
            tests.extend(names.map(|test| Model {
                program: program.clone(),
                name: model(test),
                test: test.to_owned(),
                time: Duration::MAX,
                reached: BTreeSet::new(),
            }));
        }
    }
    ensure!(!tests.is_empty(), "no models were built");
    let models = on_all_processors(&tests, |number, model| {
        let sites = scratch.join(format!("reached-{number}"));
        let output = scratch.join(format!("baseline-{number}"));
        let mut run = model.command();
        run.env("RDMA_MR_REACHED", &sites);
        let start = Instant::now();
        let end = run_to_end(&mut run, &output, Duration::from_secs(300))?;
        let time = start.elapsed();
        let said = fs::read_to_string(&output)?;
        ensure!(
            end == End::Passed,
            "{} fails in an unchanged copy: {said}",
            model.name
        );
        // One that must fail does so in any case.
        if said.contains("- should panic") {
            return Ok(None);
        }
        let reached = match fs::read_to_string(&sites) {
            Ok(sites) => sites.lines().map(str::parse).collect::<Result<_, _>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error).context("what a model reached"),
        };
        Ok(Some(Model {
            program: model.program.clone(),
            name: model.name.clone(),
            test: model.test.clone(),
            time,
            reached,
        }))
    })?;
    let mut models: Vec<Model> = models.into_iter().flatten().collect();
    models.sort_by_key(|model| model.time);
    let time: f64 = models.iter().map(|model| model.time.as_secs_f64()).sum();
    println!("{} models, {time:.0} s one by one", models.len());
    Ok(models)
}

impl Model {
    pub fn reaches(&self, site: usize) -> bool {
        self.reached.contains(&site)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--exact", &self.test, "--test-threads=1"]);
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs it in a crate that is broken as this variable and its value tell.
    pub fn run(&self, told: &(&str, String), output: &Path) -> Result<End> {
        let mut run = self.command();
        run.env(told.0, &told.1);
        let limit = PATIENCE.1.max(self.time * PATIENCE.0);
        let end = run_to_end(&mut run, output, limit)?;
        let said = fs::read(output)?;
        let said = String::from_utf8_lossy(&said);
        // That is no mistake that a model has found.
        ensure!(
            !said.contains("there is no such thing as"),
            "no change that there can be: {said}"
        );
        Ok(end)
    }
}

/// Runs `command`, with all that it says in a file, for no longer than `limit`.
fn run_to_end(command: &mut Command, output: &Path, limit: Duration) -> Result<End> {
    let file = File::create(output)?;
    let mut child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
    match wait(&mut child, limit)? {
        Some(status) if status.success() => Ok(End::Passed),
        Some(_) => Ok(End::Failed),
        None => {
            child.kill()?;
            child.wait()?;
            Ok(End::Late)
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK);
    }
    Ok(None)
}

/// Calls `job` for each item, as many at a time as there are processors; the results in the items' order.
pub fn on_all_processors<T: Sync, R: Send>(
    items: &[T],
    job: impl Fn(usize, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            // Ordering: Relaxed. Only that no two are equal.
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else {
                return done;
            };
            done.push((number, job(number, item)));
        }
    };
    let count = thread::available_parallelism()?.get();
    let mut done: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results
            .flat_map(|done| done.expect("no job panics"))
            .collect()
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
