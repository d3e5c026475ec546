//! Stores that several processes share: one adapter over any database that can compare and set.

// What is where:
// - `backend.rs`: what a database has to do.

mod backend;

pub use backend::{
    Answer, Backend, BackendError, Expect, GRACE, Guarantee, Kind, NewExpiry, NewFence, Row, ServerId, Stamp, Token,
    Write,
};
