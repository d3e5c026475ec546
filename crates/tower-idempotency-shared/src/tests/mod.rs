//! The calls of the database, one by one, with a backend that answers by a script.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod queue;
mod reads;
mod script;
mod session;
mod state;
mod writes;
