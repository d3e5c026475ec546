//! Slots: the places of runs in this process, where their duplicates wait for them.
//!
//! Rules 2, 3 and 8 of section 3 of `docs/design.md` are about slots. These hold, too:
//! - There is at most one slot per record id. Its holder claims, runs and records; no other task touches the record.
//! - An end that the store did not record is kept before its slot is freed, and takes the place of the slot.
//! - A slot always ends: dropping a [`Slot`] notifies its waiters, whatever became of the run.
//! - Waiters are counted, per slot and in all. A slot has one notification.
//!
//! `map.rs` has all slots, and `slot.rs` the right to one. `clients.rs` bounds the runs of each client. `phase.rs` has
//! the phases of a run and its ends, and `shared_phase.rs` shows them. `wait.rs` is the duplicate's side.
//! `unsaved.rs` keeps the ends of runs that the store did not record. `end_watch.rs` has the duplicates of other
//! processes' runs, and `read_times.rs` says when they read. `lease.rs` has this process's lease over a shared store.
//! `mismatches.rs` remembers the last requests that used another one's key.
//! `telemetry.rs` has the events, the observer and the throttles of the log, and `stats.rs` the list of what is
//! counted.

mod clients;
mod end_watch;
mod lease;
mod map;
mod mismatches;
mod phase;
mod read_times;
mod shared_phase;
mod slot;
mod stats;
mod telemetry;
mod unsaved;
mod wait;

pub(crate) use clients::Client;
pub(crate) use end_watch::EndWatch;
pub(crate) use map::Retrying;
pub use map::Slots;
pub use mismatches::Mismatched;
pub(crate) use phase::{Attempt, Ended, Phase};
pub use phase::{End, Refusal};
pub(crate) use shared_phase::SharedPhase;
pub(crate) use slot::{Entered, Slot};
pub(crate) use stats::Counters;
#[cfg(feature = "server")]
pub(crate) use stats::REFUSALS;
pub use stats::Stats;
pub use telemetry::{Event, LogThrottle};
pub(crate) use telemetry::{Lines, Telemetry, once_a_minute};
pub(crate) use wait::Waiter;
