//! Makes the fingerprint of a request, which says whether two requests are the same.
//!
//! - `identify.rs`: puts its parts together.
//! - `target.rs`: its part for host, path and query.
//! - `credentials.rs`, `credential_lists.rs`: its part for who asks.
//! - `media_type.rs`: its part for the content type.
//! - `multipart.rs`: its part for the body of a form.
//! - `canonical_json.rs`: its part for a body that is JSON.

pub(super) mod canonical_json;
pub(super) mod credential_lists;
pub(super) mod credentials;
pub(crate) mod identify;
pub(super) mod media_type;
pub(super) mod multipart;
pub(super) mod target;
