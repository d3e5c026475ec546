//! One request's story, top to bottom:
//! 1. Whose is the key? The scope says so, or refuses.
//! 2. The body is read, within its limit, **before** any claim: a slow upload holds no key.
//! 3. What is the request? Its fingerprint.
//! 4. The engine brings it to a verdict: it runs, or meets an earlier run or its record.
//! 5. If it runs: the handler is called, and what its answer means for the key is decided ([`Exchange::run`]).
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

/// A request with a key, and what it takes to run it. Boxed, as it goes from future to future.
pub(super) struct Exchange<S, St, B: LayerBody> {
    pub(super) shared: Arc<Shared<St>>,
    pub(super) key: Key,
    pub(super) service: S,
    pub(super) parts: Parts,
    /// As far as it was read.
    pub(super) body: Passage<B>,
}

/// What a run gives its requester.
type Answer<R, E> = Result<Response<<R as LayerBody>::Through>, E>;

impl<S, St: Store, B: LayerBody> Exchange<S, St, B> {
    pub(super) async fn answer<R, E>(mut self: Box<Self>, body: B) -> Answer<R, E>
    where
        S: Service<Request<B::Through>, Response = Response<R>, Error = E> + Send + 'static,
        S::Future: Future<Output = Result<Response<R>, E>> + Send + 'static,
        E: Send + 'static,
        R: LayerBody,
    {
        let shared = Arc::clone(&self.shared);
        let span = engine::span();
        let refuse = |rejection: Rejection| {
            span.record("outcome", rejection.kind.slug());
            Ok(shared.refuse::<R>(rejection))
        };
        let id = match self.record_id() {
            Ok(id) => id,
            Err(rejection) => return refuse(rejection),
        };
        let limit = shared.options.max_request_body;
        let fingerprint = match collect(body, limit, None).await {
            Collected::Whole { data, .. } if is_cut(&self.parts, data.len()) => {
                return refuse(refusal::body_incomplete());
            }
            Collected::Whole { data, trailers } => {
                let fingerprint = fingerprint(&self.parts, &data, shared.options.scope.is_some());
                self.body = Passage::Whole { data, trailers };
                fingerprint
            }
            Collected::Over { .. } => return refuse(refusal::body_too_large(limit)),
            Collected::Failed { error, .. } if exceeds_limit(&error) => {
                return refuse(refusal::body_over_outer_limit());
            }
            Collected::Failed { .. } => return refuse(refusal::body_incomplete()),
        };
        let verdict = shared.engine.exchange(&span, Ask { id, fingerprint }, |context| self.run::<R>(context)).await;
        match verdict {
            Verdict::Answered(answer) => answer,
            Verdict::Committed(outcome) => Ok(recorded::<R, St>(&shared, &outcome, false)),
            Verdict::Replayed(outcome) => Ok(recorded::<R, St>(&shared, &outcome, true)),
            verdict => Ok(shared.refuse::<R>(refusal::of_verdict(&verdict, &shared.engine.policy))),
        }
    }

    fn record_id(&self) -> Result<RecordId, Rejection> {
        let scope = self.shared.options.scope.as_ref().map(|scope| scope(&self.parts)).transpose()?;
        Ok(RecordId::new(scope.as_ref(), &self.key))
    }

    /// Calls the handler, and says what its answer means for the key.
    async fn run<R>(self: Box<Self>, context: RunContext) -> Finished<Answer<R, S::Error>>
    where
        S: Service<Request<B::Through>, Response = Response<R>>,
        S::Error: 'static,
        R: LayerBody,
    {
        let (shared, _service, answering) = {
            let Self { shared, key, mut service, parts, body } = *self;
            let slots = Arc::clone(shared.engine.store.slots());
            let context = IdempotencyContext::new(key, context, slots, Arc::clone(&shared.recorder));
            let mut request = Request::from_parts(parts, body.into());
            request.extensions_mut().insert(context);
            let answering = service.call(request);
            (shared, service, answering)
        };
        match answering.await {
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

/// Whether a body ended before the length that its request declared: hyper takes an HTTP/2 stream that is reset without
/// an error for one that has ended.
fn is_cut(parts: &Parts, length: usize) -> bool {
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    declared.is_some_and(|declared| (length as u64) < declared)
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
    const NAME: &[u8] = b"text/event-stream";
    let event_stream =
        |value: &HeaderValue| value.as_bytes().get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME));
    parts.status == StatusCode::SWITCHING_PROTOCOLS || parts.headers.get(CONTENT_TYPE).is_some_and(event_stream)
}
