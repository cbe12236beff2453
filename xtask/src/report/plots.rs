//! Which plots there are, and of what they are made.

use std::path::Path;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figures::{Curves, Distribution, Points, Report, Table};

use super::{bars, curves};

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// From top to bottom.
pub type Figure = Vec<Panel>;

pub enum Panel {
    Bars(Table),
    Lines(Curves),
    /// How values are spread: the share of those that are not above.
    Shares(Curves),
}

const WIDTH: u32 = 960;

pub const FONT: &str = "sans-serif";

/// The tables of guards that are drawn.
const GUARDS: &[&str] = &[
    "read guard, one thread",
    "read guard, two threads, one region",
    "read guard, two threads, a region each",
    "write guard, one thread",
];

/// The names of the plots, and what is on them.
pub fn all(reports: &[Report]) -> Vec<(&'static str, Figure)> {
    let of = |bench: &str| reports.iter().find(|report| report.bench == bench);
    let spread = |report: &Report| report.distributions.iter().map(shares).collect();
    let curves = |report: &Report| report.curves.iter().cloned().map(Panel::Lines).collect();
    let plots: [(&str, Option<Figure>); 5] = [
        ("guards", of("gate").map(guards)),
        ("wake-ups", of("waiting").map(spread)),
        ("ring", of("ring").map(spread)),
        ("growth", of("growth").map(growth)),
        ("lines", of("lines").map(curves)),
    ];
    let drawn = plots.into_iter();
    let drawn = drawn.filter_map(|(name, figure)| Some((name, figure?)));
    drawn.filter(|(_, figure)| !figure.is_empty()).collect()
}

pub fn draw(file: &Path, figure: &[Panel]) -> Result<()> {
    let heights: Vec<u32> = figure.iter().map(Panel::height).collect();
    let root = SVGBackend::new(file, (WIDTH, heights.iter().sum())).into_drawing_area();
    root.fill(&WHITE)?;
    let mut rest = root.clone();
    for (panel, height) in figure.iter().zip(heights) {
        let (area, below) = rest.split_vertically(height);
        match panel {
            Panel::Bars(table) => bars::draw(&area, table)?,
            Panel::Lines(of) => curves::draw(&area, of, false)?,
            Panel::Shares(of) => curves::draw(&area, of, true)?,
        }
        rest = below;
    }
    root.present()?;
    Ok(())
}

impl Panel {
    fn height(&self) -> u32 {
        match self {
            Panel::Bars(table) => bars::height(table),
            Panel::Lines(_) | Panel::Shares(_) => curves::HEIGHT,
        }
    }
}

/// Ours blue, floors grey, rivals in warm colours; `nth` tells those of a kind apart.
pub fn colour(name: &str, nth: usize) -> RGBColor {
    const OURS: [u32; 5] = [0x1f77b4, 0x17becf, 0x00468c, 0x6a51a3, 0x2ca02c];
    const FLOORS: [u32; 3] = [0x5a5a5a, 0x969696, 0xbebebe];
    const RIVALS: [u32; 6] = [0xd66027, 0xe8aa3c, 0xa03c3c, 0x8c6e46, 0xe377c2, 0xb5bd3a];
    let among: &[u32] = match name {
        _ if name.contains("floor") => &FLOORS,
        _ if name.starts_with("rival") => &RIVALS,
        _ => &OURS,
    };
    let [_, red, green, blue] = among[nth % among.len()].to_be_bytes();
    RGBColor(red, green, blue)
}

fn guards(report: &Report) -> Figure {
    let tables = report.tables.iter();
    let tables = tables.filter(|table| GUARDS.contains(&table.title.as_str()));
    tables.cloned().map(Panel::Bars).collect()
}

fn shares(distribution: &Distribution) -> Panel {
    let series = distribution.series.iter().map(|series| {
        // The fastest and the slowest of all are another story, and would take all the room.
        let all = series.quantiles.iter();
        let shown = all.filter(|(share, _)| (0.01..=0.995).contains(share));
        Points {
            name: series.name.clone(),
            points: shown
                .map(|(share, value)| (value.max(1.0), *share))
                .collect(),
        }
    });
    Panel::Shares(Curves {
        title: distribution.title.clone(),
        x: distribution.unit.clone(),
        y: "share".into(),
        log_x: true,
        series: series.collect(),
    })
}

/// Curves of the tables that differ by the number of regions alone, and those that are there as such.
fn growth(report: &Report) -> Figure {
    let mut all: Vec<Curves> = Vec::new();
    for table in &report.tables {
        let Some((what, regions)) = regions(&table.title) else {
            continue;
        };
        if all.last().is_none_or(|curves| curves.title != what) {
            all.push(Curves {
                title: what.into(),
                x: "regions".into(),
                y: table.unit.clone(),
                log_x: true,
                series: Vec::new(),
            });
        }
        let Some(curves) = all.last_mut() else {
            continue;
        };
        for row in &table.rows {
            let mut series = curves.series.iter_mut();
            match series.find(|series| series.name == row.name) {
                Some(series) => series.points.push((regions, row.value)),
                None => curves.series.push(Points {
                    name: row.name.clone(),
                    points: vec![(regions, row.value)],
                }),
            }
        }
    }
    all.extend(report.curves.iter().cloned());
    all.into_iter().map(Panel::Lines).collect()
}

/// `read guard, 10^3 regions` is of a read guard, and a thousand.
fn regions(title: &str) -> Option<(&str, f64)> {
    let (what, count) = title.rsplit_once(", ")?;
    let count = count
        .strip_suffix(" regions")
        .or(count.strip_suffix(" region"))?;
    let count = match count.split_once('^') {
        Some((base, exponent)) => base.parse::<f64>().ok()?.powi(exponent.parse().ok()?),
        None => count.parse().ok()?,
    };
    Some((what, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Quantiles, Row};

    #[test]
    fn tables_by_the_number_of_regions_become_curves() {
        assert_eq!(regions("a, b, 10^3 regions"), Some(("a, b", 1000.0)));
        assert_eq!(regions("one region, hot"), None);
        let table = |title: &str, value| Table {
            title: title.into(),
            unit: "ns".into(),
            rows: vec![Row {
                name: "ours".into(),
                value,
                ..Row::default()
            }],
        };
        let report = Report {
            tables: vec![
                table("guard, 1 region", 4.0),
                table("guard, 10^3 regions", 5.0),
                table("hold, 1 region", 6.0),
                table("leases", 7.0),
            ],
            ..Report::default()
        };
        let figure = growth(&report);
        let [Panel::Lines(guard), Panel::Lines(hold)] = &figure[..] else {
            panic!("two panels");
        };
        assert_eq!(guard.series[0].points, [(1.0, 4.0), (1000.0, 5.0)]);
        assert_eq!(hold.series[0].points, [(1.0, 6.0)]);
    }

    #[test]
    fn plots_of_all_kinds_are_drawn() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let distribution = Distribution {
            title: "spread".into(),
            unit: "ns".into(),
            series: vec![Quantiles {
                name: "rival: one".into(),
                quantiles: vec![(0.01, -1.0), (0.5, 80.0), (0.99, 2000.0), (1.0, 1e9)],
            }],
        };
        let table = Table {
            title: "bars <of> it".into(),
            unit: "ns".into(),
            rows: vec![Row {
                name: "floor & all".into(),
                value: 4.0,
                ..Row::default()
            }],
        };
        let flat = Curves {
            title: "flat".into(),
            series: vec![Points {
                name: "zero".into(),
                points: vec![(1.0, 0.0), (16.0, 0.0)],
            }],
            ..Curves::default()
        };
        let figure = [
            shares(&distribution),
            Panel::Bars(table),
            Panel::Lines(flat),
        ];
        draw(file.path(), &figure).unwrap();
        let drawn = std::fs::read_to_string(file.path()).unwrap();
        for text in ["rival: one", "floor &amp; all", "flat", "</svg>"] {
            assert!(drawn.contains(text), "no {text}");
        }
    }
}
