//! Redis as a backend: the parts that are its own. The conformance suite has what every backend has to do.
//!
//! The tests start servers of their own. Most share one, and each has a namespace in it; those that stop, fill or set
//! up a server have their own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod changes;
mod clock;
mod contract;
mod durable;
mod eviction;
mod killed;
mod lab;
mod memory;
mod moves;
mod opening;
mod places;
mod pool;
mod refusals;
mod rights;
mod rows;
mod scripts;
mod sentinels;
mod servers;
mod synced;
mod writers;
