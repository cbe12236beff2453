//! What is in the guest: its initramfs with the tools, the driver, and the programs to run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::{cache_dir, kernel, ldd, prerequisites};
use crate::packages;
use crate::process::{find_program, need_program, shell_quote, text};

/// The guest's IPv4 address, under which the device's GID has index 1.
const ADDRESS: &str = "10.0.0.1";

const INIT: &str = include_str!("init.sh");

/// The content of a guest's root directory.
pub struct Guest {
    archive: Archive,
    /// Libraries that are already in the archive, or need not be.
    libraries: BTreeSet<String>,
}

impl Guest {
    /// A guest with a shell, the network's tools, and the user space of the verbs.
    pub fn new() -> Result<Self> {
        prerequisites()?;
        let mut guest = Self {
            archive: Archive::default(),
            libraries: BTreeSet::new(),
        };
        for dir in ["dev", "proc", "sys", "tmp", "run", "root"] {
            guest.archive.directory(dir);
        }
        for tool in ["ip", "rdma", "tc"] {
            // Not in /bin, where busybox's own `ip` is.
            guest.add_file(&need_program(tool)?, &format!("/usr/sbin/{tool}"))?;
        }
        let busybox = need_program("busybox")?;
        guest.add_file(&busybox, "/bin/busybox")?;
        for applet in text(Command::new(&busybox).arg("--list"))?.lines() {
            if applet != "busybox" {
                guest
                    .archive
                    .symlink(&format!("/bin/{applet}"), "/bin/busybox");
            }
        }
        guest.add_package_files("ibverbs-providers", is_rxe)?;
        guest.add_package_files("ibverbs-utils", |path| path.contains("/bin/"))?;
        // Loaded by name when a thread ends, so that `ldd` does not show it.
        guest.add_package_files("libgcc-s1", |path| path.ends_with("/libgcc_s.so.1"))?;
        Ok(guest)
    }

    /// Adds a copy of the host's file, and the shared libraries that it needs if it is a program.
    pub fn add_file(&mut self, host: &Path, guest: &str) -> Result<()> {
        let host = fs::canonicalize(host).with_context(|| host.display().to_string())?;
        let mode = fs::metadata(&host)?.permissions().mode() & 0o777;
        for library in ldd::libraries(&host)? {
            if self.libraries.insert(library.clone()) {
                let host = fs::canonicalize(&library).with_context(|| library.clone())?;
                self.archive.copy(&library, 0o755, host);
            }
        }
        self.archive.copy(guest, mode, host);
        Ok(())
    }

    /// Adds an executable text.
    pub fn add_script(&mut self, guest: &str, script: &str) {
        self.archive.bytes(guest, 0o755, script);
    }

    /// Adds a file with these bytes.
    pub fn add_data(&mut self, guest: &str, bytes: Vec<u8>) {
        self.archive.bytes(guest, 0o644, bytes);
    }

    /// Makes sure that the guest has a command, and returns its name there; `None` if neither guest
    /// nor host have it.
    pub fn add_command(&mut self, command: &str) -> Result<Option<String>> {
        let in_guest = if command.contains('/') {
            self.archive.contains(command)
        } else {
            self.archive.contains(&format!("/bin/{command}"))
        };
        if in_guest {
            return Ok(Some(command.to_owned()));
        }
        let host = if command.contains('/') {
            Some(PathBuf::from(command)).filter(|path| path.is_file())
        } else {
            find_program(command)
        };
        let Some(host) = host else {
            return Ok(None);
        };
        let guest = std::path::absolute(&host)?;
        let guest = guest.to_str().context("file names must be UTF-8")?;
        self.add_file(&host, guest)?;
        Ok(Some(guest.to_owned()))
    }

    /// Writes the initramfs of a guest that runs `command`; returns the kernel that it is for.
    pub fn finish(mut self, command: &[String], initramfs: &Path) -> Result<PathBuf> {
        let kernel = kernel::prepare(&cache_dir()?)?;
        for (index, (name, content)) in kernel.modules()?.into_iter().enumerate() {
            // The guest loads them in the order of their names.
            let path = format!("/lib/modules/{index:02}-{name}.ko");
            self.archive.bytes(&path, 0o644, content);
        }
        self.archive.bytes("/init", 0o755, INIT);
        self.archive.bytes("/environment", 0o644, environment());
        let command: Vec<String> = command.iter().map(|word| shell_quote(word)).collect();
        let command = format!("exec {}\n", command.join(" "));
        self.archive.bytes("/command", 0o644, command);

        let mut out = BufWriter::new(File::create(initramfs)?);
        self.archive.write(&mut out)?;
        out.flush().context("cannot write the initramfs")?;
        Ok(kernel.image)
    }

    fn add_package_files(&mut self, package: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        for path in packages::files(package)? {
            if wanted(&path) && Path::new(&path).is_file() {
                self.add_file(Path::new(&path), &path)?;
            }
        }
        Ok(())
    }
}

/// Whether the path is of the rxe provider: the library or the file that announces it. The version
/// of the provider interface is part of the library's name.
fn is_rxe(path: &str) -> bool {
    path.contains("/librxe-rdmav") || path.ends_with("libibverbs.d/rxe.driver")
}

/// What the guest's programs find in their environment, as shell assignments.
fn environment() -> String {
    let mut lines = format!("export RDMA_MR_VM=1\nexport RDMA_MR_VM_ADDR={ADDRESS}\n");
    if let Ok(value) = std::env::var("RUST_BACKTRACE") {
        lines += &format!("export RUST_BACKTRACE={}\n", shell_quote(&value));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_providers_only_rxe_is_taken() {
        assert!(is_rxe("/etc/libibverbs.d/rxe.driver"));
        assert!(is_rxe("/usr/lib/x/libibverbs/librxe-rdmav57.so"));
        assert!(!is_rxe("/usr/lib/x/libibverbs/libsiw-rdmav57.so"));
        assert!(!is_rxe("/etc/libibverbs.d/siw.driver"));
    }
}
