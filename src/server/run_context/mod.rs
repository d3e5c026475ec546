//! The handle through which a handler learns about its own run, and acts on it.
//!
//! - `context.rs`: the context.
//! - `complete_in.rs`, `complete_in_trees.rs`, `complete_in_keyspaces.rs`: commit the handler's effect and its answer
//!   in one transaction.
//! - `committed.rs`: what a handler returns that has done so.

#[cfg(any(feature = "embedded", feature = "shared"))]
pub(super) mod committed;
#[cfg(feature = "shared")]
pub(super) mod complete_in;
#[cfg(feature = "fjall")]
mod complete_in_keyspaces;
#[cfg(feature = "sled")]
mod complete_in_trees;
pub(crate) mod context;
