//! Bodies: their types, and how they are read within bounds.
//!
//! - `body.rs`: the body types that go through the layer.
//! - `collect.rs`: reads a body, within bounds.
//! - `budget.rs`: bounds the bytes of all request bodies that are being read.

pub(super) mod body;
pub(super) mod budget;
pub(super) mod collect;
