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
mod sockets;
mod trips;

use peers::parts::Parts;
use peers::stores::{CONNECTIONS, SETTINGS, postgres, postgres_backend};
use peers::{puts, waiting};
use testkit::bench::callgrind::skip;
use testkit::bench::cpu::cpu_time_with_children;
use testkit::bench::report::Report;
use testkit::bench::sync::SyncedDisk;
use testkit::postgres::PostgresServer;

use contenders::Contender;

fn main() {
    let Some(parts) = Parts::wanted(contenders::serve) else { return };
    let question = "What does a shared store cost over PostgreSQL, next to what one would write by hand?";
    let server = match PostgresServer::with(&SETTINGS) {
        Ok(server) => server,
        Err(obstacle) => return skip(&obstacle),
    };
    let url = server.url();
    let mut report = Report::new("shared", "cargo bench -p peers --bench shared", question);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut disk = SyncedDisk::measured(&mut report, &std::env::temp_dir(), "all");
        if parts.has("trips") {
            trips::measure(&mut report, server.address()).await;
        }
        if parts.has("first") {
            first::measure(&mut report, &server).await;
            disk.measure_after(&mut report, "first");
        }
        if parts.has("sockets") {
            sockets::measure(&mut report, &server).await;
            disk.measure_after(&mut report, "sockets");
        }
        if parts.has("waiting") {
            let stores = [postgres(&url).await, postgres(&url).await];
            waiting::measure(&mut report, &stores, Contender::Ours.app(&url).await).await;
        }
        if parts.has("puts") {
            let cpu = || cpu_time_with_children(server.pid());
            puts::measure(&mut report, &postgres_backend(&url).await, CONNECTIONS as u64, 1, cpu).await;
        }
        if parts.has("calls") {
            calls::measure(&mut report, &server).await;
        }
        if parts.has("growth") {
            growth::measure(&mut report, &url).await;
        }
    });
    parts.finish(report);
}
