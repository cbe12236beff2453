//! What was measured, as tables, distributions and curves: printed, and as JSON for `cargo xtask bench-report`,
//! which reads it by this very file.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// All of one bench.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub bench: String,
    pub tables: Vec<Table>,
    pub distributions: Vec<Distribution>,
    pub curves: Vec<Curves>,
}

/// Who needed how much.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    pub title: String,
    /// Of the values: `ns`, `B`.
    pub unit: String,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    pub name: String,
    pub role: Role,
    pub value: f64,
    /// To the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// How much more than the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<f64>,
    /// The most that the ratio may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promised: Option<f64>,
    /// The most that it may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promised_more: Option<f64>,
    /// The most that the value may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promised_value: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    Compared,
    /// What ratios are to: the fastest of these.
    Baseline,
    /// What all others do besides, taken off theirs.
    Overhead,
}

/// How values are spread.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Distribution {
    pub title: String,
    pub unit: String,
    pub series: Vec<Quantiles>,
}

/// A share, from 0 to 1, and the value that so many are not above.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    pub name: String,
    pub quantiles: Vec<(f64, f64)>,
}

/// Lines over one axis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Curves {
    pub title: String,
    /// What the axes are of.
    pub x: String,
    pub y: String,
    pub log_x: bool,
    pub series: Vec<Points>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Points {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Report {
    pub fn add(&mut self, other: Report) {
        self.tables.extend(other.tables);
        self.distributions.extend(other.distributions);
        self.curves.extend(other.curves);
    }

    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        fs::write(file, serde_json::to_vec_pretty(self)?)
    }

    pub fn read(file: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }
}

impl From<Table> for Report {
    fn from(table: Table) -> Self {
        Report {
            tables: vec![table],
            ..Report::default()
        }
    }
}

impl Row {
    pub fn promise(&mut self, promise: Promise) {
        match promise {
            Promise::Ratio(most) => self.promised = Some(most),
            Promise::More(most) => self.promised_more = Some(most),
            Promise::Value(most) => self.promised_value = Some(most),
        }
    }

    /// What is promised of it, what is found, and whether it is kept.
    pub fn promises(&self) -> impl Iterator<Item = (Promise, f64, bool)> {
        let all = [
            (self.promised.map(Promise::Ratio), self.ratio),
            (self.promised_more.map(Promise::More), self.more),
            (self.promised_value.map(Promise::Value), Some(self.value)),
        ];
        all.into_iter().filter_map(|(promise, found)| {
            let (promise, found) = (promise?, found?);
            Some((promise, found, found <= promise.most()))
        })
    }

    fn is_missed(&self) -> bool {
        self.promises().any(|(_, _, kept)| !kept)
    }
}

/// The most that something may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    Ratio(f64),
    More(f64),
    Value(f64),
}

impl Promise {
    fn most(self) -> f64 {
        let (Promise::Ratio(most) | Promise::More(most) | Promise::Value(most)) = self;
        most
    }
}

impl std::fmt::Display for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Promise::Ratio(most) => write!(f, "{most}×"),
            Promise::More(most) => write!(f, "+{most}"),
            Promise::Value(most) => write!(f, "{most}"),
        }
    }
}

impl Table {
    /// For people; what `about` says is how it came about.
    pub fn print(&self, about: &str) {
        println!("{}: {about}", self.title);
        println!("{:>9} {:>7} {:>9}", self.unit, "ratio", "promised");
        for row in &self.rows {
            let promised: Vec<String> = row
                .promises()
                .map(|(promise, _, kept)| format!("{promise}{}", if kept { "" } else { " MISSED" }))
                .collect();
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}"));
            println!(
                "{:>9.2} {:>7} {:>9}  {}",
                row.value,
                ratio.unwrap_or_default(),
                promised.join(", "),
                row.name
            );
        }
    }

    pub fn is_missed(&self) -> bool {
        self.rows.iter().any(Row::is_missed)
    }
}
