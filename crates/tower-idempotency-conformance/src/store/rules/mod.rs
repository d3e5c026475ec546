//! The rules.
//!
//! - `table.rs`: which transition is taken, and what it leaves.
//! - `again.rs`, `late.rs`, `crowd.rs`, `drops.rs`: what is sent twice, late, many at once, and then dropped.
//! - `bytes.rs`, `fences.rs`, `times.rs`, `owners.rs`: what is in a record then.
//! - `sweep.rs`, `listing.rs`, `hints.rs`, `closing.rs`: the other methods.
//! - `adoption.rs`: the records of another store.
//! - `limits.rs`: what is refused because there is no room, or no time.

pub(super) mod adoption;
pub(super) mod again;
pub(super) mod bytes;
pub(super) mod closing;
pub(super) mod crowd;
pub(super) mod drops;
pub(super) mod fences;
pub(super) mod hints;
pub(super) mod late;
pub(super) mod limits;
pub(super) mod listing;
pub(super) mod owners;
pub(super) mod sweep;
pub(super) mod table;
pub(super) mod times;
