//! A scope of a request's credentials.

use http::request::Parts;

use super::layer::IdempotencyLayer;
use super::options::Options;
use crate::key::Scope;

impl<St, M> IdempotencyLayer<St, M> {
    /// Returns a scope of a request's credentials: the headers and cookies that [say who
    /// asks](crate::guide::promises#headers-that-say-who-asks), as this layer's options have them. `None` if the
    /// request has none. For a [`scope`](Self::scope) by which keys belong to credentials:
    ///
    /// ```
    /// use http::request::Parts;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new());
    /// let of = layer.clone();
    /// let layer = layer.scope(move |parts: &Parts| of.scope_of_credentials(parts));
    /// ```
    ///
    /// **A retry with other credentials is then another operation, and runs.** Use it only where a client's credentials
    /// stay the same between the attempts of one operation: tokens that are renewed do not, nor do `Authorization` with
    /// AWS signatures or Digest, `X-WSSE`, and assertions that a gateway signs anew. A request that has only a
    /// `Signature` (RFC 9421) has no scope.
    #[must_use]
    pub fn scope_of_credentials(&self, parts: &Parts) -> Option<Scope> {
        let Options { sameness, header_name, .. } = &*self.state().options;
        sameness.credentials.scope(parts, header_name)
    }
}
