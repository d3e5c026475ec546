//! The meaning of an answer for its key, and the part of it that is recorded.
//!
//! - `marks.rs`: what a handler can say of its own answer.
//! - `meaning.rs`: decides what an answer means for the key.
//! - `snapshot.rs`: turns an answer into the bytes of an outcome, and back.
//! - `kept_headers.rs`: says which headers of an answer are recorded, as the layer's user chooses.
//! - `checked.rs`: marks what an extractor rejects as invalid.

#[cfg(feature = "axum")]
pub(super) mod checked;
pub(super) mod kept_headers;
pub(crate) mod marks;
pub(crate) mod meaning;
pub(crate) mod snapshot;
