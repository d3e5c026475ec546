//! Stores that several processes share: one adapter over any database that can compare and set.

// What is where:
// - `backend.rs`: what a database has to do.
// - `judge.rs`: the same as functions, for a database that leaves the deciding to them.
// - `memory_backend/`: a database in memory that fails on command, for tests.

mod backend;
mod judge;
#[cfg(feature = "conformance")]
pub mod memory_backend;

pub use backend::{
    Answer, Backend, BackendError, Expect, GRACE, Guarantee, Kind, NewExpiry, NewFence, Row, ServerId, Stamp, Token,
    Write,
};
