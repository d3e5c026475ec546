//! Writes on their way: together, large, late, doubled and lost.

mod batches;
mod doubts;
mod faults;
mod large_writes;
mod late_claims;
mod rows;
mod slow_link;
