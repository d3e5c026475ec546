//! Runs work once, over a store. This module does not depend on HTTP: a redelivered message is a retried request too.
//!
//! The way of one operation:
//! 1. `exchange.rs` looks at the slot, the store, and the slot again. A duplicate is answered from the run under way or
//!    from the record.
//! 2. A new key takes the slot, and its run is **spawned before the claim is sent**. From then on, a dropped future
//!    cannot leave a claim without an owner. `drive.rs` has the whole way of the run, step by step.
//! 3. The run asks the store under its slot (`claim.rs`): the operation is new, it has a record, or the claim is
//!    refused. `met.rs` says what a record means for the request. If the policy says so, the application is asked about
//!    an interrupted run first (`reconcile.rs`).
//! 4. The work runs; its panics are caught and its time is limited (`run.rs`). It may write its effect and the record
//!    of its outcome in one transaction (`commit/`).
//! 5. The end of the run is recorded before any client is answered, unless the store fails; then the slot is freed.
//!    `record_end.rs` says what is recorded, and remembers what the store does not know; `send_end.rs` passes it to the
//!    store until it answers. If the store does not answer the claim, the requester is answered all the same, or with
//!    `fail_open` the run goes ahead, and its end is recorded later (`late.rs`).
//!
//! The ways in which an operation can end are listed in one place, `slots::End`.
//!
//! The other files:
//! - `engine.rs`: a store and the policy it is used with; how a fault of the store becomes a refusal.
//! - `policy.rs`, `reconciler.rs`: the choices of the application, and the question to it; `warnings.rs`: those that
//!   switch the protection off.
//! - `context.rs`: what a handler can learn about its run and do with it. `commitment.rs`: the state of the run's
//!   transaction.
//! - `verdict.rs`: the answer that one request gets. `event.rs`: its event in the log.
//! - `watch.rs`: waits for the end of a run in another process.
//! - `resolve.rs`: settles an operation, for an operator or the application. `drain.rs`: waits before the process ends.
//!   They serve the layer and [`Once`](crate::Once) alike.
//! - `once.rs`: the engine without HTTP, for consumers of messages. `once_context.rs`: what an effect learns and can
//!   do; `once_result.rs`: what comes of a message.

mod claim;
mod commit;
pub(crate) mod commitment;
mod context;
mod drain;
mod drive;
#[allow(clippy::module_inception, reason = "the noun of this room")]
mod engine;
mod event;
mod exchange;
mod late;
mod met;
pub(crate) mod once;
mod once_context;
mod once_result;
pub(crate) mod policy;
mod reconcile;
mod reconciler;
mod record_end;
mod resolve;
mod run;
mod send_end;
mod verdict;
mod warnings;
mod watch;

pub use crate::record::ClaimPolicy;
pub use crate::slots::Stats;
#[cfg(idempotency_laboratory)]
pub use commit::commit_apart::SentApart;
pub use commit::{Completable, Encoder};
pub use context::{Rerun, RunContext};
pub use drain::Drained;
pub(crate) use drain::drain;
pub(crate) use engine::Engine;
pub use once_context::OnceContext;
pub use once_result::{Advice, EffectError, OnceError, Outcome};
pub(crate) use policy::Policy;
pub(crate) use reconcile::reconcile_one;
pub use reconciler::{Reconciled, Reconciler};
pub(crate) use resolve::{Resolved, resolve};
// A layer's.
#[cfg(feature = "server")]
pub(crate) use {
    crate::slots::End,
    engine::{Caller, WrapRun},
    event::{Facts, RAN, REPLAYED},
    exchange::span,
    policy::{OnInFlight, OnInterrupted},
    run::Work,
    verdict::Verdict,
};
