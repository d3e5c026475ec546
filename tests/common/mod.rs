//! What the tests share; some of it with the laboratories, too (`laboratories/tests/harness`).
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test program uses a part of it")]

pub mod asked;
pub mod charges;
pub mod lab;
pub mod listed;
pub mod log;
pub mod process;
mod skipped;
pub mod steps;
pub mod time;

pub use skipped::skipped;
