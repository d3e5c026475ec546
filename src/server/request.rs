//! The steps of one exchange, from top to bottom: scope, body, fingerprint, the engine's verdict, answer. If the
//! request runs, the engine calls [`Exchange::run`]; [`answer_of`] makes the answer. `docs/journey.md` has the whole
//! way.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Request, Response, response};
use tokio::time::Instant;
use tower_service::Service;
use tracing::Span;

use super::answer::marks::{self, Unsure};
use super::answer::meaning::Judged;
use super::bodies::body::{BodyMode, Passage, SendBody, Through};
use super::bodies::budget::Share;
use super::bodies::collect::{Bounds, collect, declared_length};
use super::context::IdempotencyContext;
use super::effect::Effect;
use super::fingerprint::target::seen_uri;
use super::layer_state::LayerState;
use super::not_applied;
use super::on_replay::{Asking, Instead, OnReplay, Replay, recorded};
use super::options::{Hook, Options};
use super::origin::origin;
use super::read::{let_go_if_reset, too_long, whole};
use super::read_on::Connection;
use super::reject::reasons;
use crate::engine::name::RAN;
use crate::engine::{self, Caller, End, Facts, RunContext, Verdict, Work};
use crate::key::{Key, RecordId, Scope};
use crate::record::{Operation, Origin};
use crate::store::Store;

/// A request with a key, and what is needed to run it. It is boxed, because it moves from future to future.
/// `M` is the mode of the layer's bodies.
pub(super) struct Exchange<S, St, B: SendBody, M> {
    pub(super) layer: Arc<LayerState<St>>,
    pub(super) key: Key,
    /// The inner service, which was polled ready. If the request does not run, it is dropped without a call.
    pub(super) service: S,
    pub(super) parts: Parts,
    /// The request's body, which is empty until it has been read.
    pub(super) body: Passage<B>,
    /// The scope that the key belongs to, once it is known, if there is one.
    pub(super) scope: Option<Scope>,
    /// The path that is a part of the record's id, once it is known, if one is.
    pub(super) path: Option<Box<str>>,
    /// The body's share of the budget for bodies, until the run takes the body over.
    pub(super) share: Option<Share>,
    pub(super) mode: PhantomData<fn() -> M>,
}

/// The answer of a run to its requester.
pub(super) type RunAnswer<M, R, E> = Result<Response<Through<M, R>>, E>;

impl<S, St: Store, B: SendBody, M: 'static> Exchange<S, St, B, M> {
    /// Begins an exchange. `body` is the request's body, which was not polled yet, or `None` if it was read before.
    pub(super) fn begin<R, E>(
        self: Box<Self>,
        body: Option<B>,
        is_probe: bool,
    ) -> BoxFuture<'static, RunAnswer<M, R, E>>
    where
        M: BodyMode<B> + BodyMode<R>,
        S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E, Future: Send> + Send + 'static,
        E: Send + 'static,
        R: SendBody,
    {
        if is_probe {
            return Box::pin(self.look::<R, E>(body));
        }
        match self.layer.options.on_replay.clone() {
            None => Box::pin(self.answer::<R, E>(body)),
            Some(Hook(ask)) => Box::pin(self.answer_if_asked::<R, E>(ask, body)),
        }
    }

    /// Takes the request through the steps at the top of this file.
    async fn answer<R, E>(self: Box<Self>, body: Option<B>) -> RunAnswer<M, R, E>
    where
        M: BodyMode<B> + BodyMode<R>,
        S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E, Future: Send> + Send + 'static,
        E: Send + 'static,
        R: SendBody,
    {
        let layer = Arc::clone(&self.layer);
        let span = engine::span();
        let connection = Connection::of(&self.parts, false);
        let (exchange, operation, caller) = match self.identify::<R>(&layer, connection, &span, body).await {
            Ok(identified) => identified,
            Err(rejection) => return Ok(rejection),
        };
        let (id, is_sub_request) = (operation.id, exchange.is_sub_request());
        let (verdict, waited) = layer.engine.exchange(&span, operation, caller, exchange).await;
        let answer = answer_of::<M, R, E, St>(&layer, connection, &span, &id, verdict, waited, None);
        if is_sub_request { as_of_sub_request(answer) } else { answer }
    }

    /// The same, where the application is asked before a replay. Apart from it, because its future is longer.
    async fn answer_if_asked<R, E>(self: Box<Self>, hook: OnReplay, body: Option<B>) -> RunAnswer<M, R, E>
    where
        M: BodyMode<B> + BodyMode<R>,
        S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E, Future: Send> + Send + 'static,
        E: Send + 'static,
        R: SendBody,
    {
        let layer = Arc::clone(&self.layer);
        let span = engine::span();
        let connection = Connection::of(&self.parts, false);
        let (exchange, operation, caller) = match self.identify::<R>(&layer, connection, &span, body).await {
            Ok(identified) => identified,
            Err(rejection) => return Ok(rejection),
        };
        let (id, is_sub_request) = (operation.id, exchange.is_sub_request());
        let asking = Asking { hook, parts: exchange.parts.clone(), began: Instant::now() };
        let (verdict, waited) = layer.engine.exchange(&span, operation, caller, exchange).await;
        // It must not borrow the verdict while it is asked.
        let instead = match recorded(&verdict) {
            Some(outcome) => asking.about(outcome, &layer.engine).await,
            None => None,
        };
        let answer = answer_of::<M, R, E, St>(&layer, connection, &span, &id, verdict, waited, instead);
        if is_sub_request { as_of_sub_request(answer) } else { answer }
    }

    /// Takes the first three steps: finds out what the request is. Returns the answer to a request that is rejected.
    pub(super) async fn identify<R: SendBody>(
        mut self: Box<Self>,
        layer: &LayerState<St>,
        connection: Connection,
        span: &Span,
        body: Option<B>,
    ) -> Result<(Box<Self>, Operation, Caller), Response<Through<M, R>>>
    where
        M: BodyMode<R>,
    {
        let body = pin!(body);
        // This calls the application's scope function, which may reject the request. Where the body was read before, it
        // was called before.
        let scope = if body.is_some() { layer.options.scope_of(&self.parts) } else { Ok(self.scope.take()) };
        let found = scope.and_then(|scope| {
            self.path = layer.options.path_of_id(&self.parts);
            Ok((Options::record_id(scope.as_ref(), &self.key, self.path.as_deref())?, scope))
        });
        let (id, scope) = match found {
            Ok(found) => found,
            Err(rejection) => {
                // No request waits while the service holds something, such as the permit of an inner concurrency limit.
                drop(self);
                let rejection = layer.reject::<M, R>(connection, span, Facts::default(), rejection);
                return Err(match body.as_pin_mut() {
                    Some(body) => Box::pin(connection.read_on(body, rejection)).await,
                    None => rejection,
                });
            }
        };
        let Options { sameness, header_name, max_request_body, .. } = &*layer.options;
        // Where no scope says who asks, the credentials do.
        let credentials = scope.is_none().then(|| sameness.credentials.names(&self.parts, header_name));
        let client = sameness.client(&self.parts, scope.as_ref(), credentials.as_deref());
        if let Some(body) = body.as_pin_mut() {
            let share = Some(Share::new(&layer.budget, client));
            let mut bounds = Bounds { bytes: *max_request_body, share, ..Bounds::default() };
            // A layer outside may hide from the body's own hint what the head declares.
            let declared = declared_length(&self.parts.headers);
            let collected = match declared {
                Some(declared) if declared > *max_request_body as u64 => too_long(body),
                _ => collect(body, &mut bounds).await,
            };
            match whole(collected, declared, *max_request_body) {
                Ok(read) => self.body = read,
                Err(unread) => {
                    // The inner service and the budget for bodies are free for others while the rest is read on.
                    drop((self, bounds));
                    let facts = Facts { id: Some(&id), ..Facts::default() };
                    let reject = |rejection| layer.reject::<M, R>(connection, span, facts, rejection);
                    return Err(Box::pin(unread.refused(connection, reject)).await);
                }
            }
            self.share = bounds.share;
            let_go_if_reset(self.parts.version, declared).await;
        }
        // It was read by now.
        let data = if let Passage::Whole { data, .. } = &self.body { data } else { &Bytes::new() };
        let fingerprint = sameness.fingerprint(&id, &self.parts, data, credentials.as_deref());
        self.scope = scope;
        let slots = layer.engine.store.slots();
        // `true` if a run that is still under way has sent this request, by itself or through what it calls.
        let is_within = self.enclosing().is_some_and(|enclosing| enclosing.goes_on_in(slots).next().is_some());
        // What a run sends belongs to that run, which has a place in its client's share.
        let client = (!is_within).then_some(client);
        // The origin is found out once the request runs: see `Work::origin`.
        Ok((self, Operation { id, fingerprint, origin: Origin::default() }, Caller { client, is_within }))
    }

    /// Returns whether the answer is for a handler that has sent this request to its own server.
    pub(super) fn is_sub_request(&self) -> bool {
        self.enclosing().is_some_and(|enclosing| enclosing.is_of_sub_request(&self.key))
    }

    /// Returns the exchange whose handler has sent this request.
    fn enclosing(&self) -> Option<&IdempotencyContext> {
        self.parts.extensions.get()
    }

    /// Calls the handler, and says how the run ends.
    async fn run<R>(self: Box<Self>, context: RunContext) -> (RunAnswer<M, R, S::Error>, End)
    where
        M: BodyMode<B> + BodyMode<R>,
        S: Service<Request<Through<M, B>>, Response = Response<R>, Error: 'static>,
        R: SendBody,
    {
        // `_service` lives until the answer's body was read, which may depend on the service.
        let (layer, _service, answering) = {
            let Self { layer, key, mut service, mut parts, body, path, share, .. } = *self;
            // From here on the body belongs to the run, and its part is free for other bodies.
            drop(share);
            let slots = Arc::clone(layer.engine.store.slots());
            let (seen, recorder) = (seen_uri(&parts).clone(), Arc::clone(&layer.options.recorder));
            let answers_retries = layer.engine.policy.answers_retries();
            IdempotencyContext::replace(&mut parts, key, context, slots, (seen, path), recorder, answers_retries);
            let answering = service.call(Request::from_parts(parts, body.into()));
            (layer, service, answering)
        };
        match answering.await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                let (passage, Judged { end, effect }) = take(&layer, &parts, body).await;
                layer.say_effect(&mut parts, effect, &end);
                (Ok(Response::from_parts(parts, passage.into())), end)
            }
            Err(error) => {
                let end = layer.judge().of_error(&error);
                (Err(error), end)
            }
        }
    }
}

/// The work of an exchange is the call of the handler.
impl<S, St, B, M, R, E> Work<RunAnswer<M, R, E>> for Exchange<S, St, B, M>
where
    S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E, Future: Send> + Send + 'static,
    St: Store,
    B: SendBody,
    M: BodyMode<B> + BodyMode<R>,
    R: SendBody,
    E: Send + 'static,
{
    fn origin(&self) -> Option<Origin> {
        Some(origin(&self.layer.options, &self.parts, self.scope.as_ref()))
    }

    fn start(self: Box<Self>, context: RunContext) -> BoxFuture<'static, (RunAnswer<M, R, E>, End)> {
        Box::pin(async move { self.run::<R>(context).await })
    }
}

/// Returns the answer to a request that a handler has sent to its own server: its marks are not that handler's own.
pub(super) fn as_of_sub_request<T, E>(answer: Result<Response<T>, E>) -> Result<Response<T>, E> {
    let (mut parts, body) = answer?.into_parts();
    marks::remove(&mut parts.extensions);
    let effect = parts.headers.remove(Effect::HEADER);
    // Passed on, it would say that nothing was done, although the application has had it recorded.
    if effect.is_some_and(|effect| effect.as_bytes().starts_with(b"unknown")) && not_applied::may_say_so(&parts) {
        parts.extensions.insert(Unsure);
    }
    Ok(Response::from_parts(parts, body))
}

/// Turns a verdict into the request's answer. `instead` is what the application has said of a replay, if it was asked.
pub(super) fn answer_of<M: BodyMode<R>, R: SendBody, E, St: Store>(
    layer: &LayerState<St>,
    connection: Connection,
    span: &Span,
    id: &RecordId,
    verdict: Verdict<RunAnswer<M, R, E>>,
    waited: Option<Duration>,
    instead: Option<Instead>,
) -> RunAnswer<M, R, E> {
    let is_of_own_run = verdict.is_of_own_run();
    let attempt = verdict.attempt().cloned();
    let facts = Facts { id: Some(id), attempt: attempt.as_ref(), waited, differs: verdict.differs(), ran: None };
    let rejection = match verdict {
        Verdict::Own(mut answer) => {
            if let Ok(answer) = &mut answer {
                layer.options.name_outcome(answer, RAN);
            }
            return answer;
        }
        Verdict::Outcome { outcome, is_own, .. } => match instead.map(|instead| *instead) {
            Some((Replay::Refuse(rejection), _)) => rejection,
            Some((Replay::Replace(answer), trailers)) => {
                return Ok(layer.replayed::<M, R>(span, answer, trailers, facts));
            }
            Some((Replay::Give, _)) | None => {
                // The facts are for the report of a replay. A run has reported itself.
                let facts = (!is_own).then_some(facts);
                return Ok(layer.recorded_answer::<M, R>(connection, span, id, &outcome, facts));
            }
        },
        Verdict::Unanswered { why, attempt, .. } => {
            reasons::of_unanswered(why, &layer.engine.policy, id, attempt.origin)
        }
    };
    Ok(if is_of_own_run {
        layer.answer_rejection::<M, R>(connection, rejection)
    } else {
        layer.reject::<M, R>(connection, span, facts, rejection)
    })
}

/// Reads the body of the handler's answer, unless the head says how the run ends. Returns the body, and how it ends.
async fn take<R: SendBody, St: Store>(
    layer: &LayerState<St>,
    parts: &response::Parts,
    body: R,
) -> (Passage<R>, Judged) {
    let judge = layer.judge();
    if judge.needs_no_body(parts) {
        return (Passage::Untouched(body), judge.of_answer::<R>(parts, None));
    }
    // An answer has a time limit, and takes none of the budget for request bodies.
    let (bytes, time) = (layer.options.recorder.max_response_body, Some(layer.options.outcome_body_timeout));
    let collected = collect(Box::pin(body), &mut Bounds { bytes, time, ..Bounds::default() }).await;
    let judged = judge.of_answer(parts, Some(&collected));
    (Passage::from(collected), judged)
}
