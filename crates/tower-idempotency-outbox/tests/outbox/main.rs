//! The outbox and its relays: each promise over sled and over PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::future_not_send, reason = "a test stays on its thread")]

mod clocks;
mod clocks_of_files;
mod deleted;
mod ends;
mod fair;
mod home;
mod meanings;
mod migrations;
mod observed;
mod operators;
mod order;
mod put;
mod says;
mod server;
mod settings;
mod states;
mod tries;
