//! The store on sled: what only this engine needs.
//!
//! sled 0.34 answers a write before it is on disk, and its `flush()` hands the bytes to the operating system without
//! ever asking for them to be made durable. In simulated power cuts 39 of 40 lost acknowledged records. These files
//! deal with that, and with other traits of sled 0.34:
//! - `store.rs`: [`SledStore`], the store that applications open, and what only it has.
//! - `engine.rs`: sled as an engine: its settings and its calls. It removes the remains of a torn snapshot, which would
//!   make every later opening fail. `flush_every_ms` stays on, because sled collects space on that thread.
//! - `durable.rs`: flushes what was written, **and then makes it durable with `fdatasync` on a descriptor of the
//!   store's own.**
//! - `transaction.rs`: writes an application's effect in one of sled's transactions with the record of its outcome. No
//!   value is over 4 KiB, because sled keeps large ones in files that it never syncs, and no transaction or step is
//!   long, because of its space collection.
//! - `segments.rs`: lets sled open a database without its last snapshot, which it could otherwise take for an empty
//!   one, and says where the log is damaged.
//! - `log_end.rs`: finds where sled will end the log.
//! - `skipped.rs`: finds damage in the log that sled skips in silence.
//! - `messages.rs`: reads the messages of that log, and finds where they end.
//! - `epochs.rs`: keeps sled from freeing memory while it still reads it. No code here calls `flush_async`, which can
//!   deadlock.

mod durable;
mod engine;
mod epochs;
mod log_end;
mod messages;
mod segments;
mod skipped;
mod store;
mod transaction;

pub(super) use engine::SledEngine;
pub use store::{SledStore, SledStoreBuilder};
pub use transaction::TransactionTree;
pub(crate) use transaction::transaction;
