//! `idem` as a process, over directories, and servers of PostgreSQL and Redis of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod away;
mod check;
mod chosen;
mod copy;
mod doctor_postgres;
mod doctor_redis;
mod doctor_sled;
mod fjall;
mod help;
mod https;
mod many;
mod migrations;
mod names;
mod outbox;
mod postgres;
mod program;
mod proxy;
mod reached;
mod redis;
mod secrets;
mod service;
mod sled;
mod tls;
mod written;
