//! A copy of the crate in which everything is broken, but nothing before it is told so at run time.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{loom, workspace};

/// What it needs to be a package whose models build.
const COPIED: &[&str] = &["Cargo.toml", "Cargo.lock", "src", "examples", "loom_tests"];

/// A file as it was copied, and what is to be put in place of some of its bytes.
struct File {
    text: String,
    edits: Vec<(Range<usize>, String)>,
}

pub struct Copy {
    root: PathBuf,
    files: BTreeMap<String, File>,
}

impl Copy {
    /// Makes it anew, where builds under loom go.
    pub fn new() -> Result<Self> {
        let (from, root) = (workspace::root(), loom::target_dir()?.join("mutants"));
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        for name in COPIED {
            let status = Command::new("cp")
                .arg("-r")
                .args([from.join(name), root.join(name)])
                .status()?;
            ensure!(status.success(), "cannot copy {name}");
        }
        // It is a workspace of its own, without the others; and another package, lest cargo takes what was
        // built of one for what would be built of the other.
        let manifest = root.join("Cargo.toml");
        let mut text = fs::read_to_string(&manifest)?;
        let version = format!("name = \"{}\"\nversion = \"", workspace::PACKAGE);
        // From the end to the beginning.
        for (at, with) in [
            (place(&text, "default-members = [\".\", \"benches\"]")?, ""),
            (
                place(
                    &text,
                    "members = [\"benches\", \"tests/compile_fail\", \"xtask\"]",
                )?,
                "members = []",
            ),
            (
                place(&text, &version)?,
                &*format!("{version}0.0.0-mutants."),
            ),
        ] {
            text.replace_range(at, with);
        }
        fs::write(manifest, text)?;
        let files = BTreeMap::new();
        Ok(Copy { root, files })
    }

    fn file(&mut self, name: &str) -> Result<&mut File> {
        if !self.files.contains_key(name) {
            let text = fs::read_to_string(self.root.join(name)).with_context(|| name.to_owned())?;
            let edits = Vec::new();
            self.files.insert(name.to_owned(), File { text, edits });
        }
        Ok(self.files.get_mut(name).expect("it has been put there"))
    }

    /// A file's text, as it was copied.
    pub fn text(&mut self, name: &str) -> Result<&str> {
        Ok(&self.file(name)?.text)
    }

    /// Puts `with` in place of these bytes of a file whose text has been asked for. No two may overlap; of
    /// those that start at one byte the first one comes first.
    pub fn replace(&mut self, name: &str, bytes: Range<usize>, with: String) {
        let file = self.files.get_mut(name).expect("its text is known");
        file.edits.push((bytes, with));
    }

    /// Writes what was changed, with what tells it what to be. Gives where it is.
    pub fn write(mut self) -> Result<PathBuf> {
        let sync = match self.root.join("src/sync.rs").exists() {
            true => "src/sync.rs",
            false => "src/sync/mod.rs",
        };
        let end = self.text(sync)?.len();
        self.replace(sync, end..end, "\npub(crate) mod weakened;\n".into());
        // What is broken leaves something unused.
        let library = "src/lib.rs";
        self.text(library)?;
        self.replace(library, 0..0, "#![allow(unused)]\n".into());
        let told = include_str!("copied/weakened.rs");
        fs::write(self.root.join("src/sync/weakened.rs"), told)?;
        for (name, file) in self.files {
            fs::write(self.root.join(name), file.edited())?;
        }
        Ok(self.root)
    }
}

impl File {
    fn edited(mut self) -> String {
        self.edits.sort_by_key(|(bytes, _)| bytes.start);
        for (bytes, with) in self.edits.into_iter().rev() {
            self.text.replace_range(bytes, &with);
        }
        self.text
    }
}

/// The one place where `from` stands in `text`.
pub fn place(text: &str, from: &str) -> Result<Range<usize>> {
    let mut places = text.match_indices(from);
    match (places.next(), places.next()) {
        (Some((at, _)), None) => Ok(at..at + from.len()),
        (first, _) => {
            let count = if first.is_some() {
                "more than one"
            } else {
                "no"
            };
            bail!("there is {count} place like {from:?}")
        }
    }
}
