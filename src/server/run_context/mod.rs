//! The handle through which a handler learns about its own run, and acts on it.
//!
//! - `context.rs`: the context.
//! - `committed.rs`: what a handler returns that has committed its effect and its answer in one transaction.

#[cfg(any(feature = "embedded", feature = "shared"))]
pub(super) mod committed;
pub(crate) mod context;
