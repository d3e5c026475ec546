//! The checks find what is broken, and nothing in what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod controls;
mod fault;
mod findings;
mod judged;
mod mcp;
mod ours;
mod plans;
mod server;
mod slow;
mod twist;
