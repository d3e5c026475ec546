//! What a bench leaves behind: the JSON of `benches/common/report.rs`.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) bench: String,
    pub(crate) question: String,
    pub(crate) command: String,
    /// In seconds since 1970.
    pub(crate) taken: i64,
    pub(crate) machine: BTreeMap<String, String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) goals: Vec<Goal>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) unit: String,
    #[serde(flatten)]
    pub(crate) estimate: Estimate,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Goal {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) estimate: Estimate,
    pub(crate) op: String,
    pub(crate) bound: f64,
    pub(crate) met: String,
}

/// A median, and its 95 % interval.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// Three digits.
    pub(crate) fn written(self) -> String {
        let Self { median, low, high } = self;
        if low == high { digits(median) } else { format!("{} [{}, {}]", digits(median), digits(low), digits(high)) }
    }
}

fn digits(value: f64) -> String {
    let before = if value == 0.0 { 1 } else { value.abs().log10().floor() as i32 + 1 };
    format!("{value:.*}", usize::try_from(3 - before).unwrap_or(0).min(4))
}
