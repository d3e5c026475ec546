//! Connections to PostgreSQL over TLS: to the right server, or not at all.
//!
//! The tests start servers of their own, with certificates that the program `openssl` makes. The cryptography is
//! rustls's with `ring`: the crate brings none, so this is a package of its own.
//!
//! ```text
//! cargo test -p tls
//! ```
#![cfg(target_os = "linux")]

#[path = "../../../../crates/tower-idempotency-postgres/tests/postgres/lab.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
mod lab;
#[path = "../../../../tests/common/postgres.rs"]
mod server;
#[path = "../../../../tests/common/skipped.rs"]
#[allow(unreachable_pub, reason = "other test programs have it in a module of its own")]
mod skipped;

mod certificates;
mod encrypted;
mod refused;
mod setup;
mod wire;
