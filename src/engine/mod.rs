//! Runs work once, over a store. This module does not depend on HTTP: a redelivered message is a retried request too.
//!
//! `docs/journey.md` follows one operation through the files, from `exchange.rs` to `send_end.rs`, and section 3 of
//! `docs/design.md` has the rules. The journey also says what each of the other files is for. The ways in which an
//! operation can end are listed in one place, `slots::End`, and `verdict.rs` has what a request gets for each.

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
#[cfg(feature = "server")]
mod look;
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

pub use crate::record::{Cause, CauseError, ClaimPolicy};
pub use crate::slots::Stats;
#[cfg(idempotency_laboratory)]
pub use commit::commit_apart::SentApart;
pub use commit::{Completable, Encoder, IntoOutcome};
pub use context::{Rerun, RunContext};
pub use drain::Drained;
pub(crate) use drain::drain;
pub(crate) use engine::Engine;
pub use once_context::OnceContext;
pub use once_result::{Advice, EffectError, OnceError, Outcome};
pub(crate) use policy::Policy;
#[cfg(feature = "server")]
pub(crate) use policy::ReadStatus;
pub(crate) use reconcile::reconcile_one;
pub use reconciler::{Reconciled, Reconciler};
pub(crate) use resolve::resolve;
// A layer's.
#[cfg(feature = "server")]
pub(crate) use {
    crate::slots::End,
    engine::{Caller, WrapRun},
    event::Facts,
    exchange::span,
    look::Looked,
    policy::{OnInFlight, OnInterrupted},
    run::Work,
    verdict::{Unanswered, Verdict, name},
};
