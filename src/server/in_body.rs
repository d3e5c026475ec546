//! A request whose key may be in its body: the body is read first, and then it is passed on, rejected, or an exchange.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use tower_service::Service;

use super::bodies::body::{BodyMode, Passage, SendBody, Through};
use super::bodies::budget::Share;
use super::bodies::collect::{Bounds, collect, declared_length};
use super::context::IdempotencyContext;
use super::key_from::KeyFrom;
use super::layer_state::LayerState;
use super::options::Options;
use super::read::{let_go_if_reset, too_long, whole};
use super::read_on::Connection;
use super::reject::reasons;
use super::reject::rejection::Rejection;
use super::request::{Exchange, RunAnswer};
use crate::engine::{self, Facts};
use crate::key::Key;
use crate::store::Store;

/// A request with a covered method, whose body was not polled yet.
pub(super) struct Keyed<S, St> {
    pub(super) layer: Arc<LayerState<St>>,
    pub(super) key_from: KeyFrom,
    /// The key in the header, if there is one.
    pub(super) of_header: Option<Key>,
    /// The inner service, which was polled ready.
    pub(super) service: S,
    pub(super) parts: Parts,
    pub(super) is_probe: bool,
}

impl<S, St: Store> Keyed<S, St> {
    /// Reads the body, and answers the request.
    pub(super) async fn answer<B, M, R, E>(self, body: B) -> RunAnswer<M, R, E>
    where
        S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E, Future: Send> + Send + 'static,
        M: BodyMode<B> + BodyMode<R>,
        B: SendBody,
        R: SendBody,
        E: Send + 'static,
    {
        let Self { layer, key_from, of_header, mut service, mut parts, is_probe } = self;
        let Options { sameness, header_name, max_request_body, require_key, profile, .. } = &*layer.options;
        let connection = Connection::of(&parts, is_probe);
        let reject =
            |rejection: Rejection| layer.reject::<M, R>(connection, &engine::span(), Facts::default(), rejection);
        // A request without a key needs no scope. Those that the application rejects are one client to the budget.
        let scope = layer.options.scope_of(&parts);
        let credentials = matches!(scope, Ok(None)).then(|| sameness.credentials.names(&parts, header_name));
        let known = scope.as_ref().ok().and_then(Option::as_ref);
        let client = sameness.client(&parts, known, credentials.as_deref());
        let share = Some(Share::new(&layer.budget, client));
        let mut bounds = Bounds { bytes: *max_request_body, share, ..Bounds::default() };
        let body = pin!(body);
        let declared = declared_length(&parts.headers);
        let collected = match declared {
            Some(declared) if declared > *max_request_body as u64 => too_long(body),
            _ => collect(body, &mut bounds).await,
        };
        let body: Passage<B> = match whole(collected, declared, *max_request_body) {
            Ok(read) => read,
            Err(unread) => {
                // They are free for others while the rest is read on.
                drop((service, bounds));
                return Ok(unread.refused(connection, reject).await);
            }
        };
        let_go_if_reset(parts.version, declared).await;
        // It was read by now.
        let data = if let Passage::Whole { data, .. } = &body { data } else { &Bytes::new() };
        let key = match key_from.find(&parts, data, profile.key_form) {
            Ok(of_body) => match (of_header, of_body) {
                (Some(of_header), Some(of_body)) if of_header != of_body => {
                    return Ok(reject(reasons::keys_differ(header_name)));
                }
                (of_header, of_body) => of_header.or(of_body),
            },
            Err(rejection) => return Ok(reject(rejection)),
        };
        let key = match key {
            Some(key) if is_probe || !layer.is_enclosed(&parts, &key) => key,
            None if is_probe || *require_key => {
                return Ok(reject(reasons::key_missing(header_name, profile.key_form, Some(&key_from))));
            }
            other => {
                if other.is_none() {
                    IdempotencyContext::remove_copy(&mut parts.extensions);
                }
                // As with a run, the body belongs to the service from here on.
                drop(bounds);
                let answer = service.call(Request::from_parts(parts, body.into())).await?;
                return Ok(answer.map(|body| Passage::Untouched(body).into()));
            }
        };
        let scope = match scope {
            Ok(scope) => scope,
            Err(rejection) => return Ok(reject(rejection)),
        };
        let share = bounds.share;
        let (path, mode) = (None, PhantomData::<fn() -> M>);
        let layer = Arc::clone(&layer);
        let exchange = Exchange { layer, key, service, parts, body, scope, path, share, mode };
        Box::new(exchange).begin::<R, E>(None, is_probe).await
    }
}
