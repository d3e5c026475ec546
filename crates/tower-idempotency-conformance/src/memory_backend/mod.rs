//! A database in memory that keeps the contract of [`Backend`](tower_idempotency_shared::Backend) exactly, and
//! fails on command: for tests.
//!
//! A [`MemoryBackend`] is one process's way to a [`MemoryDatabase`];
//! [`another_process`](MemoryBackend::another_process) gives another's. Either the way or the database fails:
//!
//! | what | how |
//! |---|---|
//! | a call is held up, and arrives later, though its caller has gone | [`MemoryBackend::hold`] |
//! | its answer is held up | [`MemoryBackend::hold_answers`] |
//! | it is refused, lost, done without an answer, done twice, done much later | [`MemoryBackend::fail_next`], [`MemoryBackend::deliver_late`] |
//! | the way carries only so many bytes a second | [`MemoryBackend::link`] |
//! | any of these at random, by a seed | [`MemoryBackend::fail_at_random`] |
//! | the way is cut, and mended | [`MemoryBackend::cut`] |
//! | the database is away, and comes back | [`MemoryDatabase::stop`] |
//! | it is started again | [`MemoryDatabase::restart`] |
//! | its standby takes over, which has not got everything | [`MemoryDatabase::replication`], [`MemoryDatabase::fail_over`] |
//! | an application's transaction has a row locked | [`MemoryDatabase::lock`] |
//! | an application's transaction writes the record of a run | [`MemoryBackend::transaction`] |
//! | its clock is set | [`ManualClock::jump`](tower_idempotency::clock::ManualClock::jump) |
//! | it sends no notifications of what was written | [`MemoryDatabase::mute_notifications`] |
//!
//! It needs no runtime but for random delays and links, and does nothing by itself, so that a test under tokio's paused
//! clock knows the order of everything.

// What is where:
// - `backend.rs`: the trait's methods, each sent over the way to the database.
// - `call.rs`: the calls and the faults; `way.rs`: what happens to a call on its way; `hold.rs`: calls that are held
//   up; `link.rs`: how long they take; `random.rs`: faults by a seed; `locked.rs`: mutexes.
// - `transaction.rs`: an application's transactions.
// - `database.rs`: what a test does to the database; `state.rs`: what the database does; `table.rs`: rows alone.

mod backend;
mod call;
mod database;
mod hold;
mod link;
mod locked;
mod random;
mod state;
mod table;
mod transaction;
mod way;

pub use backend::MemoryBackend;
pub use call::{Call, Counts, Fault};
pub use database::{Lock, MemoryDatabase};
pub use hold::Hold;
pub use random::FaultRates;
pub use state::{Replication, Written};
pub use transaction::MemoryTransaction;
