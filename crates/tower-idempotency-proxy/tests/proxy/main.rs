//! The proxy over sockets, in front of a service that notes what it gets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod alone;
mod between;
mod broken;
mod checked;
mod early;
mod ends;
mod http2;
mod keys;
mod marks;
mod own;
mod pairs;
mod passing;
mod payments;
mod service;
mod two;
mod whole;
