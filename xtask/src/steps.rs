//! A sequence of named steps: each is announced and timed, the first failure ends the sequence.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The steps that have been run, with their times.
#[derive(Default)]
pub struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    pub fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("== {name}");
        let start = Instant::now();
        let result = step();
        let time = start.elapsed();
        if result.is_err() {
            println!("== {name} failed after {:.1} s", time.as_secs_f64());
        }
        self.done.push((name, time));
        result
    }

    /// Prints how long each step took.
    pub fn summary(&self) {
        println!("== summary");
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        for (name, time) in self.done.iter().chain([&("total", total)]) {
            println!("{:>8.1} s  {name}", time.as_secs_f64());
        }
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
}
