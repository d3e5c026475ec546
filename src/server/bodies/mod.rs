//! Bodies: their types, and how they are read within bounds.
//!
//! - `body.rs`: the body types that go through the layer.
//! - `collect.rs`: reads a body, within bounds.
//! - `budget.rs`: bounds the bytes of all request bodies that are being read.
//! - `read.rs`: whether a request's body was read whole, and why the request is refused if not.
//! - `read_on.rs`: reads on the body of a rejected request, so that its connection stays usable.

pub(super) mod body;
pub(super) mod budget;
pub(super) mod collect;
pub(super) mod read;
pub(super) mod read_on;
