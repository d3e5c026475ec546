//! PostgreSQL as a backend: what is its own. What every backend must do is the conformance suite's.
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
mod compare_and_set;
mod complete_in;
mod connect;
mod contract;
mod demoted;
mod encodings;
mod expiry;
mod full;
mod guarantee;
mod lab;
mod limits;
mod list;
mod locks;
mod lost_answers;
mod migrate;
mod notifications;
mod opening;
mod plans;
mod pooler;
mod processes;
mod proxy;
mod rights;
mod roles;
mod slow_link;
