//! The stored bytes, and the trait of an engine that stores them.
//!
//! - `storage_engine.rs`: the trait [`StorageEngine`](storage_engine::StorageEngine). An engine holds an ordered map of
//!   bytes, and writes steps of it durably.
//! - `keys.rs`: the layout: all kinds of keys. No value is over 4 KiB, so longer outcomes are kept in chunks.
//! - `listing.rs`: entries that list many records: those that expire at one time, and runs.
//! - `cleared.rs`: the keys from which on these entries are read.
//! - `totals.rs`: the totals over all records, by which an opening finds out whether a list is lost.
//! - `writes.rs`: the keys of one step, and the order in which they may be written one by one.

pub(super) mod cleared;
pub(super) mod keys;
pub(super) mod listing;
pub(super) mod storage_engine;
pub(super) mod totals;
pub(super) mod writes;
