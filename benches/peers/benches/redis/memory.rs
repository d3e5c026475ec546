//! The memory of the server for a completed record, with its entries in the indexes.

use peers::puts;
use testkit::bench::estimate::Estimate;
use testkit::bench::load::round;
use testkit::bench::report::Report;
use tower_idempotency_redis::Durability;

use super::contenders::{Contender, backend};
use super::server::{started, used_memory};

/// Three quarters of a power of two: a table of the server is larger than what is in it, by half of what it can be.
const RECORDS: u64 = 3 << 14;
/// The records of a call.
const TOGETHER: u64 = 64;
/// The state of an outcome, in bytes: as many as by hand.
const STATE: usize = 300;

pub(crate) async fn measure(report: &mut Report) {
    let server = started();
    let backend = backend(&server.url(), Durability::Memory).await;
    let before = used_memory(&server);
    puts::write(&backend, (0..RECORDS).step_by(TOGETHER as usize), TOGETHER, STATE).await;
    tell(report, Contender::Ours, used_memory(&server) - before);

    let server = started();
    let app = Contender::ByHand.app(&server.url()).await;
    let before = used_memory(&server);
    round(&app, TOGETHER as usize, RECORDS as usize, &mut 0).await;
    tell(report, Contender::ByHand, used_memory(&server) - before);
}

fn tell(report: &mut Report, contender: Contender, bytes: f64) {
    let name = format!("a completed record of {STATE} bytes, {}", contender.name());
    report.row("memory", &name, "B", Estimate::exact(bytes / RECORDS as f64));
}
