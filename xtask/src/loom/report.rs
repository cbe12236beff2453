//! What the models explored, as a table: for the terminal, and in `loom_tests/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::models::{self, Model};
use crate::workspace;

/// Where the table stands in `loom_tests/README.md`.
const BEGIN: &str = "<!-- table: written by `cargo xtask loom --write` -->\n";
const END: &str = "<!-- end of table -->\n";

/// What one model explored; a model that does so several times, all of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Explored {
    bound: String,
    executions: u64,
    millis: u64,
}

type Report = BTreeMap<String, Explored>;

/// The file that the models write to; empty.
pub fn file() -> Result<PathBuf> {
    let path = super::target_dir()?.join("report.tsv");
    fs::create_dir_all(super::target_dir()?)?;
    fs::write(&path, "")?;
    Ok(path)
}

/// Prints the table of what was explored, the longest first.
pub fn print(file: &Path) -> Result<()> {
    let report = parse(&fs::read_to_string(file)?)?;
    let mut rows: Vec<_> = report.iter().collect();
    rows.sort_by_key(|(_, explored)| std::cmp::Reverse(explored.millis));
    println!("{:>10} {:>6} {:>8}  model", "executions", "bound", "s");
    for (name, explored) in &rows {
        let seconds = seconds(explored.millis);
        println!(
            "{:>10} {:>6} {seconds:>8}  {name}",
            explored.executions, explored.bound
        );
    }
    let exhausted = rows.iter().filter(|(_, explored)| explored.bound == "none");
    println!(
        "{} models, {} of them exhausted",
        rows.len(),
        exhausted.count()
    );
    Ok(())
}

/// Writes what was explored into the README: in the columns of the default bounds, or of the full ones.
pub fn write(file: &Path, full: bool) -> Result<()> {
    let report = parse(&fs::read_to_string(file)?)?;
    let path = workspace::root().join("loom_tests/README.md");
    let mut readme = fs::read_to_string(&path)?;
    let place = workspace::between(&readme, BEGIN, END)?;
    let mut known = cells(&readme[place.clone()]);
    for (name, explored) in report {
        let row = known.entry(name).or_default();
        row[usize::from(full)] = format!(
            "{} | {} | {}",
            explored.bound,
            explored.executions,
            seconds(explored.millis)
        );
    }
    let table = table(&models::all(&workspace::root())?, &known);
    readme.replace_range(place, &table);
    Ok(fs::write(path, readme)?)
}

/// Which models lack a row in the README, and which rows a model.
pub fn problems(models: &[Model]) -> Result<Vec<String>> {
    let readme = fs::read_to_string(workspace::root().join("loom_tests/README.md"))?;
    let written = &readme[workspace::between(&readme, BEGIN, END)?];
    let is_old = table(models, &cells(written)) != written;
    let hint = "loom_tests/README.md: its table is old: run `cargo xtask loom --write`";
    Ok(is_old.then(|| hint.to_owned()).into_iter().collect())
}

fn parse(text: &str) -> Result<Report> {
    let mut report = Report::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, bound, executions, millis] = fields[..] else {
            anyhow::bail!("a model's report reads {line:?}");
        };
        let explored = report.entry(name.to_owned()).or_default();
        explored.bound = bound.to_owned();
        explored.executions += executions.parse::<u64>().context("executions")?;
        explored.millis += millis.parse::<u64>().context("milliseconds")?;
    }
    Ok(report)
}

/// The columns of numbers in a table, by the model's name.
fn cells(table: &str) -> BTreeMap<String, [String; 2]> {
    let rows = table.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let (name, numbers) = (cells.first()?, cells.get(2..)?);
        let name = name.trim_start_matches("| ").trim_matches('`');
        let [numbers @ .., last] = numbers else {
            return None;
        };
        let last = last.trim_end_matches(" |");
        let all = [numbers, &[last]].concat();
        let (default, full) = (all.get(..3)?, all.get(3..6)?);
        Some((name.to_owned(), [default.join(" | "), full.join(" | ")]))
    });
    rows.collect()
}

fn table(models: &[Model], known: &BTreeMap<String, [String; 2]>) -> String {
    let mut table = String::new();
    let mut file = "";
    // Those of shuttle have a README of their own.
    for model in models
        .iter()
        .filter(|model| !model.file.starts_with("shuttle/"))
    {
        if model.file != file {
            file = &model.file;
            table += &format!("\n`{file}`:\n\n");
            table += "| model | | bound | executions | s | `--full` | executions | s |\n";
            table += "|---|---|---|---|---|---|---|---|\n";
        }
        let numbers = |at: usize| match known.get(&model.name).map(|cells| &*cells[at]) {
            _ if model.must_fail => "must fail | |",
            None | Some("") => "– | – | –",
            Some(numbers) => numbers,
        };
        let (default, full) = (numbers(0), numbers(1));
        let about = about(model);
        table += &format!("| `{}` | {about} | {default} | {full} |\n", model.name);
    }
    table + "\n"
}

/// What it says of itself, and which clauses it is for.
fn about(model: &Model) -> String {
    let clauses = match &model.breaks {
        Some(broken) if !broken.is_empty() => format!("breaks {}", broken.join(", ")),
        None if !model.shows.is_empty() => format!("shows {}", model.shows.join(", ")),
        _ => String::new(),
    };
    match (model.about.is_empty(), clauses.is_empty()) {
        (false, false) => format!("{} ({clauses})", model.about),
        _ => format!("{}{clauses}", model.about),
    }
}

fn seconds(millis: u64) -> String {
    format!("{:.1}", millis as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_summed_up_by_model() {
        let report = parse("a\t3\t10\t1500\nb\tnone\t1\t0\na\t3\t5\t500\n").unwrap();
        let a = Explored {
            bound: "3".into(),
            executions: 15,
            millis: 2000,
        };
        assert_eq!((&report["a"], report.len()), (&a, 2));
        assert!(parse("a b").is_err());
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let model = Model {
            file: "gate".into(),
            name: "one".into(),
            about: "What it is.".into(),
            ..Model::default()
        };
        let numbers = ["3 | 12 | 0.1".to_owned(), "none | 90 | 4.0".to_owned()];
        let known = BTreeMap::from([("one".to_owned(), numbers)]);
        let written = table(&[model], &known);
        assert_eq!(cells(&written)["one"], known["one"]);
    }
}
