//! `cargo xtask vm`: runs a command in a virtual machine that has a soft-RoCE device.
//!
//! The machine is emulated and needs neither KVM nor a kernel module on the host. Its kernel comes
//! from the distribution and is unpacked, never installed.

mod boot;
mod cpio;
mod guest;
mod kernel;
mod ldd;
mod modules;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, path, thread};

use anyhow::{Context, Result, bail};

pub use self::guest::Guest;
use crate::packages::{self, Use};
use crate::process::Exit;
use crate::workspace;

/// How the machine is set up.
pub struct Options {
    /// The limit for the boot and the command together.
    pub timeout: Duration,
    pub memory_mib: u32,
    pub files: Vec<File>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            memory_mib: 2048,
            files: Vec::new(),
        }
    }
}

/// A host's file that the guest gets a copy of.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    pub host: PathBuf,
    pub guest: String,
}

impl FromStr for File {
    type Err = anyhow::Error;

    /// Parses `HOST[:GUEST]`; without `GUEST` the guest has the file at the host's absolute path.
    fn from_str(text: &str) -> Result<Self> {
        let (host, guest) = match text.split_once(':') {
            Some((host, guest)) => (host, guest.to_owned()),
            None => {
                let absolute = path::absolute(text)?;
                let absolute = absolute.to_str().context("file names must be UTF-8")?;
                (text, absolute.to_owned())
            }
        };
        if !guest.starts_with('/') {
            bail!("`{guest}`: the path in the guest must be absolute");
        }
        let host = host.into();
        Ok(Self { host, guest })
    }
}

/// Boots a machine with `options`, runs `command` in it and hands on its exit status.
pub fn run(options: &Options, command: &[String]) -> Result<()> {
    let mut guest = Guest::new()?;
    for file in &options.files {
        guest.add_file(&file.host, &file.guest)?;
    }
    let (program, args) = command.split_first().context("no command for the guest")?;
    let Some(program) = guest.add_command(program)? else {
        bail!(Exit::new(127, format!("program `{program}` not found")));
    };
    let mut command = vec![program];
    command.extend_from_slice(args);
    boot(options, guest, &command)
}

/// Boots `guest` twice, as two machines that are joined by a wire, and runs `command` in both.
pub fn boot_pair(options: &Options, guest: Guest, command: &[String]) -> Result<()> {
    let work = tempfile::tempdir_in(cache_dir()?)?;
    let initramfs = work.path().join("initramfs");
    let kernel = guest.finish(command, &initramfs)?;
    // A socket's path must be short.
    let wire = tempfile::tempdir()?;
    let failed = OnceLock::new();
    let boot = |number| {
        let work_dir = work.path().join(format!("host{number}"));
        fs::create_dir(&work_dir)?;
        let result = boot::run(&boot::Machine {
            kernel: &kernel,
            initramfs: &initramfs,
            work_dir: &work_dir,
            memory_mib: options.memory_mib,
            timeout: options.timeout,
            host: Some(boot::Host {
                number,
                wire: wire.path(),
                failed: &failed,
            }),
        });
        if result.is_err() {
            failed.get_or_init(Instant::now);
        }
        result
    };
    let results = thread::scope(|scope| {
        let machines = [1, 2].map(|number| (number, scope.spawn(move || boot(number))));
        machines.map(|(number, machine)| (number, machine.join().expect("it does not panic")))
    });
    let mut all = Ok(());
    for (number, result) in results {
        if let Err(error) = result {
            let mut why = format!("{error:#}");
            if why.is_empty() {
                why = "its command has failed, and has said why".to_owned();
            }
            eprintln!("machine {number} of two: {why}");
            all = Err(Exit::new(1, "").into());
        }
    }
    all
}

/// Boots `guest`, runs `command` in it and hands on its exit status.
pub fn boot(options: &Options, guest: Guest, command: &[String]) -> Result<()> {
    let work = tempfile::tempdir_in(cache_dir()?)?;
    let initramfs = work.path().join("initramfs");
    let kernel = guest.finish(command, &initramfs)?;
    boot::run(&boot::Machine {
        kernel: &kernel,
        initramfs: &initramfs,
        work_dir: work.path(),
        memory_mib: options.memory_mib,
        timeout: options.timeout,
        host: None,
    })
}

/// Checks, before anything slow is done, that this machine can run the VM.
pub fn prerequisites() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!(Exit::usage("the VM runs x86-64 programs only"));
    }
    packages::ensure(&[Use::Vm])
}

fn cache_dir() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_path_unless_another_is_given() {
        let file: File = "/etc/hostname".parse().unwrap();
        assert_eq!(file.guest, "/etc/hostname");
        let file: File = "data:/tmp/data".parse().unwrap();
        assert_eq!(file.host, PathBuf::from("data"));
        assert_eq!(file.guest, "/tmp/data");
        assert!("data:tmp".parse::<File>().is_err());
    }
}
