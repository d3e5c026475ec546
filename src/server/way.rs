//! Whether a request is passed on, rejected, or an exchange.

use http::request::Parts;
use http::{HeaderMap, HeaderName, Request};

use super::context::IdempotencyContext;
use super::header;
use super::layer_state::LayerState;
use super::options::Options;
use super::reject::reasons;
use super::reject::rejection::Rejection;
use crate::key::Key;
use crate::store::Store;

/// Up to this number of header fields, it is cheaper to compare all names than to hash one that `http` doesn't know.
const FEW_HEADERS: usize = 8;

/// The next step for a request.
pub(super) enum Way {
    /// The inner service gets it untouched: it is not covered, or it is within an exchange of its own operation.
    Pass,
    /// It has this key, and `request.rs` answers it.
    Exchange(Key),
    /// Its key is missing or malformed.
    Reject(Rejection),
}

impl<St: Store> LayerState<St> {
    /// Returns whether a request passes because its method is not covered, or because it has no key and needs none.
    /// Most requests do. The head alone says so, without an allocation.
    pub(super) fn passes<B>(&self, request: &Request<B>) -> bool {
        let options = &self.options;
        let is_covered = options.methods.iter().any(|covered| covered == request.method());
        !is_covered || !(options.require_key || has(request.headers(), &options.header_name))
    }

    /// Returns the next step for a request that does not simply [pass](Self::passes). A request that is not covered
    /// loses a context that was copied into it.
    pub(super) fn way(&self, parts: &mut Parts) -> Way {
        if self.options.covers.as_ref().is_some_and(|covers| !covers(parts)) {
            IdempotencyContext::remove_copy(&mut parts.extensions);
            return Way::Pass;
        }
        let name = &self.options.header_name;
        match header::read_key(&parts.headers, name, self.options.strict_keys) {
            Ok(Some(key)) if self.is_enclosed(parts, &key) => Way::Pass,
            Ok(Some(key)) => Way::Exchange(key),
            Ok(None) => Way::Reject(reasons::key_missing(name)),
            Err(error) => Way::Reject(reasons::key_malformed(&error)),
        }
    }

    /// Returns whether the request is within an exchange over this store for the same operation. It is when there is a
    /// layer on a nested router and another one on the outer router. When a handler sends a request that belongs to
    /// another operation, that request is an exchange of its own, even if its head is a copy of the handler's.
    fn is_enclosed(&self, parts: &Parts, key: &Key) -> bool {
        let Some(enclosing) = parts.extensions.get::<IdempotencyContext>() else { return false };
        let mut going_on = enclosing.goes_on_in(self.engine.store.slots()).peekable();
        if going_on.peek().is_none() {
            return false;
        }
        // The application's scope function is called only if such an exchange goes on. If it rejects the request, the
        // request becomes an exchange, which calls the function again and answers with its rejection.
        let Ok(scope) = self.options.scope_of(parts) else { return false };
        // A nested router shows the request of the exchange itself with another path.
        let path = match enclosing.is_of_sub_request(key) {
            true => self.options.path_of_id(parts),
            false => enclosing.path_of_id().map(Into::into),
        };
        Options::record_id(scope.as_ref(), key, path.as_deref())
            .is_ok_and(|id| going_on.any(|context| context.record_id() == id))
    }
}

/// Returns whether there is a header field with this name.
#[inline]
fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    if headers.keys_len() <= FEW_HEADERS {
        headers.keys().any(|other| other == name)
    } else {
        headers.contains_key(name)
    }
}
