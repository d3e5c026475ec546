//! Run once, over a store. Knows nothing of HTTP: a redelivered message is a retried request too.
//!
//! One operation's way:
//! 1. `exchange.rs` looks at the slot, the store, and the slot again: a duplicate is answered
//!    from the run under way or from the record.
//! 2. A new key takes the slot, and its run is **spawned before the claim is sent** (`run.rs`): from there on no
//!    dropped future can leave a claim without an owner.
//! 3. Under the slot the store is asked (`claim.rs`): fresh, found, or refused.
//!    An interrupted run is asked about first, where the policy says so (`reconcile.rs`).
//! 4. The work runs, its panics caught and its time limited (`run.rs`).
//!    It may write its effect and the record of its outcome in one transaction (`commit.rs`).
//! 5. How it ended is recorded before anybody is told (`settle.rs`); then the slot is freed.
//!
//! How an operation can end is listed once, as `slots::End`.
//!
//! The other files:
//! - `engine.rs`: a store, the policy it is used with, and how a fault of the store is told.
//! - `policy.rs`, `reconciler.rs`: what the application decides, and how it is asked.
//! - `context.rs`: what a handler may know of its run, and do with it. `commitment.rs`: how the run's transaction stands.
//! - `verdict.rs`: what one request is told.
//! - `operations.rs`: what operators do (list, settle, drain, count), for the layer and for [`Once`] alike.
//! - `once.rs`: the engine without HTTP, for consumers of messages.
//! - `commit_apart.rs`: a transaction without a database, for the laboratory of interleavings alone.

mod claim;
#[cfg(feature = "sled")]
mod commit;
#[cfg(idempotency_laboratory)]
mod commit_apart;
mod commitment;
mod context;
#[allow(clippy::module_inception, reason = "the noun of this room")]
mod engine;
mod exchange;
mod once;
mod operations;
mod policy;
mod reconcile;
mod reconciler;
mod run;
mod settle;
mod verdict;

pub(crate) use crate::slots::End;
pub use crate::store::InterruptedRun;
#[cfg(feature = "sled")]
pub use crate::store::embedded::CommitError;
#[cfg(idempotency_laboratory)]
pub use commit_apart::SentApart;
pub use context::{Rerun, RunContext};
pub(crate) use engine::{Engine, Presented, WrapRun};
pub(crate) use exchange::span;
pub use once::{EffectError, Once, OnceError, Outcome};
pub use operations::{Counts, Drained, Resolved};
pub(crate) use policy::Policy;
pub use policy::{OnInFlight, OnInterrupted};
pub use reconcile::Reconciliation;
pub(crate) use reconciler::panic_message;
pub use reconciler::{Reconciled, Reconciler};
pub(crate) use verdict::Verdict;
