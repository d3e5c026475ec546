//! One request's story, top to bottom:
//! 1. Whose is the key? The scope says so, or refuses.
//! 2. The body is read, within its limit, **before** any claim: a slow upload holds no key.
//! 3. What is the request? Its fingerprint.
//! 4. The engine brings it to a verdict: it runs, or meets an earlier run or its record.
//! 5. If it runs: the handler is called, and what its answer means for the key is decided ([`Work`]).
//! 6. The verdict becomes an answer: the handler's own, a replay, or a refusal.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tower_service::Service;

use super::body::{LayerBody, Passage};
use super::collect::{Collected, collect, exceeds_limit};
use super::context::IdempotencyContext;
use super::identify::fingerprint;
use super::policy::{Started, frees_key};
use super::refusal;
use super::rejection::Rejection;
use super::shared::Shared;
use super::snapshot;
use crate::engine::{self, Ask, Ended, Finished, RunContext, Verdict};
use crate::key::{Key, RecordId};
use crate::slots::Refusal;
use crate::store::Store;

/// A request with a key, and what it takes to run it.
pub(super) struct Exchange<S, St> {
    pub(super) shared: Arc<Shared<St>>,
    pub(super) key: Key,
    pub(super) service: S,
}

/// What a run gives its requester.
type Answer<R, E> = Result<Response<<R as LayerBody>::Through>, E>;

impl<S, St: Store> Exchange<S, St> {
    pub(super) async fn answer<B, R, E>(self, request: Request<B>) -> Answer<R, E>
    where
        S: Service<Request<B::Through>, Response = Response<R>, Error = E> + Send + 'static,
        S::Future: Future<Output = Result<Response<R>, E>> + Send + 'static,
        E: Send + 'static,
        B: LayerBody,
        R: LayerBody,
    {
        let Self { shared, key, service } = self;
        let (parts, body) = request.into_parts();
        let span = engine::span();
        let refuse = |rejection: Rejection| {
            span.record("outcome", rejection.kind.slug());
            Ok(shared.refuse::<R>(rejection))
        };
        let id = match record_id(&shared, &parts, &key) {
            Ok(id) => id,
            Err(rejection) => return refuse(rejection),
        };
        let limit = shared.options.max_request_body;
        let (data, trailers) = match collect(body, limit, None).await {
            Collected::Whole { data, .. } if is_cut(&parts, data.len()) => {
                return refuse(refusal::body_incomplete());
            }
            Collected::Whole { data, trailers } => (data, trailers),
            Collected::Over { .. } => return refuse(refusal::body_too_large(limit)),
            Collected::Failed { error, .. } if exceeds_limit(&error) => {
                return refuse(refusal::body_over_outer_limit());
            }
            Collected::Failed { .. } => return refuse(refusal::body_incomplete()),
        };
        let fingerprint = fingerprint(&parts, &data, shared.options.scope.is_some());
        let request = Request::from_parts(parts, Passage::Whole { data, trailers }.into());
        // Boxed: it goes from future to future.
        let work = Box::new(Work { shared: Arc::clone(&shared), key, service, request });
        let verdict = shared.engine.exchange(&span, Ask { id, fingerprint }, |context| work.run::<R>(context)).await;
        match verdict {
            Verdict::Answered(answer) => answer,
            Verdict::Committed(outcome) => Ok(recorded::<R, St>(&shared, &outcome, false)),
            Verdict::Replayed(outcome) => Ok(recorded::<R, St>(&shared, &outcome, true)),
            verdict => Ok(shared.refuse::<R>(refusal::of_verdict(&verdict, &shared.engine.policy))),
        }
    }
}

/// Whether a body ended before the length that its request declared: hyper takes an HTTP/2 stream that is reset without
/// an error for one that has ended.
fn is_cut(parts: &Parts, length: usize) -> bool {
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    declared.is_some_and(|declared| (length as u64) < declared)
}

fn record_id<St>(shared: &Shared<St>, parts: &Parts, key: &Key) -> Result<RecordId, Rejection> {
    let scope = shared.options.scope.as_ref().map(|scope| scope(parts)).transpose()?;
    Ok(RecordId::new(scope.as_ref(), key))
}

/// The recorded answer; marked, where it is a replay.
fn recorded<R: LayerBody, St: Store>(shared: &Shared<St>, outcome: &Bytes, replay: bool) -> Response<R::Through> {
    let Some(snapshot) = snapshot::decode(outcome) else {
        // Its digest fits, so it was written so: by another program, or by a later release.
        shared.engine.store.slots().tally.corrupt.fetch_add(1, Ordering::Relaxed);
        return shared.refuse::<R>(refusal::of_refusal(Refusal::Corrupt));
    };
    let mut response = Response::new(Passage::<R>::Whole { data: snapshot.body, trailers: snapshot.trailers }.into());
    *response.status_mut() = snapshot.status;
    *response.headers_mut() = snapshot.headers;
    if replay {
        response.headers_mut().insert(shared.options.replay_header_name.clone(), HeaderValue::from_static("true"));
    }
    response
}

/// The handler, ready to be called once.
struct Work<S, St, B> {
    shared: Arc<Shared<St>>,
    key: Key,
    service: S,
    request: Request<B>,
}

impl<S, St: Store, B> Work<S, St, B> {
    async fn run<R>(self: Box<Self>, context: RunContext) -> Finished<Answer<R, S::Error>>
    where
        S: Service<Request<B>, Response = Response<R>>,
        S::Error: 'static,
        R: LayerBody,
    {
        let slots = Arc::clone(self.shared.engine.store.slots());
        let Self { shared, key, mut service, mut request } = *self;
        let context = IdempotencyContext::new(key, context, slots, Arc::clone(&shared.recorder));
        request.extensions_mut().insert(context);
        match service.call(request).await {
            Ok(response) => {
                let (response, ended) = take(&shared, response).await;
                Finished { answer: Ok(response), ended }
            }
            Err(error) => {
                let classify = shared.options.classify_error.as_ref();
                let ended = match classify.map_or(Started::Unknown, |classify| classify(&error as &dyn Any)) {
                    Started::No => Ended::Released,
                    Started::Unknown => Ended::Unknown,
                };
                Finished { answer: Err(error), ended }
            }
        }
    }
}

/// What an answer means for its key, and the answer again.
async fn take<R: LayerBody, St: Store>(shared: &Shared<St>, response: Response<R>) -> (Response<R::Through>, Ended) {
    let options = &shared.options;
    let (parts, body) = response.into_parts();
    let policy = &shared.engine.policy.on_interrupted;
    if frees_key(parts.status, &parts.extensions, policy, &options.not_started) {
        return (Response::from_parts(parts, Passage::Untouched(body).into()), Ended::Released);
    }
    let consumed = Ended::Consumed { status: parts.status.as_u16() };
    if is_stream(&parts) {
        return (Response::from_parts(parts, Passage::Untouched(body).into()), consumed);
    }
    let (passage, ended) = match collect(body, options.max_response_body, Some(options.outcome_body_timeout)).await {
        Collected::Whole { data, trailers } => {
            let kept = options.kept_headers.choose(&parts.headers, &options.replay_header_name, trailers.is_some());
            let outcome = snapshot::encode(parts.status, kept, &data, trailers.as_ref());
            (Passage::Whole { data, trailers }, outcome.map_or(consumed, Ended::Outcome))
        }
        Collected::Over { head, rest } => (Passage::Resumed { head, rest: Ok(rest) }, consumed),
        Collected::Failed { head, error } => (Passage::Resumed { head, rest: Err(error) }, Ended::Unknown),
    };
    (Response::from_parts(parts, passage.into()), ended)
}

/// An answer that goes on as long as somebody reads it.
fn is_stream(parts: &http::response::Parts) -> bool {
    let event_stream = |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream");
    parts.status == StatusCode::SWITCHING_PROTOCOLS || parts.headers.get(CONTENT_TYPE).is_some_and(event_stream)
}
