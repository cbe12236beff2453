//! The guest's kernel: chosen among the distribution's packages, downloaded and unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::modules;
use crate::packages;
use crate::process;

/// An unpacked kernel package.
pub struct Kernel {
    /// The kernel itself.
    pub image: PathBuf,
    /// Its `lib/modules/VERSION`.
    modules: PathBuf,
}

/// The kernel that is unpacked below `cache`; if there is none, the distribution's newest is put
/// there. Asking apt takes seconds, so a newer one is taken only when the cache is removed.
pub fn prepare(cache: &Path) -> Result<Kernel> {
    if let Some(dir) = cached(cache)? {
        return Kernel::open(&dir);
    }
    let work = tempfile::tempdir_in(cache)?;
    let archive = match download(work.path()) {
        // The package lists are missing, or older than what the mirror still has.
        Err(_) if packages::is_root()? => {
            packages::update()?;
            download(work.path())?
        }
        result => result?,
    };
    // The name of the file has the package's version in it.
    let dir = cache.join(archive.trim_end_matches(".deb"));
    unpack(&work.path().join(archive), &work.path().join("root"), &dir)?;
    Kernel::open(&dir)
}

fn cached(cache: &Path) -> Result<Option<PathBuf>> {
    let names: Vec<String> = fs::read_dir(cache)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let package = |name: &&String| version(name.split('_').next().unwrap_or(name));
    let newest = names.iter().filter(|name| package(name).is_some());
    Ok(newest.max_by_key(package).map(|name| cache.join(name)))
}

/// Downloads the newest kernel's package to `dir` and returns the name of the file.
fn download(dir: &Path) -> Result<String> {
    let package = choose()?;
    let uris = process::text(apt_download(&package).arg("--print-uris"))?;
    let archive = file_name(&uris).with_context(|| format!("apt knows no source of {package}"))?;
    println!("downloading {package}");
    process::run(apt_download(&package).current_dir(dir))?;
    Ok(archive.to_owned())
}

fn apt_download(package: &str) -> Command {
    let mut command = Command::new("apt-get");
    // By default root downloads as user _apt, who cannot write here, and apt warns of that.
    command.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]);
    command
}

/// Unpacks `archive` to `root` and moves the result to `dir`, which is complete or not there.
fn unpack(archive: &Path, root: &Path, dir: &Path) -> Result<()> {
    println!("unpacking the kernel, which is done once");
    process::run(Command::new("dpkg").arg("-x").args([archive, root]))?;
    // Newer distributions have the modules in /usr/lib, and depmod may look in either place.
    for (place, other, link) in [("lib", "usr/lib", "usr/lib"), ("usr/lib", "lib", "../lib")] {
        if root.join(other).join("modules").exists() && !root.join(place).exists() {
            std::os::unix::fs::symlink(link, root.join(place))?;
        }
    }
    let kernel = Kernel::open(root)?;
    let version = kernel.modules.file_name().unwrap_or_default();
    let mut depmod = Command::new(process::need_program("depmod")?);
    process::run(depmod.arg("-b").arg(root).arg(version))?;
    match fs::rename(root, dir) {
        // Another process may have been faster.
        Err(error) if !dir.exists() => Err(error).context("cannot keep the unpacked kernel"),
        _ => Ok(()),
    }
}

impl Kernel {
    fn open(root: &Path) -> Result<Self> {
        let image = find(&root.join("boot"), "vmlinuz-")?;
        let modules = find(&root.join("lib/modules"), "")?;
        Ok(Self { image, modules })
    }

    /// The modules that the guest loads, in order: name and content.
    pub fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let read = |file: &str| {
            let path = self.modules.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        modules::load_order(modules::WANTED, &dep, &builtin)?
            .into_iter()
            .map(|path| Ok((modules::name(path), decompress(&self.modules.join(path))?)))
            .collect()
    }
}

fn decompress(module: &Path) -> Result<Vec<u8>> {
    match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(fs::read(module)?),
        Some("xz") => process::output(Command::new("xz").arg("-dc").arg(module)),
        _ => bail!("{}: unknown compression", module.display()),
    }
}

/// The one entry of `dir` whose name starts with `prefix`.
fn find(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let missing = || format!("the kernel's package has no {}/{prefix}*", dir.display());
    let mut entries = fs::read_dir(dir).with_context(missing)?.flatten();
    entries
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(missing)
}

/// The newest kernel image that apt knows, or the one of the distribution's metapackage.
fn choose() -> Result<String> {
    let names = process::text(Command::new("apt-cache").args(["pkgnames", "linux-image-6."]))?;
    if let Some(package) = newest(&names) {
        return Ok(package.to_owned());
    }
    let depends = process::text(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let package = dependency(&depends).context("apt knows no kernel package")?;
    Ok(package.to_owned())
}

/// The newest of the packages that hold an image for common machines.
fn newest(names: &str) -> Option<&str> {
    let versioned = names
        .lines()
        .filter_map(|name| Some((version(name)?, name)));
    versioned.max().map(|(_, name)| name)
}

/// The numbers in the name of a signed image's package; `None` for metapackages, debug symbols,
/// unsigned images, and the kernels for clouds and for real time.
fn version(package: &str) -> Option<Vec<u32>> {
    let version = package.strip_prefix("linux-image-")?;
    let version = version.strip_suffix("-amd64")?;
    if version.contains("cloud") || version.contains("rt") {
        return None;
    }
    let numbers: Vec<u32> = version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    // A metapackage names only the series, as in 6.12.
    (numbers.len() > 2).then_some(numbers)
}

/// The package that `apt-cache depends` of the metapackage leads to.
fn dependency(depends: &str) -> Option<&str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
}

/// The name of the file in the output of `apt-get download --print-uris`: URI, file, size, hash.
fn file_name(uris: &str) -> Option<&str> {
    let name = uris.split_whitespace().nth(1)?;
    (name.ends_with(".deb") && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signed_common_image_is_chosen() {
        let names = "\
linux-image-6.1.0-56-amd64
linux-image-6.12-amd64
linux-image-6.12.99+deb12-amd64
linux-image-6.12.117+deb12-amd64
linux-image-6.12.117+deb12-amd64-dbg
linux-image-6.12.118+deb12-amd64-unsigned
linux-image-6.12.118+deb12-cloud-amd64
linux-image-6.12.118+deb12-rt-amd64
linux-image-6.12-amd64-signed-template
";
        assert_eq!(newest(names), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(newest("linux-image-6.12-amd64\n"), None);
    }

    #[test]
    fn the_metapackage_leads_to_an_image() {
        let depends = "linux-image-amd64\n  Depends: linux-image-7.1.3-amd64\n";
        assert_eq!(dependency(depends), Some("linux-image-7.1.3-amd64"));
        assert_eq!(dependency("linux-image-amd64\n"), None);
    }

    #[test]
    fn the_file_name_comes_after_the_uri() {
        let uris = "'http://deb.debian.org/a/linux-image_6.1%7e1_amd64.deb' \
                    linux-image_6.1~1_amd64.deb 107179464 SHA256:803d\n";
        assert_eq!(file_name(uris), Some("linux-image_6.1~1_amd64.deb"));
        assert_eq!(file_name(""), None);
    }
}
