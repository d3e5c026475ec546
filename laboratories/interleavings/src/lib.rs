//! The laboratory of interleavings: the slot map, the waiters and the ends of runs, as they are compiled into the
//! crate, under a scheduler that decides at every step which task goes on.
//!
//! - A [`plan`] says what happens in one execution: who asks, how runs end, what fails, who goes away. When each of it
//!   happens is for the schedule to say. [`scenarios`] lists what plans there are.
//! - [`life`] is one such execution, from an empty store to a store at rest. [`work`] is what the application does in
//!   it.
//! - [`ledger`] records requests, answers and effects, and checks them: by the rules of all laboratories, and some of
//!   its own.
//! - [`explore`] takes executions through many schedules: random ones, and by [`bounded`] all with few preemptions. Of
//!   one that fails, the [`trail`] is kept.
//!
//! The crate under test calls out at the places where another thread may come between (`src/laboratory.rs`). What lies
//! between two such places is not taken apart.
//!
//! `tests/interleavings.rs` says how to run it, and how a schedule that failed is run again.

#![cfg(idempotency_laboratory)]

pub mod bounded;
pub mod explore;
pub mod ledger;
pub mod life;
pub mod machine;
pub mod plan;
pub mod runs;
pub mod scenarios;
pub mod trail;
pub mod work;
