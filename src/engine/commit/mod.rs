//! Transactions that hold the effect of a run together with its outcome.
//!
//! - `complete_in.rs`: a transaction of a database that several processes share.
//! - `embedded.rs`: a transaction of an embedded store; `complete_in_trees.rs`: of sled; `complete_in_keyspaces.rs`:
//!   of fjall.
//! - `commit_apart.rs`: a transaction without a database, only for the laboratory of interleavings.

#[cfg(idempotency_laboratory)]
pub(super) mod commit_apart;
#[cfg(feature = "shared")]
pub(super) mod complete_in;
#[cfg(feature = "fjall")]
mod complete_in_keyspaces;
#[cfg(feature = "sled")]
mod complete_in_trees;
#[cfg(feature = "embedded")]
mod embedded;
