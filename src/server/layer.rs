//! The layer: a store, and how it is used.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode};
use tower_layer::Layer;

use super::kept::KeptHeaders;
use super::options::{OptionLine, Options};
use super::policy::Started;
use super::rejection::Rejection;
use super::service::IdempotencyService;
use super::shared::Shared;
use crate::engine::{Counts, OnInFlight, OnInterrupted, Reconciliation};
use crate::key::{RecordId, Scope};
use crate::record::{Fence, Resolution, Settled};
use crate::store::{InterruptedRecord, Store, StoreError};

/// Makes retried requests safe: the first request with a key runs, the others get its answer.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use axum::{Router, routing::post};
/// use tower_idempotency::{IdempotencyLayer, MemoryStore};
///
/// let app: Router = Router::new()
///     .route("/charges", post(|| async { "charged" }))
///     .layer(IdempotencyLayer::new(MemoryStore::new()));
/// # }
/// ```
/// Clones share the store. Layers over one store, with the same or other options, know each other's runs.
pub struct IdempotencyLayer<St> {
    shared: Arc<Shared<St>>,
}

/// What an operator says of an interrupted operation.
#[derive(Debug)]
pub enum Resolve {
    /// It took place; retries get this answer, as long as any other.
    Answer(Response<Bytes>),
    /// It did not take place, or may take place again: the key is free, and the next run is told of no earlier one.
    Forget,
}

impl<St: Store> IdempotencyLayer<St> {
    /// A layer over `store` with the default options.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self { shared: Arc::new(Shared::new(Arc::new(store), Options::default())) }
    }
}

/// Options. Each has its default in the README's table.
impl<St> IdempotencyLayer<St> {
    /// The header that carries the key. Default: `Idempotency-Key`.
    #[must_use]
    pub fn header_name(self, name: HeaderName) -> Self {
        self.with(|options| options.header_name = name)
    }

    /// The header, with the value `true`, that marks a replay. Default: `Idempotent-Replayed`.
    #[must_use]
    pub fn replay_header_name(self, name: HeaderName) -> Self {
        self.with(|options| options.replay_header_name = name)
    }

    /// The methods that are covered. Safe methods (GET, HEAD, OPTIONS, TRACE; RFC 9110, section 9.2.1) and CONNECT never
    /// are, whether named here or not. Default: POST and PATCH.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        let can_be_covered = |method: &Method| !method.is_safe() && *method != Method::CONNECT;
        let methods = methods.into_iter().filter(can_be_covered).collect();
        self.with(|options| options.methods = methods)
    }

    /// Which requests of these methods are covered; the others pass through untouched. Default: all.
    #[must_use]
    pub fn covers(self, covers: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|options| options.covers = Some(Arc::new(covers)))
    }

    /// Refuses covered requests without a key (400 `key-missing`). Default: they pass through.
    #[must_use]
    pub fn require_key(self, require: bool) -> Self {
        self.with(|options| options.require_key = require)
    }

    /// Takes only keys that are structured-field Strings, in double quotes. Default: bare ones too.
    #[must_use]
    pub fn strict_keys(self, strict: bool) -> Self {
        self.with(|options| options.strict_keys = strict)
    }

    /// Whose a key is: the account, tenant or principal, as some layer outside has established it. What it refuses is
    /// refused. Default: no scope; then the request's credentials (`Authorization`, `Cookie`, `X-Api-Key`,
    /// `Proxy-Authorization`) must be the same in a retry.
    ///
    /// Set it where clients authenticate otherwise (mTLS, signatures that change with each try), where they refresh
    /// tokens between tries, and where two clients may choose the same key.
    #[must_use]
    pub fn scope(self, scope: impl Fn(&Parts) -> Result<Scope, Rejection> + Send + Sync + 'static) -> Self {
        self.with(|options| options.scope = Some(Arc::new(scope)))
    }

    /// What a duplicate gets while the first still runs. Default: wait two seconds.
    #[must_use]
    pub fn on_in_flight(self, policy: OnInFlight) -> Self {
        self.with(|options| options.policy.on_in_flight = policy)
    }

    /// What a retry gets when the run before it was cut short. Default: [`OnInterrupted::Refuse`]. A reconciler's answer that
    /// is longer than [`max_response_body`](Self::max_response_body) counts as unknown.
    #[must_use]
    pub fn on_interrupted(self, policy: OnInterrupted<Response<Bytes>>) -> Self {
        self.with(|options| options.on_interrupted = policy)
    }

    /// Statuses with which this application says, always, that nothing happened: their answers free the key. Default:
    /// none.
    #[must_use]
    pub fn not_started(self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.with(|options| options.not_started = statuses.into_iter().collect())
    }

    /// How long an outcome is replayed, from completion. Default: 24 hours.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        self.with(|options| options.policy.retention = retention)
    }

    /// How long an operation that was cut short is refused, from when that was first seen. Default: 30 days.
    #[must_use]
    pub fn interrupted_retention(self, retention: Duration) -> Self {
        self.with(|options| options.policy.interrupted_retention = retention)
    }

    /// How long a handler may run, its answer's body included. Default: 10 minutes.
    #[must_use]
    pub fn max_run(self, max_run: Duration) -> Self {
        self.with(|options| options.policy.max_run = max_run)
    }

    /// The most bytes of a request's body. Default: 1 MiB.
    #[must_use]
    pub fn max_request_body(self, bytes: usize) -> Self {
        self.with(|options| options.max_request_body = bytes)
    }

    /// The most bytes of an answer's body that are recorded; a longer one is passed on whole, and its retries are refused.
    /// Default: 1 MiB.
    #[must_use]
    pub fn max_response_body(self, bytes: usize) -> Self {
        self.with(|options| options.max_response_body = bytes)
    }

    /// How long an answer's body may take to be complete; a slower one is passed on whole, and its retries are refused.
    /// Default: 10 seconds.
    #[must_use]
    pub fn outcome_body_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.outcome_body_timeout = timeout)
    }

    /// Which headers of an answer are replayed. Default: [`KeptHeaders`]' standard.
    #[must_use]
    pub fn kept_headers(self, kept: KeptHeaders) -> Self {
        self.with(|options| options.kept_headers = kept)
    }

    /// Runs handlers without protection while the store is away, if nothing is known of their key. Each is counted and
    /// logged. **A retry of such a request is a second effect.** Default: false; they are refused.
    #[must_use]
    pub fn fail_open(self, fail_open: bool) -> Self {
        self.with(|options| options.policy.fail_open = fail_open)
    }

    /// The beginning of every problem's `type`. Default: [`problem`](crate::problem) in this crate's documentation.
    #[must_use]
    pub fn problem_base(self, base: impl Into<String>) -> Self {
        self.with(|options| options.problem_base = base.into())
    }

    /// How refusals read. Default: [`Rejection::render`].
    #[must_use]
    pub fn render_rejection(self, render: impl Fn(&Rejection) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        self.with(|options| options.render_rejection = Some(Arc::new(render)))
    }

    /// Whether an error of the inner service means that nothing happened. `E` is the inner service's error; an error of
    /// another type counts as [`Started::Unknown`]. Default: all do.
    #[must_use]
    pub fn classify_error<E: 'static>(self, classify: impl Fn(&E) -> Started + Send + Sync + 'static) -> Self {
        let classify = move |error: &dyn Any| error.downcast_ref().map_or(Started::Unknown, &classify);
        self.with(|options| options.classify_error = Some(Arc::new(classify)))
    }

    /// What a run's future passes through before it is spawned. It is called in the requester's task, so that it can
    /// carry task-locals over. A future that it drops before its first poll is a run that never began; one that it drops
    /// later is cut short, and if that was while its end was being recorded, this process refuses the key from then on.
    /// Default: nothing.
    #[must_use]
    pub fn wrap_run<F>(self, wrap: impl Fn(BoxFuture<'static, ()>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.with(|options| options.wrap_run = Some(Arc::new(move |run| Box::pin(wrap(run)))))
    }

    fn with(self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = self.shared.options.clone();
        change(&mut options);
        Self { shared: Arc::new(Shared::new(Arc::clone(&self.shared.engine.store), options)) }
    }

    /// All options as they are set, in the order of the README's table.
    #[must_use]
    pub fn describe(&self) -> Vec<OptionLine> {
        self.shared.options.describe()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.shared.engine.store
    }
}

/// For operators.
impl<St: Store> IdempotencyLayer<St> {
    /// Refuses new keys from now on (503 `shutting-down`; replays are still given), waits at most `deadline` for the runs
    /// under way, on all layers over this store, and says how many are left.
    ///
    /// New keys stay refused for as long as the store is open.
    ///
    /// # Cancel safety
    /// If the future is dropped, nobody waits any more, and new keys are refused all the same.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.shared.engine.drain(deadline).await
    }

    /// The operations that were cut short, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`]: the store is away, or a record damaged.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn interrupted(&self, limit: usize) -> Result<Vec<InterruptedRecord>, StoreError> {
        self.shared.engine.store.interrupted(limit).await
    }

    /// Settles an operation that was cut short, as [`interrupted`](Self::interrupted) lists it. [`Settled::Superseded`]
    /// where it no longer is, runs again, was asked about since, which takes a new fence, or where a request for it is just
    /// being answered.
    ///
    /// # Errors
    /// [`StoreError`]: the store is away, or the answer can't be stored. [`Uncertain`](StoreError::Uncertain) after at most
    /// 5 s without an answer: it may still take place, and until the store has said, requests for the operation are
    /// refused.
    ///
    /// # Cancel safety
    /// If the future was polled and is dropped, the operation is settled all the same.
    pub async fn resolve(&self, id: RecordId, fence: Fence, resolve: Resolve) -> Result<Settled, StoreError> {
        let options = &self.shared.options;
        let resolution = match resolve {
            Resolve::Forget => Resolution::Forget,
            Resolve::Answer(response) => {
                let outcome = self.shared.recorder.record(&response);
                let outcome =
                    outcome.ok_or_else(|| StoreError::unavailable("the answer is longer than max_response_body"))?;
                Resolution::Outcome { outcome, retention: options.policy.retention }
            }
        };
        self.shared.engine.resolve(id, fence, resolution).await
    }

    /// Asks the reconciler about all operations that were cut short, without waiting for their clients, and settles those
    /// whose outcome it knows: at the start of a process, say. Nothing under another policy than
    /// [`OnInterrupted::Reconcile`].
    ///
    /// # Errors
    /// [`StoreError`]: the operations can't be listed. Those whose own records fail count as unknown.
    ///
    /// # Cancel safety
    /// A question that was asked is seen through if the future is dropped; no further ones are asked.
    pub async fn reconcile_all(&self) -> Result<Reconciliation, StoreError> {
        self.shared.engine.reconcile_all().await
    }

    /// What this process has counted over this store.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.engine.counts()
    }
}

impl<S, St: Store> Layer<S> for IdempotencyLayer<St> {
    type Service = IdempotencyService<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService::new(inner, Arc::clone(&self.shared))
    }
}

impl<St> Clone for IdempotencyLayer<St> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<St: fmt::Debug> fmt::Debug for IdempotencyLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { engine, options, .. } = &*self.shared;
        f.debug_struct("IdempotencyLayer").field("store", &engine.store).field("options", options).finish()
    }
}
