//! Several processes over one database, with the database in memory and tokio's clock: what the store makes of lost and
//! late answers, of processes that die or stall, and of a database that is away, replaced or set back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod clocks;
mod disputes;
mod fail_open;
mod failovers;
mod forgotten;
mod kept;
mod outages;
mod rounds;
mod sessions;
mod tampered;
mod transactions;
mod world;
mod writes;
