//! The workload of both disk laboratories, the notes about it, and the checks afterwards.

pub mod key;
pub mod notes;
pub mod operations;
pub mod retry;
pub mod standing;
pub mod truth;
