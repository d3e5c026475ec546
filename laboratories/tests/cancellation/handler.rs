//! The handler of one key, and its acts.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::response::IntoResponse as _;
use futures_util::StreamExt as _;
use http::{HeaderName, Request, Response, header};
use testkit::history::{ClientAnswer, History};
use testkit::{Answer, Gate};
use tokio::task::yield_now;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::Abort;
use tower_idempotency::{AnyStore, IdempotencyContext, IdempotencyLayer, OnInterrupted, Release};

use crate::home::Home;
use crate::point::{Point, Run};

pub(crate) type Layer = IdempotencyLayer<AnyStore>;
pub(crate) type App = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// The header that names the kind of an answer that is no outcome.
const NO_OUTCOME: HeaderName = HeaderName::from_static("x-no-outcome");

/// An act of the handler in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Answer,
    /// Answers once the gate is open.
    AtGate,
    /// Answers chunk by chunk.
    Chunks,
    /// Commits effect and answer together.
    Commit,
    /// Returns a release: nothing happened.
    Release,
    Panic,
    /// Panics after its effect.
    LatePanic,
    Fail,
    Hang,
    /// Answers with a body that can't be recorded.
    Stream,
    /// Answers with a body longer than `max_response_body` is in these tests.
    Long,
    /// Answers under `fail_open`, before its outcome is recorded.
    FailOpen,
}

impl Act {
    /// Returns whether the act has an effect that the store does not know of.
    fn has_effect(self) -> bool {
        matches!(self, Self::Answer | Self::AtGate | Self::Chunks | Self::LatePanic | Self::Stream | Self::Long)
    }
}

/// The treatment of a retry after an interrupted run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Refuse,
    Rerun,
    Reconcile,
}

impl Policy {
    pub(crate) const ALL: [Self; 3] = [Self::Refuse, Self::Rerun, Self::Reconcile];
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// There is no run yet.
    Asking,
    Claiming,
    Running,
    /// The handler is done.
    Recording,
    Over,
}

/// A handler that follows its script, call by call, and repeats the script's last act.
#[derive(Clone)]
pub(crate) struct Handler {
    key: String,
    script: &'static [Act],
    history: History,
    calls: Arc<Calls>,
    pub(crate) gate: Gate,
}

#[derive(Debug, Default)]
struct Calls {
    begun: AtomicUsize,
    ended: AtomicUsize,
    effects: AtomicUsize,
}

impl Handler {
    pub(crate) fn new(key: &str, script: &'static [Act], history: &History) -> Self {
        let (key, history, calls, gate) = (key.to_owned(), history.clone(), Arc::default(), Gate::default());
        Self { key, script, history, calls, gate }
    }

    /// Returns how often the handler was called.
    pub(crate) fn begun(&self) -> usize {
        self.calls.begun.load(Ordering::SeqCst)
    }

    /// Returns how often the handler finished its act.
    pub(crate) fn ended(&self) -> usize {
        self.calls.ended.load(Ordering::SeqCst)
    }

    /// Returns the number of effects that the store does not know of.
    pub(crate) fn effects(&self) -> usize {
        self.calls.effects.load(Ordering::SeqCst)
    }

    /// Returns the progress of the run at `point`, if `before` calls had begun before it.
    pub(crate) fn phase(&self, point: &Point, before: usize) -> Phase {
        match (point.run(), self.begun(), self.ended()) {
            (Run::None, ..) => Phase::Asking,
            (Run::Over, ..) => Phase::Over,
            (Run::Begun, begun, _) if begun == before => Phase::Claiming,
            (Run::Begun, begun, ended) if begun > ended => Phase::Running,
            (Run::Begun, ..) => Phase::Recording,
        }
    }

    pub(crate) fn behind(&self, layer: Layer, home: &Home) -> App {
        let (handler, home) = (self.clone(), home.clone());
        let inner = service_fn(move |mut request: Request<Body>| {
            let context = request.extensions_mut().remove().expect("the layer has put it there");
            handler.clone().act(context, home.clone())
        });
        BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(inner))
    }

    /// Sets the policy for the handler's key. The reconciler checks whether an interrupted run had its effect.
    pub(crate) fn set_policy(&self, layer: Layer, policy: Policy) -> Layer {
        let handler = self.clone();
        let look = move |_| {
            let handler = handler.clone();
            async move {
                yield_now().await;
                match handler.effects() {
                    0 => Reconciled::RunAgain,
                    _ => Reconciled::Outcome(Response::new("looked up".into())),
                }
            }
        };
        match policy {
            Policy::Refuse => layer.on_interrupted(OnInterrupted::Refuse),
            Policy::Rerun => layer.on_interrupted(OnInterrupted::Rerun),
            Policy::Reconcile => layer.reconcile_with(Reconciler::<Response<Body>>::new(look)),
        }
    }

    async fn act(self, context: IdempotencyContext, home: Home) -> Result<Response<Body>, BoxError> {
        let number = self.calls.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let act = self.script.get(number - 1).copied().unwrap_or(Act::Answer);
        yield_now().await;
        if act.has_effect() {
            self.calls.effects.fetch_add(1, Ordering::SeqCst);
            self.history.effect(&self.key);
        }
        yield_now().await;
        if act == Act::AtGate {
            self.gate.pass().await;
        }
        if act == Act::Commit {
            let answer = commit(&context, &home, &self.key, number).await?;
            self.calls.ended.fetch_add(1, Ordering::SeqCst);
            return Ok(answer);
        }
        self.calls.ended.fetch_add(1, Ordering::SeqCst);
        give(act, number).await
    }
}

async fn give(act: Act, number: usize) -> Result<Response<Body>, BoxError> {
    let text = format!("run {number}");
    Ok(match act {
        Act::Chunks => chunks(&["run ", &number.to_string(), ", chunk by chunk"]).into_response(),
        Act::Release => (Release, [(NO_OUTCOME, "released")], text).into_response(),
        // This leaves out the panic's message, which would be in the log hundreds of times.
        Act::Panic | Act::LatePanic => std::panic::resume_unwind(Box::new("on purpose")),
        Act::Fail => return Err("on purpose".into()),
        Act::Hang => std::future::pending().await,
        Act::Stream => {
            let stream = [(header::CONTENT_TYPE, "text/event-stream"), (NO_OUTCOME, "passed-on")];
            (stream, chunks(&["data: 1\n\n", "data: 2\n\n"])).into_response()
        }
        Act::Long => ([(NO_OUTCOME, "passed-on")], "x".repeat(100)).into_response(),
        Act::FailOpen => ([(NO_OUTCOME, "fail-open")], text).into_response(),
        Act::Answer | Act::AtGate | Act::Commit => text.into_response(),
    })
}

/// Commits effect and answer in one transaction. The effect's row has a key of its own, and the operation's key as its
/// value.
async fn commit(
    context: &IdempotencyContext,
    home: &Home,
    key: &str,
    number: usize,
) -> Result<Response<Body>, BoxError> {
    let effects = home.effects().ok_or("only embedded stores commit")?;
    let (row, key) = (format!("{key}, effect {number}"), key.to_owned());
    let committed = effects.complete(context, move |effects| {
        effects.insert(row.as_bytes(), key.as_bytes())?;
        Ok::<_, Abort<Infallible>>(Response::new(format!("run {number}").into()))
    });
    Ok(committed.await?.answer().map(Into::into))
}

/// Returns a body that comes in chunks, and yields before each of them.
pub(crate) fn chunks(chunks: &[&str]) -> Body {
    let chunks: Vec<_> = chunks.iter().copied().map(str::to_owned).collect();
    Body::from_stream(futures_util::stream::iter(chunks).then(|chunk| async move {
        yield_now().await;
        Ok::<_, BoxError>(chunk)
    }))
}

/// Reads an answer to its end, and returns it as the history has it.
pub(crate) async fn told(answered: Result<Response<Body>, BoxError>) -> ClientAnswer {
    let Ok(response) = answered else { return ClientAnswer::Nothing };
    let answer = Answer::of(response).await;
    match answer.header(NO_OUTCOME.as_str()) {
        Some(name) => ClientAnswer::refused(name),
        None => ClientAnswer::of(&answer),
    }
}
