//! Lines over an axis: how something grows, or how it is spread.

use anyhow::Result;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::figures::Curves;

use super::page::amount;
use super::plots::{Area, FONT, colour};

pub const HEIGHT: u32 = 340;

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
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(36)
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
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .label_style((FONT, 12))
        .axis_desc_style((FONT, 13))
        .x_desc(if shares { "" } else { curves.x.as_str() })
        .y_desc(if shares {
            "share not above"
        } else {
            curves.y.as_str()
        })
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .draw()?;
    let mut kinds = Vec::new();
    for series in &curves.series {
        let kind = series
            .name
            .split(':')
            .next()
            .filter(|_| series.name.contains(": "));
        let nth = kinds.iter().filter(|other| **other == kind).count();
        kinds.push(kind);
        let colour = colour(&series.name, nth);
        let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    let place = match shares {
        true => SeriesLabelPosition::LowerRight,
        false => SeriesLabelPosition::UpperLeft,
    };
    chart
        .configure_series_labels()
        .position(place)
        .label_font((FONT, 12))
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    Ok(())
}
