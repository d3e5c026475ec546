//! Shared by the benches: estimates, goals, and the figures that a bench leaves behind.

pub mod callgrind;
pub mod disk;
pub mod estimate;
pub mod exchange;
pub mod load;
pub mod minimum;
pub mod report;
