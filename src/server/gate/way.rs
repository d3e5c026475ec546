//! Whether a request is passed on, rejected, or an exchange. `passes` is the quick look at every request, and `way`
//! decides about those that it does not let through.

use http::request::Parts;
use http::{HeaderMap, HeaderName, Request};

use super::probe;
use crate::key::Key;
use crate::server::context::IdempotencyContext;
use crate::server::header::{self, HeaderError::NotUuidV7};
use crate::server::layer_state::LayerState;
use crate::server::options::Options;
use crate::server::reject::reasons;
use crate::server::reject::rejection::Rejection;
use crate::store::Store;

/// Up to this number of header fields, it is cheaper to compare all names than to hash one that `http` doesn't know.
const FEW_HEADERS: usize = 8;

/// The next step for a request.
pub(crate) enum Way {
    /// The inner service gets it untouched: it is not covered, or it is within an exchange of its own operation.
    Pass,
    /// Its header has this key, or its body may have one. `request.rs` answers it.
    Exchange(Option<Key>),
    /// Its key is missing or malformed, or its method is in other letters than a covered one.
    Reject(Rejection),
    /// It asks for a description, which it gets if the application has no answer of its own.
    Describe,
}

impl<St: Store> LayerState<St> {
    /// Returns whether a request passes because its method is not covered, or because it has no key and needs none.
    /// Most requests do. The head alone says so, without an allocation. A probe passes only with a safe method (RFC
    /// 9110, section 9.2.1): it must not run.
    pub(crate) fn passes<B>(&self, request: &Request<B>) -> bool {
        let (options, method) = (&self.options, request.method());
        match options.covers_method(method) {
            true => {
                !options.require_key
                    && options.key_from.is_none()
                    && !has_either(request.headers(), &options.header_name)
            }
            false => {
                method.is_safe()
                    || !request.headers().contains_key(probe::HEADER)
                        && options.covered_in_other_letters(method).is_none()
            }
        }
    }

    /// Returns the next step for a request that does not simply [pass](Self::passes). A request that is not covered
    /// loses a context that was copied into it.
    pub(crate) fn way(&self, parts: &mut Parts, is_probe: bool) -> Way {
        if self.options.may_describe(&parts.method, &parts.headers) {
            return Way::Describe;
        }
        let covers = |parts: &Parts| self.options.covers.as_ref().is_none_or(|covers| covers(parts));
        if let Some(covered) = self.options.covered_in_other_letters(&parts.method) {
            // What the application compares is the method that it knows.
            let said = std::mem::replace(&mut parts.method, covered);
            let is_covered = covers(parts);
            parts.method = said;
            if is_covered {
                return Way::Reject(reasons::method_in_other_letters(&parts.method));
            }
        }
        let is_covered = self.options.covers_method(&parts.method) && covers(parts);
        if !is_covered {
            // Such a request has no record.
            if is_probe {
                return Way::Reject(reasons::no_record());
            }
            IdempotencyContext::remove_copy(&mut parts.extensions);
            return Way::Pass;
        }
        let name = &self.options.header_name;
        let in_form = |key| self.options.profile.key_form.of(key).ok_or_else(|| NotUuidV7(name.clone()));
        let key = header::read_key(&parts.headers, name, self.options.strict_keys);
        match key.and_then(|key| key.map(in_form).transpose()) {
            Ok(key) if self.options.key_from.is_some() => Way::Exchange(key),
            Ok(Some(key)) if !is_probe && self.is_enclosed(parts, &key) => Way::Pass,
            Ok(key @ Some(_)) => Way::Exchange(key),
            Ok(None) if is_probe || self.options.require_key => {
                Way::Reject(reasons::key_missing(name, self.options.profile.key_form, None))
            }
            Ok(None) => {
                IdempotencyContext::remove_copy(&mut parts.extensions);
                Way::Pass
            }
            Err(error) => Way::Reject(reasons::key_malformed(&error)),
        }
    }

    /// Returns whether the request is within an exchange over this store for the same operation. It is when there is a
    /// layer on a nested router and another one on the outer router. When a handler sends a request that belongs to
    /// another operation, that request is an exchange of its own, even if its head is a copy of the handler's.
    pub(crate) fn is_enclosed(&self, parts: &Parts, key: &Key) -> bool {
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

/// Returns whether there is a header field with this name, or that of a probe.
#[inline]
fn has_either(headers: &HeaderMap, name: &HeaderName) -> bool {
    if headers.keys_len() <= FEW_HEADERS {
        headers.keys().any(|other| other == name || *other == probe::HEADER)
    } else {
        headers.contains_key(name) || headers.contains_key(probe::HEADER)
    }
}
