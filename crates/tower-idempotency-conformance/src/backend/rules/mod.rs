//! The rules.
//!
//! - `table.rs`, `answers.rs`: when a write is done, and what is answered.
//! - `fences.rs`, `times.rs`, `clocks.rs`, `bytes.rs`: what is in a row then.
//! - `again.rs`, `late.rs`, `crowd.rs`: writes that are sent twice, late, and many at once.
//! - `durable.rs`: rows that are shown while nothing becomes durable.
//! - `sweep.rs`, `listing.rs`, `surroundings.rs`: the other methods; other processes, namespaces and servers.

pub(super) mod again;
pub(super) mod answers;
pub(super) mod bytes;
pub(super) mod clocks;
pub(super) mod crowd;
pub(super) mod durable;
pub(super) mod fences;
pub(super) mod late;
pub(super) mod listing;
pub(super) mod surroundings;
pub(super) mod sweep;
pub(super) mod table;
pub(super) mod times;
