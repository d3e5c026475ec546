//! The Tower layer.
//!
//! - `layer.rs`: makes it, says what it is, and has the three decisions that every service has to take.
//! - `usual.rs`, `rare.rs`: the other options, by the sections of `docs/options.md`.

// rustdoc lists the methods in the order of the modules: first how to make a layer, then its options.
#[allow(clippy::module_inception, reason = "the noun of this room")]
pub(crate) mod layer;

mod usual;

mod rare;
