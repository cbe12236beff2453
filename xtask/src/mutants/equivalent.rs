//! What SAFETY.md says of mutants that no model kills, because they change nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Where they stand, one an item that starts with the mutant's name: `- `NAME`: why`.
const SECTION: &str = "## Orderings that no model needs";

/// A longer list is no list of exceptions.
const MOST: usize = 5;

/// The names of those mutants.
pub struct Equivalents(BTreeSet<String>);

impl Equivalents {
    /// Those in SAFETY.md; one that is not among these mutants is an error.
    pub fn read(root: &Path, mutants: &[&str]) -> Result<Self> {
        let safety = fs::read_to_string(root.join("SAFETY.md")).context("SAFETY.md")?;
        let names = parse(&safety)?;
        for name in &names {
            ensure!(
                mutants.contains(&name.as_str()),
                "SAFETY.md: no mutant is called `{name}`; `cargo xtask mutants --list` names them"
            );
        }
        Ok(Equivalents(names))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

fn parse(safety: &str) -> Result<BTreeSet<String>> {
    let lines = safety.lines().skip_while(|line| *line != SECTION).skip(1);
    let items = lines
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("- "));
    let mut names = BTreeSet::new();
    for item in items {
        match item
            .strip_prefix('`')
            .and_then(|item| item.split_once("`: "))
        {
            Some((name, why)) if !why.is_empty() => names.insert(name.to_owned()),
            _ => bail!("SAFETY.md: an ordering that no model needs is \"- `NAME`: WHY\": {item}"),
        };
    }
    ensure!(
        names.len() <= MOST,
        "SAFETY.md has {} orderings that no model needs; more than {MOST} are too many",
        names.len()
    );
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_and_a_reason() {
        let text = |items: &str| format!("- `x`: y\n{SECTION}\n\nText.\n\n{items}\n## Next\n- z\n");
        let names = parse(&text(
            "- `a.rs: f: load Acquire -> Relaxed`: because\n  of it.",
        ))
        .unwrap();
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["a.rs: f: load Acquire -> Relaxed"]
        );
        assert!(parse("").unwrap().is_empty());
        assert!(parse(&text("- `a.rs`: ")).is_err());
        assert!(parse(&text("- a.rs: why")).is_err());
        let many: String = (0..=MOST).map(|n| format!("- `{n}`: why\n")).collect();
        assert!(parse(&text(&many)).is_err());
    }
}
