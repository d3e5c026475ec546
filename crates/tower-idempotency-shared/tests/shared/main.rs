//! Several processes over one database, with the database in memory and tokio's clock. The store meets lost and late
//! answers, processes that die or stall, and a database that is away, replaced or set back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod clocks;
mod disputes;
mod fail_open;
mod failovers;
mod forgotten;
mod futures;
mod kept;
mod observed;
mod operations;
mod outages;
mod outcome_retention;
mod rounds;
mod second_process;
mod sessions;
mod strangers;
mod tampered;
mod transactions;
mod world;
mod writes;
