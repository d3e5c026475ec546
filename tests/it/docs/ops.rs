//! The alerts and the dashboard under `ops/` ask for metrics and labels that there are, and name pages that there are.

use std::collections::BTreeSet;

use tower_idempotency::metrics::{ALL, Kind, Metric};

use super::guide::{has_heading, root};

const ALERTS: &str = include_str!("../../../ops/alerts.yml");
const RULE_TESTS: &str = include_str!("../../../ops/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../../ops/dashboard.json");

/// How the names of an outbox's metrics begin.
const OF_OUTBOX: &str = "idempotency_outbox_";

/// The labels that Prometheus gives each metric.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];

/// The names in a text, with what follows each; but those of an outbox, of which the tests of its crate know.
fn names(text: &str) -> Vec<(&str, &str)> {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let name = |(at, _): (usize, &str)| {
        let end = text[at..].bytes().position(|byte| !is_of_name(&byte)).map_or(text.len(), |length| at + length);
        (&text[at..end], &text[end..])
    };
    text.match_indices("idempotency_").map(name).filter(|(name, _)| !name.starts_with(OF_OUTBOX)).collect()
}

/// The metric that this name is of. A histogram has three.
fn metric(name: &str) -> Option<&'static Metric> {
    let of_histogram = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    ALL.iter().find(|metric| match metric.kind {
        Kind::Histogram => of_histogram == Some(metric.name),
        _ => metric.name == name,
    })
}

#[test]
fn every_metric_of_the_alerts_and_the_dashboard_exists_with_its_labels() {
    for text in [ALERTS, DASHBOARD] {
        let names = names(text);
        assert!(names.len() > 5);
        for (name, rest) in names {
            let metric = metric(name).unwrap_or_else(|| panic!("there is no metric {name}"));
            let Some(labels) = rest.strip_prefix('{') else { continue };
            let (labels, _) = labels.split_once('}').unwrap();
            for label in labels.split(',') {
                let label = label.split(['=', '!']).next().unwrap().trim();
                assert!(
                    metric.labels.contains(&label) || OF_PROMETHEUS.contains(&label),
                    "{name} has no label {label}"
                );
            }
        }
    }
    let shown: BTreeSet<_> =
        names(DASHBOARD).iter().filter_map(|(name, _)| metric(name)).map(|metric| metric.name).collect();
    let missing: Vec<_> = ALL.iter().map(|metric| metric.name).filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "the dashboard does not show {missing:?}");
}

#[test]
fn every_alert_fires_in_a_rule_test() {
    // `promtool test rules ops/alerts_test.yml` runs them.
    let names = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let missing: Vec<_> = names.filter(|name| !RULE_TESTS.contains(&format!("alertname=\"{name}\""))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The annotation that alert managers show as a link.
const RUNBOOK: &str = concat!("runbook_url: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

#[test]
fn every_alert_names_a_page_and_a_heading_that_there_are() {
    let alerts = ALERTS.matches("- alert: ").count();
    let pages: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix(RUNBOOK)).collect();
    let operators_pages = ALERTS.matches("page_url: https://service.example/idempotency/").count();
    assert_eq!((pages.len(), operators_pages, ALERTS.matches("expr: ").count()), (alerts, alerts, alerts));
    for page in pages {
        let (file, heading) = page.split_once('#').unwrap_or((page, ""));
        let file = root().join(file);
        assert!(file.exists() && (heading.is_empty() || has_heading(&file, heading)), "{page} leads nowhere");
    }
}

#[test]
fn the_values_of_labels_in_the_alerts_are_rejections_and_ends_that_there_are() {
    use tower_idempotency::RejectionKind;
    use tower_idempotency::observer::{LeaseChange, RunEnd};
    let mut known: BTreeSet<_> = RejectionKind::ALL.iter().map(|kind| kind.slug()).collect();
    known.extend([RunEnd::Panicked, RunEnd::TooLong].map(RunEnd::name));
    known.insert(LeaseChange::Lost.name());
    let lines = ALERTS.lines().filter(|line| !line.contains(OF_OUTBOX));
    let alerts: String = lines.collect();
    let values = alerts.split("=\"").skip(1).chain(alerts.split("=~\"").skip(1));
    for value in values.flat_map(|rest| rest.split('"').next().unwrap().split('|')) {
        assert!(known.contains(value), "{value}");
    }
}
