//! The client's layer: over a service that a test scripts, over sockets that break, and over reqwest.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod budget;
mod keys;
mod meanings;
mod observed;
mod passed_through;
mod probes;
mod reqwest;
mod reqwest_retry;
mod retries;
mod says;
mod script;
mod server;
mod what_is_known;
