//! Programs of other crates that steps start: installed into the target directory where they are missing.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, workspace};

/// The program of that name, of the crate of that name. Built without optimisation: such programs start others and
/// read what those say.
pub fn tool(name: &str, version: &str) -> Result<PathBuf> {
    let place = workspace::target_dir()?.join(format!("tools/{name}-{version}"));
    let program = place.join("bin").join(name);
    if !program.is_file() {
        println!("installing {name} {version} into {}", place.display());
        let mut install = workspace::cargo("install");
        install.args([name, "--locked", "--debug", "--version"]);
        install.arg(format!("={version}")).arg("--root").arg(&place);
        process::run(install.env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    }
    Ok(program)
}
