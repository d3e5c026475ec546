//! What is known of one operation, and the one place that says which state follows which.
//!
//! ```text
//!            Claim                         Complete
//! absent ───────────▶ Running ───────────────────────────▶ Completed, or Consumed: not storable, never runs again
//!   ▲    Release        │    ▲                                   ▲
//!   ├───────────────────┤    │ Reclaim (new fence)               │ Resolve(Outcome) (new fence);
//!   │         Interrupt ▼    │                                   │ Complete, by the run that was thought dead
//!   │                 Interrupted ───────────────────────────────┘
//!   │                   │    ↺ Inquire (new fence)
//!   └───────────────────┴── Resolve(Forget), or past its expiry
//! ```
//!
//! `next` takes what a store holds and a [`Transition`], and says what the store has to write (`Change`) and what it has
//! to answer ([`Reply`]). A store calls it inside its own atomic step; no store decides by itself. It is told no time and tells
//! none: what it writes lasts for durations, which the store counts from its own clock's now (`Draft::stamp`).
//!
//! Rules:
//! 1. A record past its expiry is absent, swept or not ([`Record::live`]). A run whose process is gone, or is too late, is
//!    presented as interrupted, under the fence it has ([`Record::lapse`]); nothing need be written for that.
//! 2. Every transition but `Claim` names a fence. One that names another fence than the record's is refused and changes nothing.
//! 3. A claim, a reclaim, a question and a resolution each take a new fence. So nobody is mistaken for somebody else who came
//!    later.
//! 4. The outcome of a run is never thrown away because its run was thought dead: its own fence completes it until somebody
//!    takes the operation over or settles it. It is recorded even where the claim was lost.
//! 5. What ends a run is answered alike when it is sent again. What takes an operation, asks about it or settles it is refused
//!    then: the record shows what the first one did.

// What is where:
// - `state.rs`: what is known of one operation.
// - `transition.rs`: the steps that it can take.
// - `next.rs`: which state follows which.

mod next;
mod state;
#[cfg(test)]
mod tests;
mod transition;

pub use next::{Applied, Reply};
#[doc(hidden)]
pub use next::{Change, Current, Draft, Expiry, next};
pub use state::{Fence, Origin, Owner, Record, State};
pub use transition::{Claim, Completion, Hold, Resolution, Settlement, Transition};
