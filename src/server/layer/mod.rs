//! The Tower layer.
//!
//! - `layer.rs`: makes it, and says what it is.
//! - `decisions.rs`, `usual.rs`, `rare.rs`: its options, by the sections of `docs/options.md`.

// rustdoc lists the methods in the order of the modules: first how to make a layer, then its options.
#[allow(clippy::module_inception, reason = "the noun of this room")]
pub(crate) mod layer;

mod decisions;
mod usual;

mod rare;
