//! What all laboratories share: the real server and its clients, a history and its one checker, a disk and a network
//! that fail on command, and controls, in which the laboratory must see what is broken on purpose.
//!
//! It is a module of each and no library, as each is compiled twice: with the crate as everybody has it, and for its
//! controls with the one that has the switches (`.ci/controls`).
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each laboratory uses a part of it")]

pub mod child;
pub mod control;
#[cfg(target_os = "linux")]
pub mod disk;
pub mod history;
pub mod proxy;
#[cfg(target_os = "linux")]
pub mod work;

// What it has in common with the crate's own tests.
#[path = "../../../tests/common/lab.rs"]
pub mod lab;
#[path = "../../../tests/common/process.rs"]
pub mod process;
#[path = "../../../tests/common/skipped.rs"]
mod skipping;
#[path = "../../../tests/common/steps.rs"]
pub mod steps;
#[path = "../../../tests/common/time.rs"]
pub mod time;

pub use skipping::skipped;
