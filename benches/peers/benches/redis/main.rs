//! Measures the cost of a shared store over Redis or Valkey, against hand-written code, and against PostgreSQL.
//!
//! `cargo bench -p peers --bench redis`, or with words after `--` for parts of it: `trips`, `first`, `replicas`,
//! `sockets`, `waiting`, `puts`, `memory`. Each part starts servers of its own. A server answers when it has a write in
//! its memory, or in `replicas` when a replica has it, too. Requests go through the layer in process, but for those of
//! `sockets`; all contenders take turns, in one run.

mod by_hand;
mod contenders;
mod first;
mod memory;
mod server;
mod trips;

use peers::parts::Parts;
use peers::stores::{CONNECTIONS, SETTINGS};
use peers::{puts, waiting};
use testkit::bench::callgrind::skip;
use testkit::bench::report::Report;
use testkit::postgres::PostgresServer;
use testkit::redis::RedisServer;
use tower_idempotency_redis::Durability;

use contenders::{Contender, backend, store};
use server::{cpu_time, started, version};

fn main() {
    let Some(parts) = Parts::wanted(contenders::serve) else { return };
    let question = "What does a shared store cost over Redis, next to what one would write by hand?";
    let servers = PostgresServer::with(&SETTINGS).and_then(|server| Ok((server, version(&RedisServer::with(&[])?))));
    let (postgres, version) = match servers {
        Ok(servers) => servers,
        Err(obstacle) => return skip(&obstacle),
    };
    let mut report = Report::new("redis", "cargo bench -p peers --bench redis", question);
    println!("{version}\n");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if parts.has("trips") {
            trips::measure(&mut report).await;
        }
        if parts.has("first") {
            first::measure(&mut report, &postgres).await;
        }
        if parts.has("replicas") {
            first::measure_with_a_replica(&mut report, &postgres).await;
        }
        if parts.has("sockets") {
            first::measure_over_sockets(&mut report).await;
        }
        if parts.has("waiting") {
            let server = started();
            let url = server.url();
            let stores = [store(&url, Durability::Memory).await, store(&url, Durability::Memory).await];
            waiting::measure(&mut report, &stores, Contender::Ours.app(&url).await).await;
        }
        if parts.has("puts") {
            let server = started();
            let backend = backend(&server.url(), Durability::Memory).await;
            // As many at once as a store has calls with writes.
            puts::measure(&mut report, &backend, CONNECTIONS as u64, 4, || cpu_time(&server)).await;
        }
        if parts.has("memory") {
            memory::measure(&mut report).await;
        }
    });
    parts.finish(report);
}
