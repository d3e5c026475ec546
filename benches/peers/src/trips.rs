//! The round trips of exchanges, one after the other.

use axum::Router;
use testkit::bench::exchange::send;
use testkit::bench::load::key;

/// The goals: of a first run, of its replay on another server, and of the same replay again.
pub const MOST_FIRST: f64 = 2.0;
pub const MOST_REPLAY: f64 = 1.0;
pub const MOST_KNOWN: f64 = 0.0;

/// The number of exchanges that are counted together.
pub const TOGETHER: u64 = 10;

/// Returns the round trips of each of [`TOGETHER`] exchanges. `trips` are those so far.
pub async fn counted(trips: impl Fn() -> u64, exchanges: impl Future<Output = ()>) -> f64 {
    let before = trips();
    exchanges.await;
    (trips() - before) as f64 / TOGETHER as f64
}

/// Sends [`TOGETHER`] requests, the first one with the key of this number.
pub async fn exchanges(app: &Router, first: u64) {
    for number in first..first + TOGETHER {
        send(app, Some(&key(number))).await;
    }
}
