//! The gate before the store: what the head of a request says.
//!
//! - `way.rs`: whether a request is passed on, rejected, or an exchange.
//! - `probe.rs`: a request that asks what a retry would get, and that never runs.
//! - `scope.rs`: what a function that says whose a key is may return.
//! - `origin.rs`: what a record keeps of where its operation came from.

pub(super) mod origin;
pub(super) mod probe;
pub(super) mod scope;
pub(super) mod way;
