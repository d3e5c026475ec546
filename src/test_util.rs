//! For tests of your own handlers: time and faults on command. The README shows a handler's retry after a crash.

pub use crate::clock::ManualClock;
pub use crate::store::test::{Stall, TestStore, Verb};
