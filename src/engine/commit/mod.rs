//! Transactions that hold the effect of a run together with its outcome.
//!
//! - `completable.rs`: a run with an outcome of its own type.
//! - `embedded.rs`: a transaction of an embedded store; `in_sled.rs`: of sled; `in_fjall.rs`: of fjall.
//! - `commit_apart.rs`: a transaction without a database, only for the laboratory of interleavings.

#[cfg(idempotency_laboratory)]
pub(super) mod commit_apart;
mod completable;
#[cfg(feature = "_embedded")]
mod embedded;
#[cfg(feature = "fjall")]
mod in_fjall;
#[cfg(feature = "sled")]
mod in_sled;

pub use completable::{Completable, Encoder, IntoOutcome};
