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
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Some(self.api(&format!("/api/v1/query?query={escaped}")).await?["result"].clone())
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

/// The titles and queries of the dashboard's panels, for all jobs and instances.
pub(crate) fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap().replace("$job", ".*").replace("$instance", ".*");
            let query = query.replace("$__rate_interval", "10s").replace("$stores", "max").replace("[10m]", "[10s]");
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}
