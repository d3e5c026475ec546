//! The parts that every embedded engine needs to keep a store's promises.
//!
//! One thread, the writer, owns all writes. It takes the queued commands, decides them in order, writes the whole batch
//! in bounded steps, **makes it durable, and only then answers.** Reads do not pass through it. An I/O error of a
//! write, a sync or a read poisons the store, unless it says that the process has no file or memory left for now. So
//! does a write that never returns. A sync that failed is not tried again: the kernel may have dropped the pages and
//! would report success. To recover, restart the process.
//!
//! From the rest of the crate to the writer:
//! - `store.rs`: the handle, which applications and the rest of the crate call. It sends commands to the writer and
//!   waits for their answers. `builder.rs`: its settings.
//! - `command.rs`: the commands that the handles send to the writer.
//! - `transact.rs`: a transaction on its way to the writer, and how it can end. `closure.rs`: the application's part of
//!   it.
//! - `queue.rs`: the queue between the handles and the writer.
//! - `state.rs`: the state that the handles, the writer and the watchdog share: counters, limits, health, poison.
//!
//! Reads:
//! - `read.rs`: reads from the cache or from the engine.
//! - `scan.rs`: the lists of records.
//! - `key_filter.rs`: what memory holds without a read: which records there may be, and which runs are under way.
//!
//! The writer:
//! - `writer.rs`: the writer's thread, which makes one batch after the other.
//! - `group_commit.rs`: how much goes into one batch, and how long a batch waits for more.
//! - `batches/`: one batch, with its transactions and its sweep, and the steps in which it is written.
//! - `layout/`: the stored bytes, and the trait of an engine that stores them.
//! - `space.rs`: the limits, and whether the disk has enough free space for new keys.
//! - `measured.rs`: what the writer notes of its work, for the gauges.
//! - `watchdog.rs`: reports a batch that takes too long, and poisons the store if the batch never ends. It maintains
//!   the engine from its opening to its last handle, and wakes its stuck threads if a batch, or the opening, takes
//!   long.
//!
//! Opening and closing:
//! - `open.rs`: opens a store, and marks the runs that the last process left as interrupted. It decides whether the
//!   remains of an unfinished first opening are set aside.
//! - `files/`: the directory, its lock, and the checkpoint of the last durable step.
//! - `repair.rs`: writes the entries that list the records anew, if they are damaged.
//! - `close.rs`: ends the writer, and releases the engine and the lock.

#![allow(private_bounds, reason = "the engines are those of this crate")]

mod batches;
mod builder;
mod close;
mod closure;
mod command;
pub(super) mod files;
mod group_commit;
mod key_filter;
mod layout;
mod measured;
mod open;
mod queue;
mod read;
mod repair;
mod scan;
mod space;
mod state;
mod store;
#[cfg(test)]
#[cfg(feature = "sled")]
mod tests;
mod transact;
mod watchdog;
mod writer;

pub use builder::EmbeddedStoreBuilder;
pub(crate) use closure::AppEffect;
pub(super) use closure::EffectLimits;
#[cfg(feature = "fjall")]
pub(super) use layout::keys::TOTALS;
pub(crate) use layout::storage_engine::StorageEngine;
#[cfg(feature = "fjall")]
pub(super) use layout::storage_engine::Volume;
pub(super) use layout::storage_engine::{FileDamage, MAX_STEP, ReadError, RecordWritesFn};
#[cfg(feature = "fjall")]
pub(super) use layout::totals::{Checkpoint, Totals};
pub(super) use layout::writes::Writes;
pub use space::MAX_DEFAULT_FREE;
pub use store::EmbeddedStore;
pub use transact::Abort;
pub(super) use transact::{AppValue, Transacted};
pub(crate) use transact::{Purpose, Reason, Transact};
