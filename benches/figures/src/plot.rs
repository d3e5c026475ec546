//! The plots: bars, one below the other, with their intervals; and lines over the minutes of a run.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Report, Row};

const WIDTH: u32 = 1_000;
/// The height of a bar, and of a chart with lines.
const LINE: u32 = 26;
const HEIGHT: u32 = 320;
const MARGIN: u32 = 90;
const LABELS: u32 = 470;
const OURS: RGBColor = RGBColor(38, 98, 166);
const OTHERS: RGBColor = RGBColor(150, 150, 150);

/// The rows of a bench that are drawn.
pub(crate) struct Plot {
    bench: &'static str,
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    unit: &'static str,
    /// The texts that a drawn row's group and name must contain.
    group: &'static str,
    name: &'static str,
    /// `true` where one unit may be a thousand times another.
    is_log: bool,
    /// `true` if the rows of a group are the minutes of a line, in their order.
    is_line: bool,
}

const fn plot(bench: &'static str, file: &'static str, title: &'static str, unit: &'static str) -> Plot {
    Plot { bench, file, title, unit, group: "", name: "", is_log: false, is_line: false }
}

const PLOTS: [Plot; 12] = [
    plot("passthrough", "passthrough.svg", "Instructions of a request that passes", "instructions"),
    Plot { is_log: true, ..plot("replay", "replay.svg", "A replay, in µs (logarithmic)", "µs") },
    Plot {
        is_log: true,
        name: "throughput",
        ..plot("first", "first.svg", "First requests a second (logarithmic)", "requests/s")
    },
    Plot {
        group: "64 connections",
        name: "over",
        ..plot("http", "http.svg", "Throughput over sockets, 64 connections", "×")
    },
    Plot {
        group: "1 connection",
        name: "p50",
        ..plot("http", "http-latency.svg", "Median latency over sockets, one connection", "µs")
    },
    Plot { is_log: true, ..plot("growth", "growth.svg", "An exchange, by records, in µs (logarithmic)", "µs") },
    Plot { is_log: true, ..plot("contention", "contention.svg", "Everybody at once, in ms (logarithmic)", "ms") },
    Plot { ..plot("fingerprint", "fingerprint.svg", "Fingerprints by length of body", "GB/s") },
    Plot {
        group: "64 at once",
        name: "throughput",
        ..plot("shared", "shared.svg", "First requests a second over PostgreSQL, 64 at once", "requests/s")
    },
    Plot {
        group: "64 at once",
        name: "throughput",
        ..plot("redis", "redis.svg", "First requests a second over Redis, 64 at once", "requests/s")
    },
    Plot {
        is_log: true,
        is_line: true,
        name: "minute",
        ..plot("soak-fjall", "soak-times.svg", "10,000 new keys a second, by minute, in ms (logarithmic)", "ms")
    },
    Plot {
        is_line: true,
        name: "minute",
        ..plot("soak-fjall", "soak-space.svg", "10,000 new keys a second, by minute, in MiB", "MiB")
    },
];

/// Returns the plots of a bench.
pub(crate) fn plots(bench: &str) -> impl Iterator<Item = &'static Plot> {
    PLOTS.iter().filter(move |plot| plot.bench == bench)
}

impl Plot {
    fn scaled(&self, value: f64) -> f64 {
        if self.is_log { value.max(1e-3).log10() } else { value }
    }

    /// The text of a scaled value.
    fn label(&self, value: f64) -> String {
        let value = if self.is_log { 10_f64.powf(value) } else { value };
        if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
    }
}

pub(crate) fn draw(report: &Report, directory: &Path) -> Result<(), Box<dyn Error>> {
    for plot in plots(&report.bench) {
        let shown =
            |row: &&Row| row.unit == plot.unit && row.group.contains(plot.group) && row.name.contains(plot.name);
        let rows: Vec<_> = report.rows.iter().filter(shown).collect();
        if !rows.is_empty() {
            let draw = if plot.is_line { lines } else { bars };
            draw(plot, &rows, &directory.join(plot.file))?;
        }
    }
    Ok(())
}

fn bars(plot: &Plot, rows: &[&Row], file: &Path) -> Result<(), Box<dyn Error>> {
    let count = u32::try_from(rows.len())?;
    let area = SVGBackend::new(file, (WIDTH, LINE * count + MARGIN)).into_drawing_area();
    area.fill(&WHITE)?;
    let scaled = |value| plot.scaled(value);
    let least = rows.iter().map(|row| scaled(row.estimate.low)).fold(f64::INFINITY, f64::min);
    let most = rows.iter().map(|row| scaled(row.estimate.high)).fold(0.0, f64::max);
    let from = if plot.is_log { least.floor().min(most - 1.0) } else { 0.0 };
    let mut builder = ChartBuilder::on(&area);
    builder.caption(plot.title, ("sans-serif", 18)).margin(8).x_label_area_size(28).y_label_area_size(LABELS);
    let mut chart = builder.build_cartesian_2d(from..most + (most - from) * 0.02, 0.0..f64::from(count))?;
    let label = |value: &f64| plot.label(*value);
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis().x_labels(8).x_label_formatter(&label);
    mesh.draw()?;
    for (place, row) in rows.iter().rev().enumerate() {
        let (bottom, estimate) = (place as f64, row.estimate);
        let ours = row.name.contains("ours") || row.name.contains("layer") || row.name.contains("replay");
        let colour = if ours || row.name == "fingerprint" { OURS } else { OTHERS };
        let (low, high, middle) = (scaled(estimate.low), scaled(estimate.high), bottom + 0.5);
        let bar = [(from, bottom + 0.2), (scaled(estimate.median), bottom + 0.8)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        chart.draw_series([PathElement::new([(low, middle), (high, middle)], BLACK)])?;
        let (x, y) = chart.backend_coord(&(from, middle));
        let style = TextStyle::from(("sans-serif", 12)).pos(Pos::new(HPos::Right, VPos::Center));
        let text = format!("{} · {}  {}", row.group, row.name, estimate.written());
        area.draw_text(&text, &style, (x - 6, y))?;
    }
    area.present()?;
    Ok(())
}

/// Draws a line for each group, with the group's name at its end.
fn lines(plot: &Plot, rows: &[&Row], file: &Path) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(file, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows {
        groups.entry(&row.group).or_default().push(plot.scaled(row.estimate.median));
    }
    let values = || groups.values().flatten().copied();
    let from = if plot.is_log { values().fold(f64::INFINITY, f64::min).floor() } else { 0.0 };
    let most = values().fold(from, f64::max);
    let minutes = groups.values().map(Vec::len).max().unwrap_or(0);
    let mut builder = ChartBuilder::on(&area);
    builder.caption(plot.title, ("sans-serif", 18)).margin(8).x_label_area_size(28).y_label_area_size(48);
    let mut chart = builder.margin_right(80).build_cartesian_2d(1..minutes, from..from + (most - from) * 1.1)?;
    let label = |value: &f64| plot.label(*value);
    let mut mesh = chart.configure_mesh();
    mesh.x_labels(12).y_labels(8).y_label_formatter(&label);
    mesh.draw()?;
    for (name, values) in groups {
        let points: Vec<_> = (1..).zip(values).collect();
        let end = points.last().map(|point| chart.backend_coord(point));
        chart.draw_series([PathElement::new(points, OURS.stroke_width(2))])?;
        if let Some((x, y)) = end {
            let style = TextStyle::from(("sans-serif", 12)).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw_text(name, &style, (x + 6, y))?;
        }
    }
    area.present()?;
    Ok(())
}
