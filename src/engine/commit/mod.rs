//! Transactions that hold the effect of a run together with its outcome.
//!
//! - `complete_in.rs`: a transaction of a database that several processes share.
//! - `complete_in_trees.rs`: a transaction of an embedded store.
//! - `commit_apart.rs`: a transaction without a database, only for the laboratory of interleavings.

#[cfg(idempotency_laboratory)]
pub(super) mod commit_apart;
#[cfg(feature = "shared")]
pub(super) mod complete_in;
#[cfg(feature = "sled")]
pub(super) mod complete_in_trees;
