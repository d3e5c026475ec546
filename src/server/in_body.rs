//! A request whose key may be in its body, once that was read: it has a key, or is passed on.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::bodies::body::{BodyMode, Passage, SendBody, Through};
use super::context::IdempotencyContext;
use super::key_from::KeyFrom;
use super::members::BadKey;
use super::options::Options;
use super::reject::reasons;
use super::reject::rejection::Rejection;
use super::request::{Incoming, RunAnswer};
use super::rpc::reply::{self, Reply};
use crate::key::Key;
use crate::store::Store;

/// The key of a request, if it has one. A rejection is boxed, because it is longer than what is known otherwise.
type KeyOrRejection = Result<Option<Key>, Box<Rejection>>;

impl<S, St: Store, M, B> Incoming<S, St, M, B> {
    /// Returns the key, as [`key_in`](Self::key_in) does, and what an answer needs of the call, if the profile's
    /// requests are calls of JSON-RPC. A message that is none has no key.
    pub(super) fn call_in(
        &self,
        of_header: Option<Key>,
        data: &Bytes,
        is_probe: bool,
    ) -> (Option<Arc<Reply>>, KeyOrRejection) {
        let Options { profile, key_from, .. } = &*self.layer.options;
        let Some(places) = key_from else { return (None, Ok(of_header)) };
        let find = |of_header| self.key_in(of_header, places, data, is_probe).map_err(Box::new);
        let Some(calls) = profile.calls else { return (None, find(of_header)) };
        // Calls are JSON. A server has other routes, too, such as those of OAuth, which take forms.
        let is_message = reply::has_type(&self.parts.headers, "application/json");
        match if is_message { calls.id_of(data) } else { Ok(None) } {
            Ok(Some(id)) => (Some(Arc::new(Reply::new(id, &self.parts))), find(of_header)),
            Ok(None) if is_probe => (None, Err(Box::new(reasons::no_record()))),
            Ok(None) => (None, Ok(None)),
            Err(_) => {
                // A body that is encoded, or a batch, is refused by its own words.
                let found = places.find(&self.parts, data, profile.key_form);
                let unread = || reasons::key_in_body_malformed(&BadKey::NotRpc);
                (None, Err(Box::new(found.err().unwrap_or_else(unread))))
            }
        }
    }

    /// Returns the key, which is in the header, in the body `data`, or in both; `None` if there is none and none is
    /// needed.
    fn key_in(
        &self,
        of_header: Option<Key>,
        places: &KeyFrom,
        data: &Bytes,
        is_probe: bool,
    ) -> Result<Option<Key>, Rejection> {
        let Options { header_name, require_key, profile, .. } = &*self.layer.options;
        match (of_header, places.find(&self.parts, data, profile.key_form)?) {
            (Some(of_header), Some(of_body)) if of_header != of_body => Err(reasons::keys_differ(header_name)),
            (None, None) if is_probe || *require_key => {
                Err(reasons::key_missing(header_name, profile.key_form, Some(places)))
            }
            (of_header, of_body) => Ok(of_header.or(of_body)),
        }
    }

    /// Passes the request on with the body that was read. It has no key, or is within an exchange of its own operation.
    pub(super) async fn pass_on<R, E>(self: Box<Self>, body: Passage<B>, has_key: bool) -> RunAnswer<M, R, E>
    where
        S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E>,
        M: BodyMode<B> + BodyMode<R>,
        B: SendBody,
        R: SendBody,
    {
        let Self { mut service, mut parts, .. } = *self;
        if !has_key {
            IdempotencyContext::remove_copy(&mut parts.extensions);
        }
        let answer = service.call(Request::from_parts(parts, body.into())).await?;
        Ok(answer.map(|body| Passage::Untouched(body).into()))
    }
}
