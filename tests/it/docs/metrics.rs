//! The page of the metrics has a row for each.

use std::collections::BTreeSet;

use tower_idempotency::RejectionKind;
use tower_idempotency::metrics::{ALL, Kind};

const PAGE: &str = include_str!("../../../docs/running/metrics.md");

#[test]
fn the_page_has_a_row_for_each_metric_and_no_other() {
    let (_, table) = PAGE.split_once("| when to worry |\n|---|---|---|---|---|\n").unwrap();
    let rows: Vec<Vec<_>> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.split('|').map(str::trim).skip(1).collect())
        .collect();
    assert_eq!(rows.len(), ALL.len());
    for (metric, row) in ALL.iter().zip(&rows) {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            _ => "histogram",
        };
        assert_eq!(row[..2], [&format!("`{}`", metric.name), kind]);
        assert_eq!(row[3], metric.help, "{}", metric.name);
        let labels: BTreeSet<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let named = row[2].split("; ").filter_map(|label| label.split(':').next());
        assert_eq!(labels, named.filter(|label| !label.is_empty()).map(str::to_owned).collect(), "{}", metric.name);
        // Prometheus wants a counter's name to end so.
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        assert!(metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
    }
}

#[test]
fn the_outcome_of_a_rejection_is_the_name_of_its_problem() {
    let kinds: BTreeSet<_> = RejectionKind::ALL.iter().map(|kind| kind.slug()).collect();
    assert!(!kinds.contains("ran") && !kinds.contains("replayed"));
}
