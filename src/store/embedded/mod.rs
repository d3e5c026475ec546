//! The parts that every embedded engine needs to keep a store's promises.
//!
//! One thread, the writer, owns all writes. It takes the queued commands, decides them in order, writes the whole batch
//! in bounded steps, **makes it durable, and only then answers.** Reads do not pass through it. Any I/O error, of a
//! write, a sync or a read, poisons the store, and so does a write that never returns. A sync that failed is not tried
//! again: the kernel may have dropped the pages and would report success. To recover, restart the process.
//!
//! The engine's part:
//! - `storage_engine.rs`: the trait [`StorageEngine`]. An engine holds an ordered map of bytes, and writes steps of it
//!   durably.
//!
//! From the rest of the crate to the writer:
//! - `store.rs`: the handle, which the rest of the crate calls. It sends commands to the writer and waits for their
//!   answers.
//! - `command.rs`: the commands that the handles send to the writer.
//! - `transact.rs`: a transaction on its way to the writer, and how it can end.
//! - `queue.rs`: the queue between the handles and the writer.
//! - `state.rs`: the state that the handles, the writer and the watchdog share: counters, limits, health, poison.
//!
//! Reads:
//! - `read.rs`: reads from the cache or from the engine, and lists interrupted operations.
//! - `present.rs`: what memory holds without a read: which records there may be, and which runs are under way.
//!
//! The writer:
//! - `writer.rs`: the writer's thread, which makes one batch after the other.
//! - `gather.rs`: how much goes into one batch, and how long a batch waits for more.
//! - `batch.rs`: one batch. It decides each command over the results of those before it, and answers once all is
//!   durable.
//! - `together.rs`: runs a transaction, which writes an effect of the application together with the record of its
//!   outcome.
//! - `sweep.rs`: deletes expired records, between the commands.
//! - `space.rs`: the limits, and whether the disk has enough free space for new keys.
//! - `watchdog.rs`: reports a batch that takes too long, and poisons the store if the batch never ends. It maintains
//!   the engine from its opening to its last handle, and wakes its stuck threads if a batch, or the opening, takes
//!   long.
//! - `marker.rs`: writes the mark once a second, so that no batch waits for it.
//!
//! The stored bytes:
//! - `keys.rs`: the layout: all kinds of keys. No value is over 4 KiB, so longer outcomes are kept in chunks.
//! - `records.rs`: writes and removes the keys that go with a record.
//! - `listing.rs`: entries that list many records: those that expire at one time, and runs.
//! - `totals.rs`: the totals over all records, by which an opening finds out whether a list is lost.
//! - `mark.rs`: a file outside of the engine that says which step was durable, by which an opening finds out whether
//!   the end of the engine's log is lost.
//! - `step.rs`: cuts a batch into steps, each of which is bounded, and writes them.
//! - `writes.rs`: the keys of one step, and the order in which they may be written one by one.
//!
//! Opening and closing:
//! - `open.rs`: opens a store, and marks the runs that the last process left as interrupted. It decides whether the
//!   remains of an unfinished first opening are set aside.
//! - `directory.rs`: makes and checks the directory, and locks it by a file of the store's own before the engine
//!   touches it. That file says whether a first opening was ever complete. It also sets aside the remains of an
//!   unfinished one.
//! - `repair.rs`: writes the entries that list the records anew, if they are damaged.
//! - `close.rs`: ends the writer, and releases the engine and the lock.

mod batch;
mod close;
mod command;
pub(super) mod directory;
mod gather;
mod keys;
mod listing;
mod mark;
mod marker;
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
pub use transact::Abort;
pub(super) use transact::{AppValue, Transacted, quietly};
pub(crate) use transact::{Purpose, Reason, Transact};
pub(super) use writes::{ENTRY_BYTES, Writes};
