//! sled, made trustworthy: what only this engine needs.
//!
//! sled 0.34 answers a write before it is on disk, and its `flush()` hands the bytes to the operating system without
//! ever asking for them to be made durable. In simulated power cuts 39 of 40 lost acknowledged records. So:
//! 1. What is written is flushed, **and then made durable with `fdatasync` on a descriptor of our own** ([`durable`]).
//! 2. No value is over 4 KiB, because sled keeps large ones in files that it never syncs; steps are short, because of its space
//!    collection ([`engine`]).
//! 3. Remains of a torn snapshot, which would make every later opening fail, are removed. Without the last snapshot sled could
//!    take the database for an empty one, so it is enabled to do without ([`segments`]).
//! 4. Nobody calls `flush_async`: it can deadlock. `flush_every_ms` stays on, because sled collects space on that thread.
//!    What sled frees while it still reads it is kept for it ([`pins`]).
//! 5. The application can have an effect of its own written together with the record of its outcome ([`transaction`]).

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
pub(crate) use transaction::effect;
