//! The promises, by their subject: each is shown in process, through the public API.
//!
//! Tests have the names of their promises; `trap_NN` is the number of a published mistake that this crate avoids. Tests
//! that need a server of their own are in `examples/payment_server/tests`, those that need a process without other
//! tests in `tests/allocations`, and those that take long in `laboratories/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(deprecated, reason = "tower-http discourages its check of a bearer token, and people use it")]

mod clock;
mod commit;
mod config;
mod crash;
mod derived_key;
mod docs;
mod errors;
mod events;
mod fingerprint;
mod health;
mod http;
mod in_flight;
mod key;
mod key_from;
mod limits;
mod messages;
mod observer;
#[cfg(feature = "utoipa")]
mod openapi;
mod operations;
mod origin;
mod outcome;
mod reconcile;
mod record;
mod rpc;
mod run;
mod scope;
mod seen;
mod shutdown;
mod span;
mod store;
