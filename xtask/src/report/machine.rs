//! The machine that figures come from.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::workspace;

/// In the directory of what was measured.
pub const FILE: &str = "machine.json";

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    /// It shares its processor with others.
    pub is_virtual: bool,
    pub kernel: String,
    pub rustc: String,
    pub date: String,
    pub commit: String,
    /// Not measured as long as it should be.
    pub quick: bool,
}

impl Machine {
    pub fn this(quick: bool) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Machine {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").into(),
            cores: std::thread::available_parallelism()?.get(),
            is_virtual: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: kernel.trim().into(),
            rustc: says("rustc", &["--version"])?,
            date: says("date", &["-u", "+%F"])?,
            commit: says("git", &["describe", "--always", "--dirty"])?,
            quick,
        })
    }

    pub fn write(&self, directory: &Path) -> Result<()> {
        Ok(fs::write(
            directory.join(FILE),
            serde_json::to_vec_pretty(self)?,
        )?)
    }

    pub fn read(directory: &Path) -> Result<Self> {
        let text = fs::read(directory.join(FILE))
            .context("nothing has been measured yet: run it without --draw")?;
        Ok(serde_json::from_slice(&text)?)
    }
}

fn says(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let text = process::text(command.args(args).current_dir(workspace::root()))?;
    Ok(text.trim().to_owned())
}

/// A field of the first processor.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let mut named = pairs.filter(|(key, _)| key.trim() == name);
    named.next().map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_the_first_processor_is_found() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: A: B\nflags\t\t: fpu hypervisor\n\nmodel name\t: C\n";
        assert_eq!(field(cpuinfo, "model name"), Some("A: B"));
        assert_eq!(field(cpuinfo, "bugs"), None);
    }
}
