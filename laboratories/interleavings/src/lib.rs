//! The laboratory of interleavings. It runs the slot map, the waiters and the ends of runs, as they are compiled into
//! the crate, under a scheduler that decides at every step which task goes on.
//!
//! - A [`plan`] lists the events of one execution: the requests, the ends of runs, the faults, the clients that go
//!   away. The schedule decides when each of them happens. [`scenarios`] lists the kinds of plans.
//! - [`life`] is one such execution, from an empty store to a store at rest. [`work`] is the application's part of it.
//! - [`ledger`] records requests, answers and effects, and checks them: by the rules of all laboratories, and by some
//!   of its own.
//! - [`explore`] takes executions through many schedules: random ones and, by [`bounded`], all with few preemptions.
//!
//! The crate under test calls a hook at each place where another thread may run (`src/laboratory.rs`). The code between
//! two such places runs as one step.
//!
//! `tests/interleavings.rs` has the commands that run it, and that run a failed schedule again.

#![cfg(idempotency_laboratory)]

pub mod bounded;
pub mod explore;
pub mod ledger;
pub mod life;
pub mod machine;
pub mod plan;
pub mod runs;
pub mod scenarios;
pub mod work;
