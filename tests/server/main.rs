//! Promises of the example payment server, kept by the real program over real sockets: one charge per key, across
//! crashes, hang-ups and shutdowns, and no answer before its content is durable.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

mod acp;
mod api;
#[cfg(target_os = "linux")]
mod atomic;
mod clients;
mod crash;
mod levers;
mod operation;
mod retries;
#[cfg(target_os = "linux")]
mod shared;
mod standing_still;
mod stores;
mod stripe;
#[cfg(target_os = "linux")]
mod sync_before_answer;
