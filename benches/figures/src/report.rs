//! The report that a bench leaves: the JSON of `testkit::bench::report`.

use std::collections::BTreeMap;

use serde::Deserialize;
use testkit::bench::estimate::Estimate;

#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) bench: String,
    pub(crate) question: String,
    pub(crate) command: String,
    /// The time of the run, in seconds since 1970.
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
