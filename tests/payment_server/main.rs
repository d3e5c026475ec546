//! Promises of the example payment server, kept by the real program over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod api;
mod crash;
mod levers;
mod operation;
mod retries;
mod standing_still;
