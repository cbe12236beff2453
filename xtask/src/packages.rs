//! The system packages that the project needs: the one list of them, the check, the installation.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process::{self, Exit};

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Building with `--features verbs`, and the example that uses another binding.
    Build,
    /// Booting the VM.
    Vm,
    /// Counting instructions.
    Count,
}

struct Package {
    name: &'static str,
    used_for: Use,
    why: &'static str,
}

const fn package(name: &'static str, used_for: Use, why: &'static str) -> Package {
    Package {
        name,
        used_for,
        why,
    }
}

#[rustfmt::skip]
const PACKAGES: &[Package] = &[
    package("libibverbs-dev", Use::Build, "headers and library of the verbs"),
    package("librdmacm-dev", Use::Build, "headers and library of the connection manager"),
    package("clang", Use::Build, "C headers that bindgen reads, for rdma-sys"),
    package("libclang-dev", Use::Build, "the parser that bindgen loads, for rdma-sys"),
    package("pkg-config", Use::Build, "finds the libraries, for rdma-sys"),
    package("cmake", Use::Build, "builds the C part of sideway's sys crate, for examples/adopt_sideway"),
    package("qemu-system-x86", Use::Vm, "the machine"),
    package("busybox-static", Use::Vm, "the guest's shell and tools"),
    package("kmod", Use::Vm, "depmod: which kernel module needs which"),
    package("xz-utils", Use::Vm, "unpacks kernel modules"),
    package("iproute2", Use::Vm, "ip and rdma: create the guest's RDMA device"),
    package("ibverbs-providers", Use::Vm, "librxe: the user-space driver of soft-RoCE"),
    package("valgrind", Use::Count, "callgrind, which counts instructions"),
    package("binutils", Use::Count, "objdump, which tells which of them are locked"),
    package("ibverbs-utils", Use::Vm, "ibv_devinfo, ibv_rc_pingpong"),
];

/// Makes sure that the packages for these uses are installed: installs what is missing when run by
/// root, and otherwise says how to.
pub fn ensure(uses: &[Use]) -> Result<()> {
    let needed: Vec<&Package> = PACKAGES
        .iter()
        .filter(|package| uses.contains(&package.used_for))
        .collect();
    if process::find_program("dpkg-query").is_none() || process::find_program("apt-get").is_none() {
        bail!(Exit::usage(format!(
            "this is not a Debian system; the equivalents of these packages are needed:{}",
            list(&needed)
        )));
    }
    let installed = installed()?;
    let missing: Vec<&Package> = needed
        .into_iter()
        .filter(|package| !installed.iter().any(|name| name == package.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !is_root()? {
        bail!(Exit::usage(format!(
            "packages are missing: sudo apt-get install -y --no-install-recommends {}",
            names.join(" ")
        )));
    }
    println!("installing packages:{}", list(&missing));
    update()?;
    let mut install = Command::new("apt-get");
    install
        .args(["-qq", "install", "-y", "--no-install-recommends"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    process::run(&mut install)
}

/// Refreshes apt's package lists.
pub fn update() -> Result<()> {
    process::run(Command::new("apt-get").args(["-qq", "update"]))
}

/// Whether the effective user is root, who may install packages.
pub fn is_root() -> Result<bool> {
    Ok(process::text(Command::new("id").arg("-u"))?.trim() == "0")
}

/// The paths that an installed package has.
pub fn files(package: &str) -> Result<Vec<String>> {
    let listing = process::text(Command::new("dpkg-query").args(["-L", package]))?;
    Ok(listing.lines().map(str::to_owned).collect())
}

fn installed() -> Result<Vec<String>> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status} ${Package}\n"]);
    Ok(parse_installed(&process::text(&mut query)?))
}

fn parse_installed(listing: &str) -> Vec<String> {
    listing
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .map(str::to_owned)
        .collect()
}

fn list(packages: &[&Package]) -> String {
    packages
        .iter()
        .map(|package| format!("\n  {:18} {}", package.name, package.why))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_does_not_count_as_installed() {
        let listing = "installed kmod\nconfig-files clang\nnot-installed gcc\nunpacked qemu\n";
        assert_eq!(parse_installed(listing), ["kmod"]);
    }
}
