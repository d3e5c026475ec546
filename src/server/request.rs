//! The steps of one exchange, from top to bottom: scope, body, key, fingerprint, the engine's verdict, answer. If the
//! request runs, the engine calls [`Exchange::start`]; [`answer_of`] makes the answer. `docs/journey.md` has the whole
//! way.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Request, Response, response};
use tokio::time::Instant;
use tower_service::Service;
use tracing::Span;

use super::answer::marks::{self, Unsure};
use super::answer::meaning::{Judged, must_not_be_read};
use super::bodies::body::{BodyMode, Passage, SendBody, Through, WholeAnswer, in_mode};
use super::bodies::budget::Share;
use super::bodies::collect::{Bounds, Collected, collect, declared_length};
use super::bodies::read::{let_go_if_reset, too_long, whole};
use super::bodies::read_on::Connection;
use super::context::IdempotencyContext;
use super::effect::Effect;
use super::fingerprint::target::seen_uri;
use super::gate::origin::origin;
use super::layer_state::LayerState;
use super::not_applied;
use super::on_replay::{Asking, Instead, Replay, recorded};
use super::options::Options;
use super::reject::reasons;
use super::rpc::reply::Reply;
use super::rpc::stream::Early;
use crate::engine::name::RAN;
use crate::engine::{self, Caller, End, Facts, RunContext, Verdict, Work};
use crate::key::{Key, RecordId, Scope};
use crate::record::{Operation, Origin};
use crate::store::Store;

/// A covered request, as it comes in. `M` is the mode of the layer's bodies, and `B` the type of the request's.
pub(super) struct Incoming<S, St, M, B> {
    pub(super) layer: Arc<LayerState<St>>,
    /// The key in the header. There may be none if the body may have it.
    pub(super) key: Option<Key>,
    /// The inner service, which was polled ready. If the request does not run, it is dropped without a call.
    pub(super) service: S,
    pub(super) parts: Parts,
    /// What its answer needs, if it is a call of JSON-RPC.
    pub(super) reply: Option<Arc<Reply>>,
    /// By which the requester gets the head of a stream while the run goes on, if a stream may be an answer.
    pub(super) early: Option<Early>,
    pub(super) mode: PhantomData<fn(B) -> M>,
}

/// A request with a key whose body was read, and what is needed to run it.
pub(super) struct Exchange<S, St, M, B: SendBody> {
    pub(super) request: Box<Incoming<S, St, M, B>>,
    key: Key,
    body: Passage<B>,
    /// The scope that the key belongs to, if there is one.
    pub(super) scope: Option<Scope>,
    /// The path that is a part of the record's id, if one is.
    path: Option<Box<str>>,
    /// The body's share of the budget for bodies, until the run takes the body over.
    share: Option<Share>,
}

/// What few requests need for their answer: the question whether a replay is given, and the call of JSON-RPC. They are
/// in one box, so that the future of each exchange is no longer for them.
#[derive(Default)]
struct Rare {
    asking: Option<Box<Asking>>,
    reply: Option<Arc<Reply>>,
}

/// What the engine is asked about, and what an answer of the layer's own needs.
type Identified<S, St, M, B> = (Box<Exchange<S, St, M, B>>, Operation, Caller, Option<Box<Rare>>);

/// What the answer of a run needs if it may be a stream, or belongs to a call of JSON-RPC.
type OfCall = Option<Box<(Option<Arc<Reply>>, Option<Early>, RecordId)>>;

/// The answer of a run to its requester.
pub(super) type RunAnswer<M, R, E> = Result<Response<Through<M, R>>, E>;

impl<S, St, M, B, R, E> Incoming<S, St, M, B>
where
    S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E, Future: Send> + Send + 'static,
    St: Store,
    M: BodyMode<B> + BodyMode<R>,
    B: SendBody,
    R: SendBody,
    E: Send + 'static,
{
    /// Takes the request through the steps at the top of this file. `body` was not polled yet.
    pub(super) async fn answer(self: Box<Self>, body: B, is_probe: bool) -> RunAnswer<M, R, E> {
        let layer = Arc::clone(&self.layer);
        let connection = Connection::of(&self.parts, is_probe);
        let (exchange, operation, caller, mut rare) = match self.identify(&layer, connection, body).await {
            Ok(identified) => identified,
            Err(answer) => return answer,
        };
        // A request without a key that is passed on has no span.
        let (span, id) = (engine::span(), operation.id);
        // The answer may be for a handler that has sent this request to its own server.
        let enclosing = exchange.request.enclosing();
        let is_sub_request = enclosing.is_some_and(|enclosing| enclosing.is_of_sub_request(&exchange.key));
        if is_probe {
            let answer = Box::pin(exchange.look(connection, &span, operation, is_sub_request)).await;
            return Ok(in_mode::<M, R>(fitted(answer, rare.as_deref())));
        }
        if let Some(hook) = layer.options.on_replay.as_deref() {
            rare.get_or_insert_default().asking = Some(Asking::of(hook, &exchange.request.parts, Instant::now()));
        }
        let (verdict, waited) = layer.engine.exchange(&span, operation, caller, exchange).await;
        let asked = rare.as_mut().and_then(|rare| Some((recorded(&verdict)?, rare.asking.take()?)));
        let instead = match asked {
            Some((outcome, asking)) => Box::pin(asking.about(outcome, &layer.engine, layer.judge())).await,
            None => None,
        };
        let answer = answer_of(&layer, connection, &span, &id, verdict, waited, instead);
        let answer = match answer {
            Ok(answer) => Ok(in_mode::<M, R>(fitted(answer, rare.as_deref()))),
            Err(mut answer) => {
                if let Ok(answer) = &mut answer {
                    layer.options.name_outcome(answer, RAN);
                }
                answer
            }
        };
        if is_sub_request { answer.map(as_of_sub_request) } else { answer }
    }

    /// Takes the first four steps: finds out what the request is. Returns the answer to a request that is rejected, or
    /// that has no key and is passed on.
    async fn identify(
        mut self: Box<Self>,
        layer: &LayerState<St>,
        connection: Connection,
        body: B,
    ) -> Result<Identified<S, St, M, B>, RunAnswer<M, R, E>> {
        let body = pin!(body);
        let Options { sameness, header_name, max_request_body, key_from, .. } = &*layer.options;
        let reject = |id: Option<&RecordId>, rejection| {
            in_mode::<M, R>(layer.reject(connection, &engine::span(), Facts { id, ..Facts::default() }, rejection))
        };
        // This calls the application's scope function, which may reject the request. Without a key it needs no scope.
        let scope = match layer.options.scope_of(&self.parts).map_err(Box::new) {
            Err(rejection) if key_from.is_none() => {
                // No request waits while the service holds something, such as the permit of an inner concurrency limit.
                drop(self);
                return Err(Ok(Box::pin(connection.read_on(body, reject(None, *rejection))).await));
            }
            scope => scope,
        };
        let known = scope.as_ref().ok().and_then(Option::as_ref);
        let path = layer.options.path_of_id(&self.parts);
        // Where no scope says who asks, the credentials do. Those whom the application rejects are one client to the
        // budget.
        let credentials = matches!(scope, Ok(None)).then(|| sameness.credentials.names(&self.parts, header_name));
        let client = sameness.client(&self.parts, known, credentials.as_deref());
        let share = Some(Share::new(&layer.budget, client));
        let mut bounds = Bounds { bytes: *max_request_body, share, ..Bounds::default() };
        // A layer outside may hide from the body's own hint what the head declares.
        let declared = declared_length(&self.parts.headers);
        let collected = match declared {
            Some(declared) if declared > *max_request_body as u64 => too_long(body),
            _ => collect(body, &mut bounds).await,
        };
        let body: Passage<B> = match whole(collected, declared, *max_request_body) {
            Ok(read) => read,
            Err(unread) => {
                let key = self.key.as_ref().filter(|_| scope.is_ok());
                let id = key.and_then(|key| Options::record_id(known, key, path.as_deref()).ok());
                // The inner service and the budget for bodies are free for others while the rest is read on.
                drop((self, bounds));
                return Err(Ok(Box::pin(unread.refused(connection, |rejection| reject(id.as_ref(), rejection))).await));
            }
        };
        let_go_if_reset(self.parts.version, declared).await;
        // It was read by now.
        let data = if let Passage::Whole { data, .. } = &body { data } else { &Bytes::new() };
        let of_header = self.key.take();
        let (reply, key) = self.call_in(of_header, data, connection.is_probe);
        self.reply.clone_from(&reply);
        let rare = reply.map(|reply| Box::new(Rare { reply: Some(reply), asking: None }));
        let reject = |rejection| {
            let rejected = layer.reject(connection, &engine::span(), Facts::default(), rejection);
            in_mode::<M, R>(fitted(rejected, rare.as_deref()))
        };
        let key = match key {
            // `gate/way.rs` has looked at the others.
            Ok(Some(key)) if key_from.is_none() || connection.is_probe || !layer.is_enclosed(&self.parts, &key) => key,
            Ok(key) => {
                // As with a run, the body belongs to the service from here on.
                drop(bounds);
                return Err(Box::pin(self.pass_on(body, key.is_some())).await);
            }
            Err(rejection) => return Err(Ok(reject(*rejection))),
        };
        let found = scope.map_err(|rejection| *rejection).and_then(|scope| {
            let id = Options::record_id(scope.as_ref(), &key, path.as_deref())?;
            Ok((id, scope))
        });
        let (id, scope) = match found {
            Ok(found) => found,
            Err(rejection) => return Err(Ok(reject(rejection))),
        };
        let fingerprint = sameness.fingerprint(&id, &self.parts, data, credentials.as_deref());
        let slots = layer.engine.store.slots();
        // `true` if a run that is still under way has sent this request, by itself or through what it calls.
        let is_within = self.enclosing().is_some_and(|enclosing| enclosing.goes_on_in(slots).next().is_some());
        // What a run sends belongs to that run, which has a place in its client's share.
        let client = (!is_within).then_some(client);
        let exchange = Exchange { request: self, key, body, scope, path, share: bounds.share };
        // The origin is found out before the claim, if the request comes so far: see `Work::origin`.
        let operation = Operation { id, fingerprint, origin: Origin::default() };
        Ok((Box::new(exchange), operation, Caller { client, is_within }, rare))
    }

    /// Returns the exchange whose handler has sent this request.
    fn enclosing(&self) -> Option<&IdempotencyContext> {
        self.parts.extensions.get()
    }
}

/// The work of an exchange is the call of the handler.
impl<S, St, B, M, R, E> Work<RunAnswer<M, R, E>> for Exchange<S, St, M, B>
where
    S: Service<Request<Through<M, B>>, Response = Response<R>, Error = E, Future: Send> + Send + 'static,
    St: Store,
    B: SendBody,
    M: BodyMode<B> + BodyMode<R>,
    R: SendBody,
    E: Send + 'static,
{
    fn origin(&self) -> Option<Origin> {
        Some(origin(&self.request.layer.options, &self.request.parts, self.scope.as_ref()))
    }

    /// Calls the handler, and says how the run ends.
    fn start(self: Box<Self>, context: RunContext) -> BoxFuture<'static, (RunAnswer<M, R, E>, End)> {
        Box::pin(async move {
            // `_service` lives until the answer's body was read, which may depend on the service.
            let (layer, _service, answering, of_call) = {
                let Self { request, key, body, path, share, .. } = *self;
                let Incoming { layer, mut service, mut parts, reply, early, .. } = *request;
                let of_call =
                    (reply.is_some() || early.is_some()).then(|| Box::new((reply, early, context.record_id())));
                // From here on the body belongs to the run, and its part is free for other bodies.
                drop(share);
                let slots = Arc::clone(layer.engine.store.slots());
                let (seen, recorder) = (seen_uri(&parts).clone(), Arc::clone(&layer.options.recorder));
                let answers_retries = layer.engine.policy.answers_retries();
                IdempotencyContext::replace(&mut parts, key, context, slots, (seen, path), recorder, answers_retries);
                let answering = service.call(Request::from_parts(parts, body.into()));
                (layer, service, answering, of_call)
            };
            match answering.await {
                Ok(response) => {
                    let (mut parts, body) = response.into_parts();
                    let (passage, Judged { end, effect, retry }) = take(&layer, &mut parts, body, of_call).await;
                    layer.say_effect(&mut parts, effect, retry, &end);
                    (Ok(Response::from_parts(parts, passage.into())), end)
                }
                Err(error) => {
                    let end = layer.judge().of_error(&error);
                    (Err(error), end)
                }
            }
        })
    }
}

/// Gives an answer of the layer's own what the call of JSON-RPC needs, if it is the answer to one.
#[inline]
fn fitted(answer: WholeAnswer, rare: Option<&Rare>) -> WholeAnswer {
    match rare.and_then(|rare| rare.reply.as_ref()) {
        Some(reply) => reply.fit(answer),
        None => answer,
    }
}

/// Returns the answer to a request that a handler has sent to its own server: its marks are not that handler's own.
pub(super) fn as_of_sub_request<T>(answer: Response<T>) -> Response<T> {
    let (mut parts, body) = answer.into_parts();
    marks::remove(&mut parts.extensions);
    let effect = parts.headers.remove(Effect::HEADER);
    // Passed on, it would say that nothing was done, although the application has had it recorded.
    if effect.is_some_and(|effect| effect.as_bytes().starts_with(b"unknown")) && not_applied::may_say_so(&parts) {
        parts.extensions.insert(Unsure);
    }
    Response::from_parts(parts, body)
}

/// Turns a verdict into the request's answer: the layer's own, or, as the error, what the request's own run has
/// produced. `instead` is what the application has said of a replay, if it was asked.
pub(super) fn answer_of<T, St: Store>(
    layer: &LayerState<St>,
    connection: Connection,
    span: &Span,
    id: &RecordId,
    verdict: Verdict<T>,
    waited: Option<Duration>,
    instead: Option<Instead>,
) -> Result<WholeAnswer, T> {
    let is_of_own_run = verdict.is_of_own_run();
    let attempt = verdict.attempt().cloned();
    let facts = Facts { id: Some(id), attempt: attempt.as_ref(), waited, differs: verdict.differs(), ran: None };
    let rejection = match verdict {
        Verdict::Own(produced) => return Err(produced),
        Verdict::Outcome { outcome, is_own, .. } => match instead.map(|instead| *instead) {
            Some((Replay::Refuse(rejection), _)) => rejection,
            Some((Replay::Replace(answer), trailers)) => {
                let mut answer = (answer, trailers);
                layer.replayed(span, &mut answer, facts);
                return Ok(answer);
            }
            Some((Replay::Give, _)) | None => match layer.recorded_answer(&outcome, id) {
                // It is no replay for the request whose own run has committed the outcome, and has reported itself.
                Ok(mut answer) => {
                    match is_own {
                        true => layer.name(&mut answer, RAN),
                        false => layer.replayed(span, &mut answer, facts),
                    }
                    return Ok(answer);
                }
                Err(rejection) => *rejection,
            },
        },
        Verdict::Unanswered { why, attempt, .. } => {
            reasons::of_unanswered(why, &layer.engine.policy, id, attempt.origin)
        }
    };
    Ok(if is_of_own_run {
        layer.answer_rejection(connection, rejection)
    } else {
        layer.reject(connection, span, facts, rejection)
    })
}

/// Reads the body of the handler's answer, unless the head says how the run ends. Returns the body, and how it ends.
async fn take<R: SendBody, St: Store>(
    layer: &LayerState<St>,
    parts: &mut response::Parts,
    body: R,
    of_call: OfCall,
) -> (Passage<R>, Judged) {
    if let Some(of_call) = of_call {
        return Box::pin(take_of_call(layer, parts, body, *of_call)).await;
    }
    let judge = layer.judge();
    if judge.needs_no_body(parts) {
        return (Passage::Untouched(body), judge.of_answer::<R>(parts, None));
    }
    let collected = collect(Box::pin(body), &mut layer.bounds_of_answer()).await;
    let judged = judge.of_answer(parts, Some(&collected));
    (Passage::from(collected), judged)
}

/// As [`take`], where the answer may be a stream, or belongs to a call of JSON-RPC. A call's answer is read whatever
/// its head says, because an error in it may need the call's `id`.
async fn take_of_call<R: SendBody, St: Store>(
    layer: &LayerState<St>,
    parts: &mut response::Parts,
    body: R,
    (reply, early, id): (Option<Arc<Reply>>, Option<Early>, RecordId),
) -> (Passage<R>, Judged) {
    let judge = layer.judge();
    if let Some(early) = early.filter(|_| judge.is_unmarked_stream(parts)) {
        // It counts what is not recorded, and the events of the service's own.
        parts.headers.remove(CONTENT_LENGTH);
        return layer.stream(parts, body, reply, &id).take(early).await;
    }
    if must_not_be_read(parts) || reply.is_none() && judge.needs_no_body(parts) {
        return (Passage::Untouched(body), judge.of_answer::<R>(parts, None));
    }
    let collected = collect(Box::pin(body), &mut layer.bounds_of_answer()).await;
    let judged = judge.of_answer(parts, Some(&collected));
    let passage = match (collected, reply) {
        (Collected::Whole { data, trailers }, Some(reply)) => {
            Passage::Whole { data: reply.with_own_id(parts, data), trailers }
        }
        (collected, _) => Passage::from(collected),
    };
    (passage, judged)
}
