//! Promises of the example payment server, kept by the real program over real sockets: one charge per key, across
//! crashes, hang-ups and shutdowns, and no answer before its content is durable.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its figures"
)]

/// The engines of the stores on disk that the server was built with.
const ENGINES: &[&str] = if cfg!(feature = "fjall") { &["sled", "fjall"] } else { &["sled"] };

mod acp;
mod api;
#[cfg(all(target_os = "linux", feature = "postgres"))]
mod atomic;
mod clients;
mod crash;
#[cfg(all(target_os = "linux", any(feature = "postgres", feature = "redis")))]
mod databases;
mod early;
// Its tests are in the file. Here they cost no second build of the whole server.
#[path = "../../src/evidence.rs"]
mod evidence;
mod levers;
mod look_up;
mod names;
mod operation;
#[cfg(all(target_os = "linux", any(feature = "postgres", feature = "redis")))]
mod operators;
#[cfg(all(target_os = "linux", feature = "redis"))]
mod redis;
mod retries;
#[cfg(all(target_os = "linux", any(feature = "postgres", feature = "redis")))]
mod shared;
mod standing_still;
mod stores;
mod stripe;
#[cfg(target_os = "linux")]
mod sync_before_answer;
