//! PostgreSQL as a backend: the parts that are its own. The conformance suite has the duties of every backend.
//!
//! The tests start servers of their own. Most share one, and each has a namespace in it; those that stop, kill or set
//! up a server have their own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

mod app;
mod clock;
mod complete_in;
mod connections;
mod contract;
mod guarantee;
mod lab;
mod processes;
mod rows;
mod schema;
