//! The page itself: what stands in `text`, with the numbers.

use std::fmt::Write;

use crate::figures::{Promise, Report, Role, Row, Table};

use super::machine::Machine;
use super::text;

pub fn page(machine: &Machine, reports: &[Report]) -> String {
    let mut page = text::INTRODUCTION.to_owned();
    page += &about(machine);
    page += "\n## What is promised\n\n";
    page += text::PROMISES;
    page += &promises(reports);
    for report in reports {
        page += &section(report);
    }
    page
}

fn about(machine: &Machine) -> String {
    let Machine {
        processor,
        cores,
        kernel,
        rustc,
        date,
        commit,
        ..
    } = machine;
    let kind = if machine.is_virtual {
        "a virtual machine"
    } else {
        "a machine"
    };
    let mut about = format!(
        "\nThese figures are of {date}, commit `{commit}`, {rustc}, on {kind} with {cores} cores of \
         {processor:?}, Linux {kernel}.\n"
    );
    if machine.quick {
        about += "**They were measured in a hurry (`--quick`)**: one measurement of each, on a machine that may \
                  have done other things as well.\n";
    }
    about
}

/// Every promise, in one table.
fn promises(reports: &[Report]) -> String {
    let mut text = String::from("| | what | against | promised | found | kept |\n");
    text += "|---|---|---|---|---|---|\n";
    for table in reports.iter().flat_map(|report| &report.tables) {
        for row in &table.rows {
            for (promise, found, kept) in row.promises() {
                let against = match promise {
                    Promise::Value(_) => "",
                    _ => baseline(table, row),
                };
                let _ = writeln!(
                    text,
                    "| {} | {} | {against} | {} | {} | {} |",
                    table.title,
                    row.name,
                    at_most(promise, &table.unit),
                    shown(promise, found, &table.unit),
                    if kept { "yes" } else { "**no**" },
                );
            }
        }
    }
    text
}

fn at_most(promise: Promise, unit: &str) -> String {
    match promise {
        Promise::Ratio(most) => format!("at most {most}×"),
        Promise::More(most) => format!("at most {} more", amount(most, unit)),
        Promise::Value(most) => format!("at most {}", amount(most, unit)),
    }
}

fn shown(promise: Promise, found: f64, unit: &str) -> String {
    match promise {
        Promise::Ratio(_) => format!("{found:.2}×"),
        Promise::More(_) if found < 0.0 => format!("{} less", amount(-found, unit)),
        Promise::More(_) => format!("{} more", amount(found, unit)),
        Promise::Value(_) => amount(found, unit),
    }
}

/// What the ratios of a row are to: the baseline, or the fastest of several.
fn baseline<'t>(table: &'t Table, row: &Row) -> &'t str {
    let those = table.rows.iter().filter(|row| row.role == Role::Baseline);
    let others = those.filter(|other| other.name != row.name);
    let fastest = others.min_by(|a, b| a.value.total_cmp(&b.value));
    fastest.map_or("", |row| &row.name)
}

fn section(report: &Report) -> String {
    let section = text::section(&report.bench);
    let heading = section.map_or(report.bench.as_str(), |section| section.heading);
    let mut text = format!("\n## {heading}\n\n");
    if let Some(section) = section {
        text += section.text;
        if let Some((plot, caption)) = section.plot {
            let _ = writeln!(text, "\n![{caption}](plots/{plot}.svg)");
        }
    }
    for tables in report.tables.chunk_by(are_of_one) {
        text += &match tables {
            [table] => of_table(table),
            _ => of_quantiles(tables),
        };
    }
    text
}

/// `wake-up, p50` is of a wake-up, and its p50.
fn quantile(title: &str) -> Option<(&str, &str)> {
    let (what, tail) = title.rsplit_once(", ")?;
    let is_quantile = tail.strip_prefix('p')?.parse::<f64>().is_ok();
    is_quantile.then_some((what, tail))
}

/// Whether two tables are of different quantiles of the same.
fn are_of_one(a: &Table, b: &Table) -> bool {
    let what = |table| quantile(table).map(|(what, _)| what);
    what(&a.title).is_some_and(|of| Some(of) == what(&b.title)) && a.rows.len() == b.rows.len()
}

/// Side by side.
fn of_quantiles(tables: &[Table]) -> String {
    let named = tables.iter().filter_map(|table| quantile(&table.title));
    let (mut whats, quantiles): (Vec<&str>, Vec<&str>) = named.unzip();
    let mut text = format!(
        "\n| {} | {} | promised |\n|---|{}---|\n",
        whats.pop().unwrap_or_default(),
        quantiles.join(" | "),
        "---|".repeat(tables.len()),
    );
    for nth in 0..tables[0].rows.len() {
        let rows = tables.iter().map(|table| (table, &table.rows[nth]));
        let cells: Vec<String> = rows.clone().map(|(table, row)| cell(table, row)).collect();
        let promises = rows.zip(&quantiles).flat_map(|((table, row), quantile)| {
            let of_row = promised(table, row).into_iter();
            of_row.map(move |promise| format!("{quantile}: {promise}"))
        });
        let promises: Vec<String> = promises.collect();
        let name = &tables[0].rows[nth].name;
        let (cells, promises) = (cells.join(" | "), promises.join("; "));
        let _ = writeln!(text, "| {name} | {cells} | {promises} |");
    }
    text
}

/// A value and its ratio.
fn cell(table: &Table, row: &Row) -> String {
    let value = amount(row.value, &table.unit);
    match row.ratio {
        Some(ratio) => format!("{value} ({ratio:.2})"),
        None => value,
    }
}

fn promised(table: &Table, row: &Row) -> Vec<String> {
    let promises = row.promises().map(|(promise, _, kept)| {
        let missed = if kept { "" } else { " **missed**" };
        at_most(promise, &table.unit) + missed
    });
    promises.collect()
}

fn of_table(table: &Table) -> String {
    let mut text = format!(
        "\n| {} | | ratio | promised |\n|---|---|---|---|\n",
        table.title
    );
    for row in &table.rows {
        let ratio = match (row.ratio, row.role) {
            (Some(_), Role::Overhead) | (None, _) => String::new(),
            (Some(ratio), _) => format!("{ratio:.2}"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {ratio} | {} |",
            row.name,
            amount(row.value, &table.unit),
            promised(table, row).join("; "),
        );
    }
    text
}

/// A value with its unit, to three digits.
pub fn amount(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "ns" if value.abs() >= 1e6 => (value / 1e6, "ms"),
        "ns" if value.abs() >= 1e3 => (value / 1e3, "µs"),
        _ => (value, unit),
    };
    let digits = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_three_digits() {
        for (value, unit, expected) in [
            (4.217, "ns", "4.22 ns"),
            (60.0, "ns", "60 ns"),
            (42.17, "ns", "42.2 ns"),
            (6041.5, "ns", "6.04 µs"),
            (17_302_600.0, "ns", "17.3 ms"),
            (160.0, "B", "160 B"),
            (2.0, "", "2"),
        ] {
            assert_eq!(amount(value, unit), expected);
        }
    }

    #[test]
    fn quantiles_stand_side_by_side() {
        let table = |title: &str, value| Table {
            title: title.into(),
            unit: "ns".into(),
            rows: vec![Row {
                name: "ours".into(),
                value,
                ratio: Some(value),
                promised: Some(2.0),
                ..Row::default()
            }],
        };
        let tables = vec![
            table("a, p50", 1.0),
            table("a, p99", 3.0),
            table("a, page", 4.0),
        ];
        let text = section(&Report {
            tables,
            ..Report::default()
        });
        assert!(text.contains("| a | p50 | p99 | promised |"));
        let row =
            "| ours | 1 ns (1.00) | 3 ns (3.00) | p50: at most 2×; p99: at most 2× **missed** |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| a, page | | ratio | promised |"));
    }

    #[test]
    fn a_promise_that_is_missed_is_told_of() {
        let row = |name: &str, role, value| Row {
            name: name.into(),
            role,
            value,
            ratio: Some(value / 4.0),
            more: Some(value - 4.0),
            ..Row::default()
        };
        let mut ours = row("ours", Role::Compared, 5.0);
        ours.promise(Promise::Ratio(1.3));
        ours.promise(Promise::More(0.5));
        let report = Report::from(Table {
            title: "a guard".into(),
            unit: "ns".into(),
            rows: vec![ours, row("floor", Role::Baseline, 4.0)],
        });
        let table = promises(&[report]);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| a guard | ours | floor | at most 1.3× | 1.25× | yes |",
                "| a guard | ours | floor | at most 0.50 ns more | 1 ns more | **no** |",
            ]
        );
    }
}
