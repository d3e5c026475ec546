//! The record of one operation, and the one function that decides which state follows which.
//!
//! ```text
//!            Claim                         Complete
//! absent ───────────▶ Running ───────────────────────────▶ Completed, or Consumed: not storable
//!   ▲    Release        │    ▲                                   ▲
//!   ├───────────────────┤    │ Reclaim (new fence)               │ Resolve(Outcome) (new fence);
//!   │         Interrupt ▼    │                                   │ Complete, by the run that was thought dead
//!   │                 Interrupted ───────────────────────────────┘
//!   │                   │    ↺ Inquire (new fence)
//!   └───────────────────┴── Resolve(Release), or past its expiry
//! ```
//!
//! A completed record becomes consumed by `ForgetAnswer` (same fence). A completed or consumed record becomes absent by
//! `Forget`, or past its expiry. Until then its operation never runs again.
//!
//! `next` takes what a store holds and a [`Transition`]. It returns what the store has to write (`Edit`) and what the
//! store has to answer ([`Reply`]). A store calls it inside its own atomic step, and makes no such decision itself.
//! `next` neither reads nor returns a point in time: it says for how long a record lasts, and the store counts that
//! from the present time of its own clock (`Draft::stamp`). Only the record of another store, which `Adopt` writes as
//! it is, brings its own times.
//!
//! Rules:
//! 1. A record past its expiry counts as absent, whether it was swept or not ([`Record::live`]). A run whose process is
//!    gone, or whose bound is over, is presented as interrupted, under its own fence ([`Record::lapse`]); this needs no
//!    write.
//! 2. Every transition but `Claim` and `Adopt` names a fence. If it is not the fence that the record expects, the
//!    transition is refused and changes nothing.
//! 3. A claim, a reclaim, a question and a resolution each take a new fence. So a step of an earlier holder is never
//!    mistaken for a step of a later one. `ForgetAnswer` alone keeps the fence: a late copy of the run's end has to
//!    find it taken. Refused, its outcome would be kept as disputed, although it was deleted.
//! 4. The outcome of a run is not thrown away because the run was thought dead: a completion that names the run's own
//!    fence is accepted until the operation is taken over or settled. It is accepted even if the run was lost: if there
//!    is nothing, or the tombstone of a record with an older fence. So is an interruption that says what to
//!    record. A shared store that puts an outcome back after a failover also does so over an older record of the same
//!    operation that is not done.
//! 5. A transition that ends a run gets the same reply when it is sent again. A transition that takes an operation
//!    over, asks about it or settles it is refused the second time; the record shows what the first one did.
//! 6. A record keeps the policy of its latest claim ([`ClaimPolicy`]). An interrupted operation runs again because the
//!    policy of a process says so only if it was claimed under `Rerun`; otherwise a deploy from `Refuse` to `Rerun`
//!    would repeat everything that was interrupted before. If the application was asked and said so, it runs again
//!    whatever it was claimed under ([`ReclaimReason`]).

// The files:
// - `cause.rs`: the reason why it is unknown whether a run took effect.
// - `operation.rs`: what is carried of an operation, from the request to its record.
// - `state.rs`: the record of one operation.
// - `transition.rs`: the steps that an operation can take.
// - `next.rs`: which state follows which.

mod cause;
mod next;
mod operation;
mod state;
mod transition;

pub use cause::{Cause, CauseError};
#[doc(hidden)]
pub use next::{Current, Draft, Edit, Expiry, next};
pub use next::{Reply, Stepped};
pub use operation::Operation;
pub use state::{ClaimPolicy, Described, Fence, Origin, Owner, Record, State};
pub use transition::{Claim, Completion, Hold, Lost, ReclaimReason, Resolution, RunResult, Transition};
