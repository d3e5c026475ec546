//! Measures the cost of a shared store over PostgreSQL, against hand-written code.
//!
//! `cargo bench -p peers --bench shared`, or with words after `--` for parts of it: `trips`, `first`, `sockets`,
//! `waiting`, `growth`, `puts`, `calls`. It starts a PostgreSQL server of its own, in the directory for temporary files
//! (`TMPDIR`), which must be on a disk. The server answers a commit when it is durable, for all contenders. Requests go
//! through the layer in process, but for those of `sockets`; all contenders take turns, in one run.

mod by_hand;
mod calls;
mod contenders;
mod first;
mod growth;
mod proxy;
mod puts;
mod sockets;
mod trips;
mod waiting;

use peers::{load, process};
use testkit::bench::callgrind::skip;
use testkit::bench::report::Report;
use testkit::bench::sync::SyncedDisk;
use testkit::postgres::PostgresServer;

/// The settings of memory and log for a server of this size. The settings for durability are PostgreSQL's defaults:
/// `fsync`, `synchronous_commit` and `full_page_writes` are on.
const SETTINGS: [&str; 3] = ["shared_buffers=512MB", "max_wal_size=4GB", "max_connections=200"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == process::SERVE) {
        return contenders::serve(&arguments[place + 1], &arguments[place + 2]);
    }
    if let Some(place) = arguments.iter().position(|argument| argument == process::LOAD) {
        return load::generate(&serde_json::from_str(&arguments[place + 1]).expect("a plan"));
    }
    let question = "What does a shared store cost over PostgreSQL, next to what one would write by hand?";
    // Cargo's own argument is one of them, and names no part.
    let wanted: Vec<_> = arguments[1..].iter().filter(|argument| !argument.starts_with("--")).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| *wanted == part);
    let server = match PostgresServer::with(&SETTINGS) {
        Ok(server) => server,
        Err(obstacle) => return skip(&obstacle),
    };
    let url = server.url();
    let mut report = Report::new("shared", "cargo bench -p peers --bench shared", question);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut disk = SyncedDisk::measured(&mut report, &std::env::temp_dir(), "all");
        if wants("trips") {
            trips::measure(&mut report, server.address()).await;
        }
        if wants("first") {
            first::measure(&mut report, &server).await;
            disk.measure_after(&mut report, "first");
        }
        if wants("sockets") {
            sockets::measure(&mut report, &server).await;
            disk.measure_after(&mut report, "sockets");
        }
        if wants("waiting") {
            waiting::measure(&mut report, &url).await;
        }
        if wants("puts") {
            puts::measure(&mut report, &url).await;
        }
        if wants("calls") {
            calls::measure(&mut report, &server).await;
        }
        if wants("growth") {
            growth::measure(&mut report, &url).await;
        }
    });
    if wanted.is_empty() {
        report.finish();
    } else {
        report.say();
    }
}
