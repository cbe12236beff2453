//! The mutants that are nothing but a weaker ordering: found in the source, one step each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::copy::Copy;
use super::orders::{Order, Role, To};
use super::sites::{self, Site};
use crate::workspace;

/// The orderings of the crate, in the order of files and lines. A site's number is its index.
pub struct Orderings {
    sites: Vec<(String, Site)>,
}

/// One ordering, or the two of one call, made weaker.
#[derive(Clone, Debug)]
pub struct Weakened {
    pub file: String,
    /// As SAFETY.md names it.
    pub name: String,
    changes: Vec<Change>,
}

impl Weakened {
    /// The changes, as the copy is told.
    pub fn told(&self) -> String {
        let changes = self.changes.iter().map(Change::to_string);
        changes.collect::<Vec<_>>().join(",")
    }

    /// The sites that are changed.
    pub fn sites(&self) -> Vec<usize> {
        self.changes.iter().map(|change| change.site).collect()
    }
}

/// What becomes of one site.
#[derive(Clone, Copy, Debug)]
struct Change {
    site: usize,
    to: To,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            To::Order(order) => write!(f, "{}={order:?}", self.site),
            To::Nothing => write!(f, "{}=Out", self.site),
        }
    }
}

impl Orderings {
    /// Of all files in `src/` of the crate at `root`. An ordering that hides is an error.
    pub fn find(root: &Path) -> Result<Self> {
        let (mut sites, mut problems) = (BTreeMap::new(), Vec::new());
        let mut for_tests = BTreeSet::new();
        for (path, text) in workspace::sources(&root.join("src"))? {
            let name = path.strip_prefix(root)?.display().to_string();
            let found = sites::find(&text).with_context(|| name.clone())?;
            let modules = found.test_modules.iter();
            for_tests.extend(modules.map(|module| file_of_module(&name, module)));
            let found_problems = found.problems.into_iter();
            problems.extend(found_problems.map(|(line, what)| (name.clone(), line, what)));
            sites.insert(name, found.sites);
        }
        let problems: Vec<String> = problems
            .into_iter()
            .filter(|(name, ..)| !for_tests.contains(name))
            .map(|(name, line, what)| format!("{name}:{line}: {what}"))
            .collect();
        if !problems.is_empty() {
            bail!(
                "{}\nan ordering is written as `Ordering::X`, in the call that it is for",
                problems.join("\n")
            );
        }
        let sites = sites
            .into_iter()
            .filter(|(name, _)| !for_tests.contains(name))
            .flat_map(|(name, sites)| sites.into_iter().map(move |site| (name.clone(), site)))
            .collect();
        Ok(Orderings { sites })
    }

    /// Everything that can be weakened, each by a name of its own.
    pub fn mutants(&self) -> Vec<Weakened> {
        let mut mutants = Vec::new();
        for (number, (file, site)) in self.sites.iter().enumerate() {
            let mut add = |what: String, changes| {
                mutants.push(Weakened {
                    file: file.clone(),
                    name: format!("{file}: {}: {what}", site.function),
                    changes,
                })
            };
            let failing = if site.role == Role::Failure {
                " when it fails"
            } else {
                ""
            };
            for to in site.order.weaker(site.role) {
                let what = match to {
                    To::Order(to) => format!("{}{failing} {:?} -> {to:?}", site.call, site.order),
                    To::Nothing => format!("{} {:?} taken out", site.call, site.order),
                };
                add(what, vec![Change { site: number, to }]);
            }
            let next = self.sites.get(number + 1).map(|(_, next)| next);
            if let Some(failure) = next.filter(|next| is_failure_of(next, site)) {
                let (success, failed) = (failure.order, site.order.of_a_load());
                // Otherwise the success alone is weakened, as above.
                if failed != failure.order {
                    let what = format!("{} {:?}, {success:?} swapped", site.call, site.order);
                    let changes = [(number, success), (number + 1, failed)];
                    let change = |(site, order)| Change {
                        site,
                        to: To::Order(order),
                    };
                    add(what, changes.map(change).to_vec());
                }
            }
        }
        number_the_equal(&mut mutants);
        mutants
    }

    /// Prints those that have nothing to be taken from them, of the files whose path contains `filter`.
    pub fn print_relaxed(&self, filter: &str) {
        for (file, site) in self.relaxed().filter(|(file, _)| file.contains(filter)) {
            let (function, call, line) = (&site.function, &site.call, site.line);
            println!("{file}: {function}: {call} Relaxed: nothing to weaken (line {line})");
        }
    }

    pub fn print_count(&self) {
        let (all, relaxed) = (self.sites.len(), self.relaxed().count());
        println!("{all} orderings in src/, of which {relaxed} are Relaxed: nothing to weaken");
    }

    fn relaxed(&self) -> impl Iterator<Item = &(String, Site)> {
        let relaxed = |(_, site): &&(String, Site)| site.order == Order::Relaxed;
        self.sites.iter().filter(relaxed)
    }

    /// Makes every ordering of the copy go through what is told at run time.
    pub fn switch(&self, copy: &mut Copy) -> Result<()> {
        for (number, (file, site)) in self.sites.iter().enumerate() {
            let order = copy.text(file)?[site.bytes.clone()].to_owned();
            match site.fence.clone() {
                Some(path) => {
                    let fence = copy.text(file)?[path.clone()].to_owned();
                    copy.replace(file, path, "crate::sync::weakened::fence".into());
                    let arguments = format!("{number}, {fence}, {order}");
                    copy.replace(file, site.bytes.clone(), arguments);
                }
                None => {
                    let order = format!("crate::sync::weakened::order({number}, {order})");
                    copy.replace(file, site.bytes.clone(), order);
                }
            }
        }
        Ok(())
    }
}

fn is_failure_of(next: &Site, site: &Site) -> bool {
    next.role == Role::Failure && next.arguments == site.arguments
}

/// Two that would have one name are numbered.
fn number_the_equal(mutants: &mut [Weakened]) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for mutant in mutants {
        let count = seen.entry(mutant.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            mutant.name = format!("{} ({count})", mutant.name);
        }
    }
}

/// The file of `mod MODULE;` in `file`.
fn file_of_module(file: &str, module: &str) -> String {
    let path = Path::new(file);
    let directory = match path.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs") => path.parent().unwrap_or(path).to_owned(),
        _ => path.with_extension(""),
    };
    let file = directory.join(module).with_extension("rs");
    file.display().to_string()
}
