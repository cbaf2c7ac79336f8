//! How cost grows with metrics a message and with the number of devices, as one SVG of four charts.

use std::path::Path;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::grouped;
use super::runner::results::{self, Outcome, Results};

const SIZE: (u32, u32) = (960, 720);
const FONT: &str = "sans-serif";
/// The same for each part in every chart.
const PARTS: [(&str, &str, RGBColor); 3] = [
    ("tidegate", results::TIDEGATE_CPU, RGBColor(0, 90, 160)),
    ("broker", results::BROKER_CPU, RGBColor(200, 110, 0)),
    ("database", results::DATABASE_CPU, RGBColor(0, 130, 90)),
];
const RATES: [(&str, &str, RGBColor); 2] =
    [("end to end", results::RATE, RGBColor(0, 90, 160)), ("ceiling", results::CEILING, RGBColor(130, 130, 130))];

/// One chart.
struct Chart<'a> {
    title: &'a str,
    across: &'a str,
    unit: &'a str,
    lines: &'a [(&'a str, &'a str, RGBColor)],
    /// Place on the axis, and the scenario there.
    points: &'a [(f64, &'a Outcome)],
    /// What the values are divided by.
    scale: f64,
}

/// Draws the file.
///
/// # Errors
/// When neither series has two scenarios measured, or the file can't be written.
pub fn draw(results: &Results, svg: &Path) -> anyhow::Result<()> {
    let metrics = series(results, &["metrics-1", "metrics-5", "metrics-10", "metrics-50"], |one| one.metrics);
    let devices =
        series(results, &["devices-10", "devices-1000", "devices-10000", "devices-100000"], |one| one.devices);
    anyhow::ensure!(
        metrics.len() > 1 && devices.len() > 1,
        "too few of the scenarios metrics-* and devices-* measured"
    );
    let root = SVGBackend::new(svg, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let areas = root.split_evenly((2, 2));
    let charts = [
        ("CPU by metrics a message", "metrics a message", "µs a reading", &PARTS[..], &metrics, 1.0),
        ("CPU by devices", "devices", "µs a reading", &PARTS[..], &devices, 1.0),
        ("Rate by metrics a message", "metrics a message", "thousand readings/s", &RATES[..], &metrics, 1000.0),
        ("Rate by devices", "devices", "thousand readings/s", &RATES[..], &devices, 1000.0),
    ];
    for (area, (title, across, unit, lines, points, scale)) in areas.iter().zip(charts) {
        Chart { title, across, unit, lines, points, scale }.draw(area)?;
    }
    root.present().map_err(failed)
}

fn series<'a>(
    results: &'a Results,
    names: &[&str],
    place: impl Fn(&Outcome) -> Option<u32>,
) -> Vec<(f64, &'a Outcome)> {
    let found = names.iter().filter_map(|name| results.outcome(name));
    found.filter_map(|outcome| Some((f64::from(place(outcome)?), outcome))).collect()
}

impl Chart<'_> {
    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> anyhow::Result<()> {
        let from = self.points.iter().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        let to = self.points.iter().map(|(x, _)| *x).fold(0.0, f64::max);
        let figures = self.lines.iter().flat_map(|(_, name, _)| self.points.iter().map(|(_, one)| one.figure(name)));
        let top = figures.flatten().map(|figure| figure.max() / self.scale).fold(0.0, f64::max);
        let places: Vec<f64> = self.points.iter().map(|(x, _)| *x).collect();
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(30)
            .caption(self.title, (FONT, 16))
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(
                (from / 1.2..to * 1.2).log_scale().with_key_points(places.clone()),
                // Room for the legend.
                0.0..top * 1.3,
            )
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.across)
            .y_desc(self.unit)
            .x_label_formatter(&|x| grouped(*x))
            .y_label_formatter(&|y| if top < 10.0 { format!("{y:.1}") } else { grouped(*y) })
            .label_style((FONT, 12))
            .draw()
            .map_err(failed)?;
        for (label, name, color) in self.lines {
            let points = self.points.iter().filter_map(|(x, outcome)| Some((*x, outcome.figure(name)?)));
            let points: Vec<_> = points.collect();
            let medians = points.iter().map(|(x, figure)| (*x, figure.median() / self.scale));
            let color = *color;
            chart
                .draw_series(LineSeries::new(medians.clone(), color.stroke_width(2)))
                .map_err(failed)?
                .label(*label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
            chart.draw_series(medians.map(|point| Circle::new(point, 3, color.filled()))).map_err(failed)?;
            // The spread.
            let bars = points.iter().map(|(x, figure)| {
                PathElement::new([(*x, figure.min() / self.scale), (*x, figure.max() / self.scale)], color)
            });
            chart.draw_series(bars).map_err(failed)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 12))
            .draw()
            .map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}
