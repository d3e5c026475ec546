//! Debian's Prometheus, over the alerts and the dashboard of `ops/`. A minute of theirs is a second here, and an hour
//! is five.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use testkit::dice::free_address;
use testkit::process::{Process, until};
use testkit::{Call, Connection, skipped};

const ALERTS: &str = include_str!("../../../ops/alerts.yml");
const DASHBOARD: &str = include_str!("../../../ops/dashboard.json");

pub(crate) struct Prometheus {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this server. `None`: not shown here.
    pub(crate) async fn of(server: SocketAddr, promise: &str) -> Option<Self> {
        let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs: [{{ job_name: pay, static_configs: [{{ targets: ['{server}'] }}] }}]\n"
        );
        fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        fs::write(directory.path().join("alerts.yml"), hastened(ALERTS)).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = match command.spawn() {
            Ok(child) => Process(child),
            Err(error) => {
                skipped(promise, &format!("prometheus: {error}"));
                return None;
            }
        };
        let this = Self { address, _process: process, _directory: directory };
        until("Prometheus has scraped the server", async || {
            let up = this.query("up").await;
            up.is_some_and(|result| result[0]["value"][1] == "1")
        })
        .await;
        Some(this)
    }

    /// Returns the answer of its API. `None` while it does not answer.
    async fn api(&self, path: &str) -> Option<Value> {
        let mut connection = Connection::http1(self.address).await.ok()?;
        let answer = connection.send(&Call::get(path)).await.ok().filter(|answer| answer.status != 503)?;
        let value = answer.json();
        assert_eq!(value["status"], "success", "{path}: {value}");
        Some(value["data"].clone())
    }

    /// Returns the result of a query now.
    pub(crate) async fn query(&self, expression: &str) -> Option<Value> {
        Some(self.api(&format!("/api/v1/query?query={}", escaped(expression))).await?["result"].clone())
    }

    /// Returns the values that a variable of the dashboard has.
    pub(crate) async fn values(&self, Variable { label, series, .. }: &Variable) -> Option<Value> {
        self.api(&format!("/api/v1/label/{label}/values?match%5B%5D={}", escaped(series))).await
    }

    /// The names of the alerts that fire.
    pub(crate) async fn firing(&self) -> BTreeSet<String> {
        let mut data = None;
        // One that does not answer does not say that none fires.
        until("Prometheus answers", async || {
            data = self.api("/api/v1/alerts").await;
            data.is_some()
        })
        .await;
        let data = data.unwrap_or_default();
        let alerts = data["alerts"].as_array().into_iter().flatten().filter(|alert| alert["state"] == "firing");
        alerts.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until each query of the dashboard over one of these metrics shows something.
    pub(crate) async fn draws(&self, metrics: &[&str]) {
        for metric in metrics {
            let about = queries().into_iter().filter(|(_, query)| query.contains(metric)).collect::<Vec<_>>();
            assert!(!about.is_empty(), "the dashboard does not show {metric}");
            for (title, query) in about {
                until(&format!("{title}: {query}"), async || {
                    let result = self.query(&query).await;
                    result.is_some_and(|result| !result.as_array().unwrap().is_empty())
                })
                .await;
            }
        }
    }

    /// Waits until each of these alerts has fired, in whatever order.
    pub(crate) async fn fires(&self, alerts: &[&str]) {
        let mut seen = BTreeSet::new();
        until(&alerts.join(", "), async || {
            seen.extend(self.firing().await);
            alerts.iter().all(|alert| seen.contains(*alert))
        })
        .await;
    }
}

/// The alerts with another time: a minute is a second, and an hour is five.
fn hastened(alerts: &str) -> String {
    let mut hastened = alerts.to_owned();
    for (before, after) in [("[", "]"), ("for: ", "\n"), ("offset ", ")"), ("offset ", "]"), ("offset ", "\n")] {
        for number in 1..60 {
            for (unit, seconds) in [("m", number), ("h", 5 * number)] {
                // What lasts for half an hour lasts for longer than ten seconds, too.
                let seconds = if before == "for: " { seconds.min(10) } else { seconds };
                hastened =
                    hastened.replace(&format!("{before}{number}{unit}{after}"), &format!("{before}{seconds}s{after}"));
            }
        }
    }
    // An age of an hour, in seconds. That of a day stays: a server can have another clock.
    hastened.replace("> 3600", "> 5").replace("> 600", "> 10")
}

/// Writes a text so that it can be a part of a URL.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A variable of the dashboard whose values Prometheus has: those of a label of some series.
pub(crate) struct Variable {
    pub(crate) name: String,
    label: String,
    series: String,
}

/// The variables of this type, as the dashboard has them.
fn variables_of(kind: &str) -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    variables.filter(|variable| variable["type"] == kind).cloned().collect()
}

/// The variables that are looked up, for all jobs.
pub(crate) fn variables() -> Vec<Variable> {
    let read = |variable: Value| {
        let query = for_all(variable["query"].as_str().unwrap());
        let values = query.strip_prefix("label_values(").and_then(|values| values.strip_suffix(')')).unwrap();
        let (series, label) = values.rsplit_once(", ").unwrap();
        let name = variable["name"].as_str().unwrap().to_owned();
        Variable { name, label: label.to_owned(), series: series.to_owned() }
    };
    variables_of("query").into_iter().map(read).collect()
}

/// The values that a person chooses from for `$stores`.
fn choices_of_stores() -> Vec<String> {
    let [stores] = &variables_of("custom")[..] else { panic!("there is one choice") };
    assert_eq!(stores["name"], "stores");
    let choices = stores["query"].as_str().unwrap().split(", ");
    choices.map(|choice| choice.rsplit_once(" : ").unwrap().1.to_owned()).collect()
}

/// A query for all jobs and instances.
fn for_all(query: &str) -> String {
    query.replace("$job", ".+").replace("$instance", ".+")
}

/// The titles and queries of the dashboard's panels, for all jobs and instances, and for each choice that there is.
pub(crate) fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut queries, stores) = (Vec::new(), choices_of_stores());
    assert_eq!(stores, ["max", "sum"]);
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = for_all(target["expr"].as_str().unwrap());
            let query = query.replace("$__rate_interval", "10s").replace("[10m]", "[10s]");
            let choices = if query.contains("$stores") { &stores[..] } else { &stores[..1] };
            for choice in choices {
                let query = query.replace("$stores", choice);
                assert!(!query.contains('$'), "{query}");
                queries.push((panel["title"].as_str().unwrap().to_owned(), query));
            }
        }
    }
    queries
}
