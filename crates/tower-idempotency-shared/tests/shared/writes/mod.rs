//! Writes on their way: large, late, doubled and lost.

mod doubts;
mod faults;
mod large_writes;
mod late_claims;
mod rows;
pub(crate) mod slow_link;
mod unsaved;
