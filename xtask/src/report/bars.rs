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

/// What is taken off the others is no bar of its own.
fn rows(table: &Table) -> impl Iterator<Item = &Row> {
    table.rows.iter().filter(|row| row.role != Role::Overhead)
}

pub fn height(table: &Table) -> u32 {
    (TITLE + BAR * rows(table).count() as i32 + 12) as u32
}

pub fn draw(area: &Area<'_>, table: &Table) -> Result<()> {
    let most = rows(table)
        .map(|row| row.value)
        .fold(f64::MIN_POSITIVE, f64::max);
    area.draw(&Text::new(table.title.as_str(), (12, 12), (FONT, 15)))?;
    for (nth, row) in rows(table).enumerate() {
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
