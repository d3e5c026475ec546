//! What the disk laboratories share: a disk that fails on command, and what a store is made to do on it.
//!
//! What they have in common with other laboratories and with the crate's own tests is in `crates/testkit`.
#![cfg(target_os = "linux")]

pub mod disk;
pub mod work;
