//! A sequence of named steps: each is announced and timed, the first failure ends the sequence.

use std::fs::File;
use std::io::{self, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process;

/// The steps that have been run, with their times.
pub struct Steps {
    start: Instant,
    done: Vec<Done>,
}

struct Done {
    name: &'static str,
    time: Duration,
    /// Others ran meanwhile.
    beside: bool,
}

/// A command that has run beside others.
struct Beside {
    name: &'static str,
    time: Duration,
    said: File,
    result: Result<()>,
}

impl Beside {
    fn run(name: &'static str, mut command: Command) -> Result<Self> {
        println!("== {name} begins, beside others");
        let said = tempfile::tempfile()?;
        command.stdin(Stdio::null());
        command.stdout(said.try_clone()?).stderr(said.try_clone()?);
        let start = Instant::now();
        let result = process::run(&mut command);
        Ok(Beside {
            name,
            time: start.elapsed(),
            said,
            result,
        })
    }
}

impl Default for Steps {
    fn default() -> Self {
        Steps {
            start: Instant::now(),
            done: Vec::new(),
        }
    }
}

impl Steps {
    pub fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("== {name}");
        let start = Instant::now();
        let result = step();
        self.end(name, start.elapsed(), false, &result);
        result
    }

    /// Runs `steps` while `commands` run, one after the other: what one side leaves of the processors, the other takes.
    /// What a command says is shown when all have ended. Both sides are waited for, whichever fails.
    pub fn beside(
        &mut self,
        commands: impl IntoIterator<Item = (&'static str, Command)> + Send,
        steps: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let (results, beside) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let mut ran = Vec::new();
                for (name, command) in commands {
                    ran.push(Beside::run(name, command)?);
                    if ran.last().is_some_and(|last| last.result.is_err()) {
                        break;
                    }
                }
                anyhow::Ok(ran)
            });
            (steps(self), beside.join().expect("it does not panic"))
        });
        let mut first = results;
        for mut ran in beside? {
            println!("== {}, which ran beside", ran.name);
            ran.said.rewind()?;
            io::copy(&mut ran.said, &mut io::stdout())?;
            self.end(ran.name, ran.time, true, &ran.result);
            first = first.and(ran.result);
        }
        first
    }

    fn end(&mut self, name: &'static str, time: Duration, beside: bool, result: &Result<()>) {
        if result.is_err() {
            println!("== {name} failed after {:.1} s", time.as_secs_f64());
        }
        self.done.push(Done { name, time, beside });
    }

    /// Prints how long each step took.
    pub fn summary(&self) {
        println!("== summary");
        for Done { name, time, beside } in &self.done {
            let beside = if *beside { ", beside others" } else { "" };
            println!("{:>8.1} s  {name}{beside}", time.as_secs_f64());
        }
        println!("{:>8.1} s  total", self.start.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_hands_its_error_on() {
        let mut steps = Steps::default();
        assert!(steps.run("good", || Ok(())).is_ok());
        assert!(steps.run("bad", || anyhow::bail!("no")).is_err());
        assert_eq!(steps.done.len(), 2);
    }

    #[test]
    fn what_runs_beside_fails_as_any_step_does_and_all_have_run() {
        let both = |beside: &str, step: fn() -> Result<()>| {
            let mut steps = Steps::default();
            let commands = ["first", "second"].map(|name| (name, Command::new(beside)));
            let result = steps.beside(commands, |steps| steps.run("step", step));
            // What would come after a failure is not begun.
            let beside = if beside == "true" { 2 } else { 1 };
            assert_eq!(steps.done.len(), 1 + beside);
            result.is_ok()
        };
        assert!(both("true", || Ok(())));
        assert!(!both("false", || Ok(())));
        assert!(!both("true", || anyhow::bail!("no")));
    }
}
