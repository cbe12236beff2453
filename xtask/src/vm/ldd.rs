//! The shared libraries that a program needs, as `ldd` names them.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The paths of the libraries, and of the dynamic loader, that the file at `path` is linked to;
/// empty for a static program, and for a file that is no program.
pub fn libraries(path: &Path) -> Result<Vec<String>> {
    if !is_elf(path)? {
        return Ok(Vec::new());
    }
    // `ldd` fails for a static program, so its status says nothing.
    let output = Command::new("ldd")
        .arg(path)
        .env("LC_ALL", "C")
        .stderr(Stdio::null())
        .output()
        .context("cannot run `ldd`")?;
    parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| path.display().to_string())
}

fn is_elf(path: &Path) -> Result<bool> {
    let cannot_read = || format!("cannot read {}", path.display());
    let mut start = Vec::new();
    let file = File::open(path).with_context(cannot_read)?;
    file.take(4)
        .read_to_end(&mut start)
        .with_context(cannot_read)?;
    Ok(start == *b"\x7fELF")
}

fn parse(listing: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix("=> not found") {
            bail!("shared library {}not found", name);
        }
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        // The kernel's vdso and "statically linked" have no path.
        if path.starts_with('/') {
            paths.extend(path.split_whitespace().next().map(str::to_owned));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_taken_and_the_vdso_is_not() {
        let listing = "\tlinux-vdso.so.1 (0x00007ff28fe41000)\n\
            \tlibibverbs.so.1 => /lib/x86_64-linux-gnu/libibverbs.so.1 (0x00007ff28fe04000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007ff28fe43000)\n";
        assert_eq!(
            parse(listing).unwrap(),
            [
                "/lib/x86_64-linux-gnu/libibverbs.so.1",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert!(parse("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibx.so.1 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "shared library libx.so.1 not found");
    }
}
