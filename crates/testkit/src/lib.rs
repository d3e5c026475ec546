//! Shared by tests, laboratories, benches and the tests of examples. This crate is never published.
//!
//! - Processes: [`postgres`] and [`redis`] start servers of one's own, [`payment_server`] the example; [`process`] has
//!   what a child needs.
//! - The network: [`client`] is the one HTTP client, [`proxy`] the one TCP proxy.
//! - Order and chance: a [`Gate`] holds something back until the test lets it go on, [`Dice`] are the one generator of
//!   random numbers.
//! - Checks: [`history`] compares the answers with the effects that took place; a [`control`] repeats a test in a
//!   process in which a protection is broken.
//! - [`meanings`] are the tables of what answers say, with which several crates are compared.
//! - `lab`: a layer around a handler, in process, and a store's transitions. `bench`: estimates and figures.
//!
//! The laboratories compile some of their programs against a library of their own (`laboratories/library`). What those
//! programs use of this crate has none of `tower_idempotency`'s types in its signatures.

#[cfg(feature = "bench")]
pub mod bench;
pub mod client;
pub mod control;
pub mod dice;
#[cfg(feature = "exactly-once")]
pub mod exactly_once;
mod gate;
pub mod history;
#[cfg(feature = "lab")]
pub mod lab;
#[cfg(feature = "log")]
pub mod log;
pub mod meanings;
pub mod payment_server;
#[cfg(target_os = "linux")]
pub mod postgres;
pub mod process;
pub mod proxy;
#[cfg(target_os = "linux")]
pub mod redis;
#[cfg(feature = "rows")]
pub mod rows;
mod skipped;

pub use client::{Answer, Call, Connection};
pub use dice::Dice;
pub use gate::Gate;
pub use skipped::skipped;
