//! The promises, by their subject: each is shown in process, through the public API.
//!
//! Tests are named after what is promised; `trap_NN` is the number of a published mistake that is not made here. What
//! needs a server of its own is in `tests/server`, what needs a process without other tests in `tests/pass_through.rs`,
//! and what takes long in `laboratories/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]
#![allow(deprecated, reason = "tower-http discourages its check of a bearer token, and people use it")]

mod commit;
mod crash;
mod derived_key;
mod docs;
mod fingerprint;
mod http;
mod in_flight;
mod key;
mod limits;
mod messages;
mod outcome;
mod reconcile;
mod run;
mod scope;
mod seen;
mod span;
mod store;
