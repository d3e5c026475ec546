//! The options of a layer, each a method, in the groups of `docs/options.md`. `discovery.rs` and `visibility.rs` have
//! what clients expect and what operators see.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderName, Method, Response};

use super::answer::kept_headers::KeptHeaders;
use super::answer::meaning::Classify;
use super::answer::snapshot::{Recorder, outcome_of_answer};
use super::bodies::body::{AnyBody, SendBody};
use super::fingerprint::identify::FingerprintBody;
use super::key_from::KeyFrom;
use super::layer::IdempotencyLayer;
use super::on_replay::Replay;
use super::options::{Hook, can_be_covered};
use super::reject::rejection::Rejection;
use super::scope::IntoScope;
use crate::engine::{OnInFlight, OnInterrupted, Reconciler};

/// Options. **Every service should think about two: [`scope`](Self::scope), which says whose a key is, and
/// [`on_interrupted`](Self::on_interrupted), which says what a retry gets if it is unknown how the first run ended.**
/// All others have defaults that rarely change. [`guide::options`](mod@crate::guide::options) lists them. If an option
/// is set twice, the last call counts; lists are replaced, not added to.
///
/// # Which requests have a key
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets the methods that are covered, instead of POST and PATCH. To cover DELETE as well, name all three. Safe
    /// methods (GET, HEAD, OPTIONS, TRACE; RFC 9110, section 9.2.1) and CONNECT are never covered, even if they are
    /// named here. Methods are case-sensitive (section 9.1): a request whose method differs from a covered one in the
    /// case of its letters alone, such as `patch`, is refused with 501. Default: POST and PATCH.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        let methods = methods.into_iter().filter(can_be_covered).collect();
        self.with(|options| options.methods = methods)
    }

    /// Sets which requests are covered, of those with a covered method. The others pass through untouched. On a nested
    /// router, axum has cut the prefix from `parts.uri`; `axum::extract::OriginalUri` among the extensions has the path
    /// that the client sent. Default: all.
    pub fn covers(self, covers: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|options| options.covers = Some(Hook(Arc::new(covers))))
    }

    /// Sets whether requests without a key are refused (400 `key-missing`). Then every request is covered whose method
    /// is neither safe nor CONNECT, whatever [`methods`](Self::methods) names, unless [`covers`](Self::covers) leaves
    /// it out. Default: false; covered requests without a key pass through.
    pub fn require_key(self, require: bool) -> Self {
        self.with(|options| options.require_key = require)
    }

    /// Sets whether only keys in double quotes are taken, which are structured-field Strings. Default: false; keys
    /// without quotes are taken too.
    pub fn strict_keys(self, strict: bool) -> Self {
        self.with(|options| options.strict_keys = strict)
    }

    /// Sets the header that carries the key. Default: `Idempotency-Key`.
    pub fn header_name(self, name: HeaderName) -> Self {
        self.with(|options| options.header_name = name)
    }

    /// Sets where the body of a request may have its key: for AdCP, AIP-155, JSON-RPC, MCP, and forms of a browser. A
    /// request without the header has the key that is found there. One with both has to have the same key in both (422
    /// `key-reused`). A retry has to be the same request, as with a key in the header: see
    /// [`FingerprintBody::json_without`] for members that each try has anew.
    ///
    /// The body of each [covered](Self::covers) request is read before the application has it, within
    /// [`max_request_body`](Self::max_request_body) and [`max_buffered`](Self::max_buffered), for only the body says
    /// whether there is a key. One that is too long is refused (413 `body-too-large`), and so is one in which a key
    /// can't be looked for (400 `key-malformed`). So put the layer around the routes of that protocol alone, and set
    /// [`require_key`](Self::require_key) if each of its calls has a key. Default: none; only the header has the key.
    /// ```
    /// use tower_idempotency::server::KeyFrom;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new())
    ///     .key_from(KeyFrom::json_pointer("/params/_meta/key")?)
    ///     .require_key(true);
    /// # let _ = layer;
    /// # Ok::<(), tower_idempotency::server::NotAPlace>(())
    /// ```
    pub fn key_from(self, place: KeyFrom) -> Self {
        self.with(|options| options.key_from = Some(place))
    }

    /// Sets the header that marks a replay. Its value is `true`. Default: `Idempotent-Replayed`.
    pub fn replay_header_name(self, name: HeaderName) -> Self {
        self.with(|options| Arc::make_mut(&mut options.recorder).replay_header_name = name)
    }
}

/// # Which requests are the same
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets the function that says to whom a key belongs: the account, tenant or principal, as some layer outside has
    /// established it. The function returns a [`Scope`](crate::Scope), an `Option` of one, or a `Result` of either. If
    /// it returns a rejection, the request is answered with that. Default: no scope. Without one, the request's
    /// credentials ([`CREDENTIAL_HEADERS`](super::CREDENTIAL_HEADERS)) must be the same in a retry.
    /// [`guide::security`](mod@crate::guide::security#scope) says when to set it.
    /// ```
    /// use http::StatusCode;
    /// use http::request::Parts;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, Scope};
    ///
    /// /// An authentication layer outside puts it into the request's extensions.
    /// #[derive(Clone)]
    /// struct Account(String);
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).scope(|parts: &Parts| {
    ///     let Some(Account(id)) = parts.extensions.get() else {
    ///         return Err(Rejection::from(StatusCode::UNAUTHORIZED));
    ///     };
    ///     Ok(Scope::new(id)?)
    /// });
    /// ```
    pub fn scope<T: IntoScope>(self, scope: impl Fn(&Parts) -> T + Send + Sync + 'static) -> Self {
        self.with(|options| options.scope = Some(Hook(Arc::new(move |parts| scope(parts).into_scope()))))
    }

    /// Sets headers that say who asks, besides [`CREDENTIAL_HEADERS`](super::CREDENTIAL_HEADERS). Where no
    /// [`scope`](Self::scope) says whose a key is, a request with another value is another client's (422
    /// `credentials-changed`), and so is one that is compared with a record made with other names. Default: none.
    pub fn credential_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|options| options.sameness.credentials.of_headers(names))
    }

    /// Sets which cookies say who asks, by their exact names: those that hold sessions. **The others do not count, so a
    /// name that is missing lets one client read another's answer.** A request that is compared with a record that was
    /// made with other names counts as another client's. It has no effect on requests with a [`scope`](Self::scope).
    /// Default: all cookies but [`IGNORED_COOKIES`](super::IGNORED_COOKIES).
    pub fn credential_cookies(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|options| options.sameness.credentials.of_cookies(names))
    }

    /// Sets headers that must be equal in a retry, in addition to method, host, path, query, content type and body:
    /// those that say whose data is meant, such as `Stripe-Account`. A request with another value is another request
    /// (422 `key-reused`). Records made with other names can't be compared (409 `not-verifiable`). Default: none.
    pub fn fingerprint_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|options| options.sameness.of_headers(names))
    }

    /// Sets how bodies are compared. Records that were made with another setting can't be compared (409
    /// `not-verifiable`). Default: [`FingerprintBody::Bytes`].
    pub fn fingerprint_body(self, body: FingerprintBody) -> Self {
        self.with(|options| options.sameness.of_body(body))
    }
}

/// # What a retry gets
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets what a duplicate gets while the first request still runs. Default: it waits for two seconds.
    pub fn on_in_flight(self, policy: OnInFlight) -> Self {
        self.with(|options| options.policy.on_in_flight = policy)
    }

    /// Sets what a retry gets when the run before it was interrupted. Of this and
    /// [`reconcile_with`](Self::reconcile_with), the last call counts. Default: [`OnInterrupted::Refuse`].
    pub fn on_interrupted(self, on_interrupted: OnInterrupted) -> Self {
        self.with(|options| {
            options.reconcile = None;
            options.policy.set_on_interrupted(on_interrupted);
        })
    }

    /// Sets the reconciler, which is asked about an interrupted run when its request is sent again. The request is
    /// refused (`outcome-unknown`) if the reconciler does not know. The answer that the reconciler gives is recorded
    /// and replayed like a handler's. Its body is read as a handler's is; an answer whose body fails, or is longer than
    /// [`max_response_body`](Self::max_response_body), counts as unknown. Default: there is no reconciler.
    ///
    /// The same key and the same request, sent again after the [`retention`](Self::retention), are another operation
    /// with the same derived key. What the reconciler finds is of this operation if it is no older than
    /// [`began`](crate::store::InterruptedRun::began) minus half of the retention.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # use std::time::{Duration, SystemTime};
    /// use axum::response::{IntoResponse as _, Response};
    /// use tower_idempotency::clock::Timestamp;
    /// use tower_idempotency::engine::{Reconciled, Reconciler};
    /// use tower_idempotency::store::InterruptedRun;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
    /// # struct Charge { at: SystemTime, receipt: String }
    /// # async fn look_up(key: &str) -> Result<Option<Charge>, std::io::Error> { Ok(None) }
    /// let reconciler = Reconciler::<Response>::new(|run: InterruptedRun| async move {
    ///     let Some(key) = run.derived_key("charge") else { return Reconciled::StillUnknown };
    ///     let is_earlier = |at| Timestamp::from(at).plus(RETENTION / 2) < run.began;
    ///     match look_up(&key).await {
    ///         Ok(Some(charge)) if is_earlier(charge.at) => Reconciled::StillUnknown,
    ///         Ok(Some(charge)) => Reconciled::Outcome(charge.receipt.into_response()),
    ///         Ok(None) => Reconciled::RunAgain, // only because this provider cannot still be charging
    ///         Err(_) => Reconciled::StillUnknown,
    ///     }
    /// });
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).retention(RETENTION).reconcile_with(reconciler);
    /// # let _ = layer;
    /// # }
    /// ```
    pub fn reconcile_with<B: SendBody>(self, reconciler: Reconciler<Response<B>>) -> Self {
        self.with(|options| {
            // The recorder is an argument, because options that are set later may change it.
            let recording = move |recorder: &Arc<Recorder>| {
                let recorder = Arc::clone(recorder);
                reconciler.map(move |answer| outcome_of_answer(Arc::clone(&recorder), answer))
            };
            options.reconcile = Some(Hook(Arc::new(recording)));
        })
    }

    /// Sets the function that is asked before a recorded answer is given again: to a retry, and to a request that has
    /// waited for the run of another one. It has the head of that request, and the recorded answer, whose trailers it
    /// does not see. It returns what the request gets; the record stays. If it panics, takes longer than 5 seconds, or
    /// returns what can't be sent, the request is refused with 503, and may be sent again. A request that goes away
    /// ends the question. Default: none; each replay is given.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use http::StatusCode;
    /// use tower_idempotency::server::Replay;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection};
    /// # async fn may_read(account: Option<&http::HeaderValue>) -> bool { account.is_some() }
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).on_replay(|parts, _stored| async move {
    ///     // The grant may have been revoked since the first request.
    ///     match may_read(parts.headers.get("authorization")).await {
    ///         true => Replay::Give,
    ///         false => Replay::Refuse(Rejection::from(StatusCode::FORBIDDEN)),
    ///     }
    /// });
    /// # let _ = layer;
    /// # }
    /// ```
    pub fn on_replay<F>(self, ask: impl Fn(Parts, Response<Bytes>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Replay> + Send + 'static,
    {
        self.with(|options| options.on_replay = Some(Hook(Arc::new(move |parts, stored| Box::pin(ask(parts, stored))))))
    }

    /// Sets the function that decides what an unmarked answer means, and what an error of the inner service means: that
    /// it is a final outcome, that nothing happened, or that the effect is unknown. An answer is unmarked if the
    /// handler has not marked it as [`Keep`](crate::Keep), [`Release`](crate::Release), [`Secret`](crate::Secret) or
    /// [`Unsure`](crate::Unsure). A closure `|parts: &Parts, trailers: Option<&HeaderMap>|` that returns an `Option` of
    /// a [`Meaning`](crate::Meaning) is enough; `None` leaves the answer to the default. Default: what the
    /// [`profile`](Self::profile) says of a 5xx, else [`Meaning::of_answer`](crate::Meaning::of_answer), and under
    /// [`OnInterrupted::Rerun`] [`Meaning::of_answer_under_rerun`](crate::Meaning::of_answer_under_rerun); errors are
    /// unknown.
    pub fn classify(self, classify: impl Classify) -> Self {
        self.with(|options| options.classify = Some(Hook(Arc::new(classify))))
    }
}

/// # How long and how much
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets how long an outcome is replayed, counted from its completion. **A retry that comes later runs again**,
    /// unless [`outcome_retention`](Self::outcome_retention) is longer, so this has to be longer than any client goes
    /// on retrying; with zero, only duplicates that come during the run get its answer. A [`profile`](Self::profile)
    /// may have a least one. Default: 24 hours.
    pub fn retention(self, retention: Duration) -> Self {
        self.with(|options| options.policy.retention = retention)
    }

    /// Sets how long it is remembered that an operation is done, counted from its completion, if that is longer than
    /// [`retention`](Self::retention). Between the two, a retry gets 409 `not-replayable` with the answer's status, and
    /// does not run. The layer that meets a record judges by its own present `retention`. The answers leave the store
    /// when [`forget_answers`](crate::operations::Operator::forget_answers) is called. Default: the same as
    /// `retention`.
    pub fn outcome_retention(self, retention: Duration) -> Self {
        self.with(|options| options.policy.outcome_retention = Some(retention))
    }

    /// Sets how long an interrupted operation is kept, from when the interruption was noticed. Default: 30 days.
    pub fn interrupted_retention(self, retention: Duration) -> Self {
        self.with(|options| options.policy.interrupted_retention = retention)
    }

    /// Sets how long a handler may run, its answer's body included. Default: 10 minutes.
    pub fn max_run(self, max_run: Duration) -> Self {
        self.with(|options| options.policy.max_run = max_run)
    }

    /// Sets the most runs that are under way at once over this store. More new keys are refused (503 `overloaded`). One
    /// client may have at most half of those that are free, so one alone may have half of them. A client is a
    /// [`scope`](Self::scope), or the credentials where there is no scope; all requests without either are one client.
    /// Replays and waiting duplicates are not counted. Default: 16,384.
    pub fn max_runs(self, runs: usize) -> Self {
        self.with(|options| options.policy.max_runs = runs)
    }

    /// Sets the most bytes of a request's body. Default: 1 MiB.
    pub fn max_request_body(self, bytes: usize) -> Self {
        self.with(|options| options.max_request_body = bytes)
    }

    /// Sets the most bytes of all request bodies that this layer reads at once. More are refused (503 `overloaded`). A
    /// quarter is for bodies up to 64 KiB alone, and a quarter for longer ones. Of either kind, one client may have at
    /// most half of what is free, unless it has no other body; a client is the same as for
    /// [`max_runs`](Self::max_runs). A body counts from its first byte until its run takes it over, or the request is
    /// refused or answered. Default: 256 MiB.
    pub fn max_buffered(self, bytes: usize) -> Self {
        self.with(|options| options.max_buffered = bytes)
    }

    /// Sets the most bytes of an answer's body that are recorded.
    /// [A longer one](mod@crate::guide::answers#how-a-run-ends) is not replayed. Default: 1 MiB.
    pub fn max_response_body(self, bytes: usize) -> Self {
        self.with(|options| Arc::make_mut(&mut options.recorder).max_response_body = bytes)
    }

    /// Sets how long an answer's body may take to be complete. [A slower one](mod@crate::guide::answers#how-a-run-ends)
    /// is not replayed. Default: 10 seconds.
    pub fn outcome_body_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.outcome_body_timeout = timeout)
    }
}

/// # How answers look
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets which headers of an answer are replayed. Default: those that [`KeptHeaders`] keeps by default.
    pub fn kept_headers(self, kept: KeptHeaders) -> Self {
        self.with(|options| Arc::make_mut(&mut options.recorder).kept_headers = kept)
    }

    /// Sets the beginning of every problem's `type`. Default: [`problem`](crate::problem) in the documentation.
    pub fn problem_base(self, base: impl Into<String>) -> Self {
        self.with(|options| options.problem_base = base.into().into())
    }

    /// Sets the function that builds the response for a rejection. `Retry-After` is set whatever the function returns,
    /// if the rejection has one. gRPC calls get the function's response, too. Default: the form of the
    /// [`profile`](Self::profile), and for gRPC calls a status in their own form.
    pub fn render_rejection(self, render: impl Fn(&Rejection) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        self.with(|options| options.render_rejection = Some(Hook(Arc::new(render))))
    }
}

/// # When the store is away
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets whether handlers run without protection while the store cannot be reached, if nothing is known of their
    /// key. Each such run is counted, and its end is recorded as soon as the store can be reached. **Until
    /// then, a retry is a second effect, if it reaches another process or this one after a restart.** Default: false;
    /// the requests are refused.
    pub fn fail_open(self, fail_open: bool) -> Self {
        self.with(|options| options.policy.fail_open = fail_open)
    }
}

/// # What surrounds a run
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets the body mode to `AnyBody`, which carries every body. Use it where the request's body or the answer's is
    /// not axum's: in a plain Tower stack, on a hyper server, around tonic's routes. A body `B` comes out as
    /// [`ReplayBody<B>`](super::ReplayBody), so the inner service takes a `Request<ReplayBody<B>>` and the layer's
    /// answer has a `ReplayBody`, too.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore, server::ReplayBody};
    ///
    /// async fn charge(_: Request<ReplayBody<Full<Bytes>>>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    ///     Ok(Response::new("charged".into()))
    /// }
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).any_body();
    /// let service = ServiceBuilder::new().layer(layer).service(service_fn(charge));
    /// # let _ = tower::ServiceExt::oneshot(service, Request::new(Full::default()));
    /// # }
    /// ```
    pub fn any_body(self) -> IdempotencyLayer<St, AnyBody> {
        self.in_mode()
    }

    /// Sets the function that each run's future passes through before it is spawned. It is called in the requester's
    /// task, so that it can carry task-locals over. If the future is dropped before its first poll, the run never
    /// began. If it is dropped later, the run is interrupted. If it is dropped while its outcome is being written, this
    /// process refuses the key until the retention is over or it restarts. Default: none.
    pub fn wrap_run<F>(self, wrap: impl Fn(BoxFuture<'static, ()>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.with(|options| options.wrap_run = Some(Hook(Arc::new(move |run| Box::pin(wrap(run))))))
    }
}
