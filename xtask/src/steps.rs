//! A sequence of named steps: each is announced and timed, the first failure ends the sequence.

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

    /// Runs `steps` while `command` runs: what one leaves of the processors, the other takes. What `command` says is
    /// shown when both have ended. Both are waited for, whichever fails.
    pub fn beside(
        &mut self,
        name: &'static str,
        command: &mut Command,
        steps: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        println!("== {name} begins, beside what follows");
        let mut said = tempfile::tempfile()?;
        command.stdin(Stdio::null());
        command.stdout(said.try_clone()?).stderr(said.try_clone()?);
        let (results, (result, time)) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let start = Instant::now();
                (process::run(command), start.elapsed())
            });
            (steps(self), beside.join().expect("it does not panic"))
        });
        println!("== {name}, which ran beside");
        said.rewind()?;
        io::copy(&mut said, &mut io::stdout())?;
        self.end(name, time, true, &result);
        results.and(result)
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
            let result = steps.beside("beside", &mut Command::new(beside), |steps| {
                steps.run("step", step)
            });
            assert_eq!(steps.done.len(), 2);
            result.is_ok()
        };
        assert!(both("true", || Ok(())));
        assert!(!both("false", || Ok(())));
        assert!(!both("true", || anyhow::bail!("no")));
    }
}
