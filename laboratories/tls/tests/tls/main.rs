//! Connections to PostgreSQL and to Redis over TLS: they reach the right server, or fail.
//!
//! The tests start servers of their own, with certificates that the program `openssl` makes. The cryptography is
//! rustls's with `ring`: the crates bring none, so this is a package of its own.
//!
//! ```text
//! cargo test -p tls
//! ```
#![cfg(target_os = "linux")]

mod certificates;
mod encrypted;
mod redis;
mod refused;
mod setup;
mod wire;
