//! The plots: bars, one below the other, with their intervals.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Report, Row};

const WIDTH: u32 = 1_000;
const LINE: u32 = 26;
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
}

const fn plot(bench: &'static str, file: &'static str, title: &'static str, unit: &'static str) -> Plot {
    Plot { bench, file, title, unit, group: "", name: "", is_log: false }
}

const PLOTS: [Plot; 9] = [
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
];

/// Returns the plots of a bench.
pub(crate) fn plots(bench: &str) -> impl Iterator<Item = &'static Plot> {
    PLOTS.iter().filter(move |plot| plot.bench == bench)
}

pub(crate) fn draw(report: &Report, directory: &Path) -> Result<(), Box<dyn Error>> {
    for plot in plots(&report.bench) {
        let shown =
            |row: &&Row| row.unit == plot.unit && row.group.contains(plot.group) && row.name.contains(plot.name);
        let rows: Vec<_> = report.rows.iter().filter(shown).collect();
        if !rows.is_empty() {
            bars(plot, &rows, &directory.join(plot.file))?;
        }
    }
    Ok(())
}

fn bars(plot: &Plot, rows: &[&Row], file: &Path) -> Result<(), Box<dyn Error>> {
    let count = u32::try_from(rows.len())?;
    let area = SVGBackend::new(file, (WIDTH, LINE * count + MARGIN)).into_drawing_area();
    area.fill(&WHITE)?;
    let scaled = |value: f64| if plot.is_log { value.max(1e-3).log10() } else { value };
    let least = rows.iter().map(|row| scaled(row.estimate.low)).fold(f64::INFINITY, f64::min);
    let most = rows.iter().map(|row| scaled(row.estimate.high)).fold(0.0, f64::max);
    let from = if plot.is_log { least.floor().min(most - 1.0) } else { 0.0 };
    let mut builder = ChartBuilder::on(&area);
    builder.caption(plot.title, ("sans-serif", 18)).margin(8).x_label_area_size(28).y_label_area_size(LABELS);
    let mut chart = builder.build_cartesian_2d(from..most + (most - from) * 0.02, 0.0..f64::from(count))?;
    let label = |value: &f64| {
        let value = if plot.is_log { 10_f64.powf(*value) } else { *value };
        if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
    };
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
