//! Several processes over one database, with the database in memory and tokio's clock: what the store makes of lost and
//! late answers, of processes that die or stall, and of a database that is away, replaced or set back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod batches;
mod bounds;
mod clocks;
mod deaths;
mod disputes;
mod doubts;
mod faults;
mod forgotten;
mod kept;
mod large_writes;
mod late_claims;
mod lease;
mod outages;
mod rounds;
mod rows;
mod slow_link;
mod span;
mod tampered;
mod transactions;
mod watching;
mod world;
