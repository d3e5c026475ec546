//! What every embedded engine needs to keep a store's promises.
//!
//! One thread owns all writes. It takes what is queued, decides each command in order, writes the whole batch in bounded
//! steps, **makes it durable, and only then answers.** Reads don't pass through it. Any I/O error, of a write, a sync
//! or a read, poisons the store, as does a write that never returns. A sync that failed is not tried again: the kernel
//! may have dropped the pages and would report success. Recovery is a restart of the process.
//!
//! What an engine has to do:
//! - `storage_engine.rs`: the trait [`StorageEngine`]: to hold an ordered map of bytes, and to write steps of it
//!   durably.
//!
//! From the rest of the crate to the writer:
//! - `store.rs`: the handle, which the rest of the crate calls. It sends commands to the writer and waits for their
//!   answers.
//! - `command.rs`: what the handles ask of the writer.
//! - `transact.rs`: a transaction on its way to the writer, and how it can end.
//! - `queue.rs`: the queue between the handles and the writer.
//! - `state.rs`: what the handles, the writer and the watchdog share: counters, limits, health, poison.
//!
//! Reads:
//! - `read.rs`: reads from the cache or from the engine, and lists interrupted operations.
//! - `cache.rs`: recent outcomes.
//! - `present.rs`: which records there may be, and which runs are under way, known without a read.
//!
//! The writer:
//! - `writer.rs`: the thread, which makes one batch after the other.
//! - `gather.rs`: how much goes into one batch, and how long it waits for more.
//! - `batch.rs`: one batch: decides each command over what those before it left, and answers once all is durable.
//! - `together.rs`: runs a transaction, which writes an effect of the application's with the record of its outcome.
//! - `sweep.rs`: deletes what has expired, between the others' commands.
//! - `space.rs`: the limits, and whether the disk has too little free for new keys.
//! - `watchdog.rs`: reports a batch that takes too long, and poisons the store if it never ends. Tends the engine from
//!   its opening to its last handle, and nudges it where a batch, or the opening, takes long.
//!
//! What is written:
//! - `keys.rs`: the layout: all keys there are. No value is over 4 KiB, so longer outcomes are kept in chunks.
//! - `records.rs`: writes and removes the keys that go with a record.
//! - `listing.rs`: entries that list many records: those that are forgotten at one time, and runs.
//! - `totals.rs`: what the store says of its records as a whole, by which an opening finds out whether a list is lost.
//! - `step.rs`: cuts a batch into steps, each of which is bounded, and writes them.
//! - `writes.rs`: the keys of one step, and the order in which they may be written one by one.
//!
//! Opening and closing:
//! - `open.rs`: opens a store, and marks the runs that the last process left as interrupted. Decides whether what a
//!   first opening left unfinished is set aside.
//! - `directory.rs`: the directory: made, checked, and locked by a file of our own before the engine touches it. That
//!   file says whether a first opening was ever complete. Sets aside what one left.
//! - `repair.rs`: makes what lists the records anew, where it is damaged.
//! - `close.rs`: ends the writer, and lets the engine and the lock go.

mod batch;
mod cache;
mod close;
mod command;
pub(super) mod directory;
mod gather;
mod keys;
mod listing;
mod open;
mod present;
mod queue;
mod read;
mod records;
mod repair;
mod space;
mod state;
mod step;
mod storage_engine;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod together;
mod totals;
mod transact;
mod watchdog;
mod writer;
mod writes;

pub(super) use open::Setup;
pub(super) use space::Limits;
pub(super) use state::PANICKED;
pub(super) use storage_engine::{Own, ReadError, StorageEngine};
pub(super) use store::Embedded;
pub use transact::{Abort, CommitError, TransactionError};
pub(crate) use transact::{Purpose, Reason, Transact};
pub(super) use transact::{Theirs, Transacted, quietly};
pub(super) use writes::{ENTRY_BYTES, Writes};
