//! The protocol, explored: `record::next`, the function that every store calls, under processes that crash and lapse
//! and a network that delays, repeats and loses.
//!
//! Several processes share one database, which does nothing but compare and set: a write names the version that it
//! expects and carries a token of its own, which becomes the version (`database.rs`). Each process decides with `next`
//! over what it has read, sends its write, and sends it again until it knows what became of it (`process.rs`). What may
//! happen, and how often, is in `world.rs`; what must hold is in `promises.rs`; what is broken on purpose, so that a
//! promise is seen to fail, in `fault.rs`.

mod database;
mod fault;
mod process;
mod promises;
mod world;

pub use fault::Fault;
pub use world::{Budget, Policy, Protocol};
