//! A table as bars that lie: a name, the bar, the value.

use anyhow::Result;
use plotters::prelude::*;

use crate::figures::{Role, Row, Table};

use super::page::amount;
use super::plots::{Area, FONT, colour};

const TITLE: i32 = 34;
const BAR: i32 = 22;
/// Where bars begin, and how long the longest is.
const LEFT: i32 = 390;
const LONGEST: f64 = 390.0;

/// The fastest first. What is taken off the others is no bar of its own.
fn rows(table: &Table) -> Vec<&Row> {
    let rows = table.rows.iter();
    let mut rows: Vec<&Row> = rows.filter(|row| row.role != Role::Overhead).collect();
    rows.sort_by(|a, b| a.value.total_cmp(&b.value));
    rows
}

pub fn height(table: &Table) -> u32 {
    (TITLE + BAR * rows(table).len() as i32 + 12) as u32
}

pub fn draw(area: &Area<'_>, table: &Table) -> Result<()> {
    let rows = rows(table);
    let most = rows.last().map_or(f64::MIN_POSITIVE, |row| row.value);
    area.draw(&Text::new(table.title.as_str(), (12, 12), (FONT, 15)))?;
    for (nth, row) in rows.into_iter().enumerate() {
        let top = TITLE + BAR * nth as i32;
        let end = LEFT + (LONGEST * row.value / most).round().max(1.0) as i32;
        let bar = [(LEFT, top), (end, top + BAR - 6)];
        area.draw(&Text::new(row.name.as_str(), (24, top + 2), (FONT, 13)))?;
        area.draw(&Rectangle::new(bar, colour(&row.name, 0).filled()))?;
        let value = amount(row.value, &table.unit);
        area.draw(&Text::new(value, (end + 6, top + 2), (FONT, 13)))?;
    }
    Ok(())
}
