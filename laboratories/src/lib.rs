//! The library of the laboratories of embedded stores: the engines, a disk that fails on command, and the workload of a
//! store on it.
//!
//! `crates/testkit` has the parts that other laboratories and the crate's own tests use too.

#[cfg(target_os = "linux")]
pub mod disk;
pub mod engine;
#[cfg(target_os = "linux")]
pub mod small_disk;
#[cfg(target_os = "linux")]
pub mod work;
