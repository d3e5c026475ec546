//! The store on fjall: what only this engine needs.
//!
//! fjall writes a batch to its journal before it answers, and syncs when it is asked to. Its tables and their names are
//! durable before a journal is removed. What it leaves to others, these files deal with:
//! - `store.rs`: [`FjallStore`], the store that applications open, and what only it has.
//! - `engine.rs`: fjall as an engine: its settings and its calls. fjall never makes the names of keyspaces durable, so
//!   the engine does.
//! - `durable.rs`: makes the journal durable by a descriptor of the store's own, because fjall may hide that a sync has
//!   failed.
//! - `files.rs`: checks fjall's other files before it opens them. Without some of them, fjall takes a database for a
//!   new or an unfinished one, and deletes what it does not know.
//! - `journal.rs`: examines the journals before fjall opens them. fjall takes damage in a journal for its end, and
//!   **cuts off what follows without an error.** It may refuse a journal of which a power cut has torn the last batch;
//!   that batch is cut off before.
//! - `memtables.rs`: decides when a memtable is written to a table.
//! - `upkeep.rs`: a thread that merges tables, drops those of what was removed, and frees what is old.
//! - `volume.rs`: counts the bytes that are written to journals and tables, and merged.
//! - `transaction.rs`: writes an application's effect in one batch with the record of its outcome.

mod durable;
mod engine;
mod files;
mod journal;
mod memtables;
mod store;
mod transaction;
mod upkeep;
mod volume;

pub(super) use engine::FjallEngine;
pub use store::{FjallStore, FjallStoreBuilder};
pub use transaction::TransactionKeyspace;
pub(crate) use transaction::transaction;
