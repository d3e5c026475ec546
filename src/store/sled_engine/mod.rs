//! sled, made trustworthy: what only this engine needs.
//!
//! sled 0.34 answers a write before it is on disk, and its `flush()` hands the bytes to the operating system without
//! ever asking for them to be made durable. In simulated power cuts 39 of 40 lost acknowledged records. What is done
//! about it, and about what else sled 0.34 does, file by file:
//! - `store.rs`: [`SledStore`], the store that applications open. It hands on to the room of all embedded engines.
//! - `builder.rs`: how a store is set up.
//! - `engine.rs`: sled as an engine: its settings, and its calls. Remains of a torn snapshot, which would make every
//!   later opening fail, are removed. `flush_every_ms` stays on, because sled collects space on that thread.
//! - `durable.rs`: what is written is flushed, **and then made durable with `fdatasync` on a descriptor of our own.**
//! - `transaction.rs`: an application's effect, written in one of sled's transactions with the record of its outcome.
//!   No value is over 4 KiB, because sled keeps large ones in files that it never syncs, and no transaction or step is
//!   long, because of its space collection.
//! - `segments.rs`: without its last snapshot sled could take a database for an empty one; it is enabled to do without.
//! - `pins.rs`: what sled frees while it still reads it is kept for it. Nobody calls `flush_async`, which can deadlock.

mod builder;
mod durable;
mod engine;
mod pins;
mod segments;
mod store;
mod transaction;

pub use builder::SledStoreBuilder;
#[cfg(test)]
pub(super) use engine::SledEngine;
pub use store::SledStore;
pub use transaction::TransactionTree;
pub(crate) use transaction::transaction;
