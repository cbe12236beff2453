//! Lines over an axis: how something grows, or how it is spread.

use anyhow::Result;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::figures::Curves;

use super::page::amount;
use super::plots::{Area, FONT, colour};

pub const HEIGHT: u32 = 340;

/// How wide it is without what says which line is whose.
const CHART: i32 = 610;

/// With `shares`, the other axis is the share of values that are not above.
pub fn draw(area: &Area<'_>, curves: &Curves, shares: bool) -> Result<()> {
    let points = curves.series.iter().flat_map(|series| &series.points);
    let (mut left, mut right, mut top) = (f64::MAX, f64::MIN, 0.0_f64);
    for (x, y) in points {
        (left, right, top) = (left.min(*x), right.max(*x), top.max(*y));
    }
    if left >= right {
        (left, right) = (1.0, 10.0);
    }
    let top = match (shares, top > 0.0) {
        (true, _) => 1.0,
        (_, true) => top * 1.05,
        _ => 1.0,
    };
    if curves.log_x {
        chart(area, curves, (left..right * 1.05).log_scale(), top, shares)
    } else {
        chart(area, curves, left..right, top, shares)
    }
}

fn chart<X>(area: &Area<'_>, curves: &Curves, x: X, top: f64, shares: bool) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let (left, right) = area.split_horizontally(CHART);
    let mut chart = ChartBuilder::on(&left)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(38)
        .y_label_area_size(56)
        .caption(&curves.title, (FONT, 15))
        .build_cartesian_2d(x, 0.0..top)?;
    // What values are spread over has a unit, a count has none.
    let unit = if shares { curves.x.as_str() } else { "" };
    let x_label = |x: &f64| amount(*x, unit);
    let y_label = |y: &f64| match shares {
        true => format!("{:.0} %", y * 100.0),
        false => amount((y * 100.0).round() / 100.0, ""),
    };
    let (x_name, y_name) = match shares {
        true => ("", "share not above"),
        false => (curves.x.as_str(), curves.y.as_str()),
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .label_style((FONT, 12))
        .axis_desc_style((FONT, 13))
        .x_desc(x_name)
        .y_desc(y_name)
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .draw()?;
    let mut kinds = Vec::new();
    for (series, row) in curves.series.iter().zip(0..) {
        let name = series.name.as_str();
        let kind = name.split_once(": ").map(|(kind, _)| kind);
        let nth = kinds.iter().filter(|other| **other == kind).count();
        kinds.push(kind);
        let colour = colour(name, nth);
        let points = series.points.iter().copied();
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        let y = 40 + 20 * row;
        let line = [(0, y + 6), (18, y + 6)];
        right.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        right.draw(&Text::new(name, (26, y), (FONT, 12)))?;
    }
    Ok(())
}
