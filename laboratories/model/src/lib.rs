//! The protocol, explored: `record::next`, the function that every store calls, and the compare-and-set of a shared
//! database, under processes that die, stall, shut down and drop futures, a network that delays, repeats and
//! loses, a database that fails over and is started again, and clocks that are set ahead and back.
//!
//! Several processes and an operator share one database, which only compares and sets. The model takes the place of
//! tower-idempotency-shared. It calls the crates' own functions for the decisions: `record::next`, `Clocks::at`,
//! `Write::apply_to`, and the expiry and the grace of `Row`. The files of a store that are named here are in
//! `crates/tower-idempotency-shared/src`.
//!
//! - `world.rs` has the whole state, with the truth that no process sees. `events.rs` and `actions.rs` have the events
//!   that may happen, and how often. `arrivals.rs` has the changes of the database.
//! - `process.rs` has the work and the memory of a process. `step.rs` and `answers.rs` have one step of it, as
//!   `protocol/step.rs` takes it: the row that the process holds or reads, the protocol's decision, the write, and its
//!   answer.
//! - `copies.rs` has the copies of completed records in the memory of processes: after a failover they are put back, as
//!   in `protocol/restore.rs`, and what an operator has forgotten is dropped.
//! - `database.rs` has the rows, which of them are durable, and the effects of a failover and a restart. A write is
//!   durable at once, after its answer, before it is seen, or after it changes its row and before a call shows that.
//!   `rows.rs` has one row, and the effect of a write on it.
//! - `sessions.rs` has the statements of a session on the runs of its process, with renewals that may arrive late.
//! - `clocks.rs` has the true time, which the protocol does not know and by which promises are judged, and how far each
//!   clock is from it.
//! - `leases.rs` is a model of its own: one session in time, its renewals, and another process that watches whether it
//!   is over, as in `session/own.rs` and `session/others.rs`. `leases/owner.rs` has the process with the session,
//!   `leases/observer.rs` the one that watches it.
//! - `promises.rs` has the properties that always hold, and those that must be seen sometimes. `sights.rs` has the
//!   sights of one step.
//! - `fault.rs` has the faults that are seeded, so that a promise is seen to fail.
//!
//! In the model of the protocol a lease is over or is not, and a lapse is an event. `leases.rs` models for how long a
//! lease is believed. No wall clock has a part in that. The row's `until` is stamped by one, and shows only whether the
//! row has changed.
//!
//! A second effect is excused after the retention by the true time, and where all three clocks of a process are wrong
//! together: all ahead when it judges, or all behind when it stamps. The clock that it keeps is wrong only if the other
//! two were wrong when the store was opened: both ahead, or one behind.
//!
//! A run of a living process, or its end that is not recorded yet, is never taken over, however long its bound is over.
//! Other processes rely on its session, and the session knows the runs of its process.
//!
//! A claim without a run is excused. A refused claim may leave one: if a second copy of it arrives just after the
//! answer that refused it has expired, or after a failover has taken back the claim that refused it. The key is in
//! flight until the bound is over and the process has renewed its session after that. Then it is interrupted; there is
//! no second effect. One run of that process that is stuck beyond its own bound keeps such a claim in flight for as
//! long.
//!
//! What an operator has forgotten is neither written anew nor disputed by a process that has a copy, while its
//! tombstone is there. A process that has learned of it does not tell it. Other processes tell it from memory until
//! then.
//!
//! This holds until the operation runs again: the row of the later run takes the place of the tombstone, and a copy
//! then counts as lost. The model shows what the protocol does, as sights that are better never seen. The copy is
//! disputed after a failover, or written anew once the later row has expired, and a process that was asked keeps it. A
//! restoration that is on its way disputes what another one puts back and an operator then forgets.
//!
//! The model leaves out: batches and the queue of puts, a full queue and the breaker; `fail_open`; `complete_in`; drain
//! beyond its effect on sessions; attaching, watchers and notifications; damaged rows and unknown formats; records
//! of the application's transactions; the barrier's own write before a copy takes the place of another (the copy is
//! compared again until its row is durable); the slewing of the kept clock; the ten minutes after a clock was set in
//! which nothing is swept; a process that does not know the database's latest time; the claim in doubt whose way is
//! barred (here a claim without a waiter is sent until its end is known, and given back); listing; digits, bytes and
//! SQL; others' earlier reads of a session, which have the effect of a renewal that arrives late; a session's row that
//! a failover takes back, which adds nothing to the later one. It does not explore an answer that is lost for the whole
//! retention, or before a failover that loses what was answered after it. Reads are done at once, or wait until what
//! they show is durable; the rows of sessions are durable at once. A write is late by five minutes at most, and a claim
//! that is answered after its bound is given back. No process is started again under its name: another one takes its
//! place.

mod actions;
mod answers;
mod arrivals;
mod clocks;
mod copies;
mod database;
mod event;
mod events;
mod fault;
mod leases;
mod process;
mod promises;
mod rows;
mod sessions;
mod sights;
mod step;
mod truth;
mod world;

pub use database::Replication;
pub use event::{Clock, Ending, Event};
pub use fault::Fault;
pub use leases::{Accidents, LeaseEvent, LeaseFault, Leases, Occasion, Rates};
pub use world::{Budget, Policy, Protocol, World};
