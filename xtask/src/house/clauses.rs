//! Which model shows or breaks which clause: what the models' comments say against SAFETY.md.
//!
//! A model says `Shows: ID, ID.` in its doc comment, one that must fail `Breaks: ID.`. For each clause that
//! is named in `src/`, SAFETY.md has a row in its table of models, which is written by `cargo xtask
//! clauses`; what has no model of either kind has a row in the table of reasons, which is written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;

use anyhow::Result;

use crate::models::{self, Model};
use crate::workspace;

/// Where the table of models stands in SAFETY.md.
const BEGIN: &str = "<!-- models: written by `cargo xtask clauses` -->\n";
const END: &str = "<!-- end of models -->\n";
/// The heading of the table of reasons.
const REASONS: &str = "\n### Clauses without a model\n";

/// What there is of one clause.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    shown: Vec<String>,
    broken: Vec<String>,
}

/// What is wrong, for the clauses `named` in `src/`.
pub(super) fn problems(
    safety: &str,
    named: &BTreeSet<String>,
    models: &[Model],
) -> Result<Vec<String>> {
    let rows = rows(models);
    let mut problems = wrong_models(models);
    problems.extend(gaps(&rows, named, safety));
    if safety[table_in(safety)?] != table(&rows) {
        problems.push("SAFETY.md: its table of models is old: run `cargo xtask clauses`".into());
    }
    Ok(problems)
}

/// Writes the table of models into SAFETY.md.
pub fn write() -> Result<()> {
    let path = workspace::root().join("SAFETY.md");
    let mut safety = fs::read_to_string(&path)?;
    let table = table(&rows(&models::all(&workspace::root())?));
    safety.replace_range(table_in(&safety)?, &table);
    Ok(fs::write(path, safety)?)
}

fn wrong_models(models: &[Model]) -> Vec<String> {
    let mut problems = Vec::new();
    for model in models {
        match &model.breaks {
            None if model.must_fail => {
                problems.push(format!("{} must fail: what does it break?", model.name));
            }
            Some(_) if !model.must_fail => {
                problems.push(format!("{} breaks something, and may pass", model.name));
            }
            Some(ids) if ids.len() > 1 => {
                problems.push(format!("{} breaks more than one clause", model.name));
            }
            _ => {}
        }
        if !model.shows.is_empty() && model.must_fail {
            problems.push(format!("{} must fail, and shows nothing", model.name));
        }
    }
    problems
}

fn rows(models: &[Model]) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for model in models {
        for id in &model.shows {
            let row = rows.entry(id.clone()).or_default();
            row.shown.push(model.path());
        }
        for id in model.breaks.iter().flatten() {
            let row = rows.entry(id.clone()).or_default();
            row.broken.push(model.path());
        }
    }
    rows
}

/// Clauses that lack a model without a reason, or have both, and models of what is no clause.
fn gaps(rows: &BTreeMap<String, Row>, named: &BTreeSet<String>, safety: &str) -> Vec<String> {
    let (unshown, unbroken) = reasons(safety);
    let none = Row::default();
    let mut problems = Vec::new();
    for id in named.iter().filter(|id| !id.starts_with("AX-")) {
        let row = rows.get(id).unwrap_or(&none);
        for (models, reasons, what) in [
            (&row.shown, &unshown, "shows"),
            (&row.broken, &unbroken, "breaks"),
        ] {
            match (models.is_empty(), reasons.contains(id)) {
                (true, false) => problems.push(format!(
                    "{id}: no model {what} it, and SAFETY.md gives no reason"
                )),
                (false, true) => problems.push(format!(
                    "{id}: a model {what} it, and SAFETY.md says why none does"
                )),
                _ => {}
            }
        }
    }
    let known = |id: &&String| !id.starts_with("AX-") && !named.contains(*id);
    let unknown = rows.keys().filter(known);
    problems.extend(unknown.map(|id| format!("{id}: a model names it, and src/ does not")));
    let with_reason: BTreeSet<_> = unshown.union(&unbroken).collect();
    let stale = with_reason.into_iter().filter(|id| !named.contains(*id));
    problems.extend(stale.map(|id| format!("{id}: SAFETY.md has a reason, and src/ no clause")));
    problems
}

/// The clauses for which the table of reasons says why no model shows them, and why none breaks them.
fn reasons(safety: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut unshown, mut unbroken) = (BTreeSet::new(), BTreeSet::new());
    let rest = safety.split_once(REASONS).map_or("", |(_, rest)| rest);
    let section = rest.split("\n## ").next().unwrap_or(rest);
    for row in section.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, ids, which, why, _] = cells[..] else {
            continue;
        };
        if why.is_empty() {
            continue;
        }
        if ["neither", "shows"].contains(&which) {
            unshown.extend(models::clauses(ids));
        }
        if ["neither", "breaks"].contains(&which) {
            unbroken.extend(models::clauses(ids));
        }
    }
    (unshown, unbroken)
}

/// Where the table of models is.
fn table_in(safety: &str) -> Result<Range<usize>> {
    workspace::between(safety, BEGIN, END)
}

fn table(rows: &BTreeMap<String, Row>) -> String {
    let list = |models: &[String]| {
        let quoted: Vec<String> = models.iter().map(|name| format!("`{name}`")).collect();
        quoted.join(", ")
    };
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|(id, _)| order(id));
    let mut table = String::from("| clause | shown by | broken by |\n|---|---|---|\n");
    for (id, row) in sorted {
        table += &format!("| {id} | {} | {} |\n", list(&row.shown), list(&row.broken));
    }
    table
}

/// `QP-10` comes after `QP-9`.
fn order(id: &str) -> (&str, u32) {
    let (letters, digits) = id.split_once('-').unwrap_or((id, ""));
    (letters, digits.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::models_in;

    const TEXT: &str = r#"
/// Shows: SLICE-1,
/// SLICE-2.
#[test]
fn one() {
}

/// Breaks: SLICE-2.
#[test]
#[should_panic(expected = "race")]
fn two() {
}

fn no_test() {}
"#;

    fn ids(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn models_that_must_fail_break_something() {
        assert!(wrong_models(&models_in("file", TEXT)).is_empty());
        let careless = Model {
            must_fail: true,
            ..Model::default()
        };
        assert_eq!(wrong_models(&[careless]).len(), 1);
        let harmless = Model {
            breaks: Some(vec!["SLICE-1".into()]),
            ..Model::default()
        };
        assert_eq!(wrong_models(&[harmless]).len(), 1);
    }

    #[test]
    fn a_clause_without_a_model_needs_a_reason() {
        let rows = rows(&models_in("file", TEXT));
        let named = ids(&["SLICE-1", "SLICE-2"]);
        assert_eq!(gaps(&rows, &named, "").len(), 1);
        let reason = |which: &str, why: &str| format!("{REASONS}| SLICE-1 | {which} | {why} |\n");
        assert!(gaps(&rows, &named, &reason("breaks", "so")).is_empty());
        assert_eq!(gaps(&rows, &named, &reason("breaks", "")).len(), 1);
        // It is shown, and said not to be.
        assert_eq!(gaps(&rows, &named, &reason("neither", "so")).len(), 1);
        // What is no clause.
        assert_eq!(
            gaps(&rows, &ids(&["SLICE-2"]), &reason("breaks", "so")).len(),
            2
        );
    }

    #[test]
    fn the_table_is_found_and_sorted() {
        let rows = rows(&models_in(
            "file",
            "/// Shows: QP-10, QP-9.\n#[test]\nfn one() {}\n",
        ));
        let table = table(&rows);
        assert!(table.find("QP-9").unwrap() < table.find("QP-10").unwrap());
        let safety = format!("a\n{BEGIN}{table}{END}b\n");
        assert_eq!(safety[table_in(&safety).unwrap()], table);
        assert!(table_in("").is_err());
    }
}
