//! What the benches share: estimates, goals, and the figures that a bench leaves behind.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each bench uses a part of it")]

pub mod callgrind;
pub mod estimate;
pub mod exchange;
pub mod load;
pub mod minimum;
pub mod report;
