//! The options that many services need: the second section of `docs/options.md`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Method, Response};

use super::layer::IdempotencyLayer;
use crate::engine::OnInFlight;
use crate::server::answer::kept_headers::KeptHeaders;
use crate::server::answer::meaning::Classify;
use crate::server::bodies::body::AnyBody;
use crate::server::fingerprint::identify::FingerprintBody;
use crate::server::key_from::KeyFrom;
use crate::server::on_replay::Replay;
use crate::server::options::{Hook, can_be_covered};
use crate::server::profile::Profile;
use crate::server::reject::rejection::Rejection;

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
}

/// # Which requests are the same
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets headers that say who asks, besides [`CREDENTIAL_HEADERS`](crate::server::CREDENTIAL_HEADERS). Where no
    /// [`scope`](Self::scope) says whose a key is, a request with another value is another client's (422
    /// `credentials-changed`), and so is one that is compared with a record made with other names. Default: none.
    pub fn credential_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|options| options.sameness.credentials.of_headers(names))
    }

    /// Sets which cookies say who asks, by their exact names: those that hold sessions. **The others do not count, so a
    /// name that is missing lets one client read another's answer.** A request that is compared with a record that was
    /// made with other names counts as another client's. It has no effect on requests with a [`scope`](Self::scope).
    /// Default: all cookies but [`IGNORED_COOKIES`](crate::server::IGNORED_COOKIES).
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

    /// Sets the function that decides what an unmarked answer means, and what an error of the inner service means: that
    /// it is a final outcome, that nothing happened, or that the effect is unknown. An answer is unmarked if the
    /// handler has not marked it as [`Keep`](crate::Keep), [`Release`](crate::Release), [`Secret`](crate::Secret) or
    /// [`Unsure`](crate::Unsure). A closure `|parts: &Parts, trailers: Option<&HeaderMap>|` that returns an `Option` of
    /// a [`Meaning`](crate::Meaning) is enough; `None` leaves the answer to the default. Default: what the
    /// [`profile`](Self::profile) says of a 5xx, else [`Meaning::of_answer`](crate::Meaning::of_answer), and under
    /// [`OnInterrupted::Rerun`](crate::OnInterrupted::Rerun)
    /// [`Meaning::of_answer_under_rerun`](crate::Meaning::of_answer_under_rerun); errors are unknown.
    pub fn classify(self, classify: impl Classify) -> Self {
        self.with(|options| options.classify = Some(Hook(Arc::new(classify))))
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

    /// Sets the longest time that a `text/event-stream` may take to its result, and so has the layer record it. What
    /// comes before the result goes to the client as it comes; the result is held back until it is durable, and it
    /// alone is recorded and replayed, as a stream of one event. The result of a call of JSON-RPC is its response, that
    /// of any other stream its last event. A stream that takes longer is passed on, and retries get 409
    /// `not-replayable`. One that breaks off is unknown. Zero: no stream is recorded. Default: zero, or what the
    /// [`profile`](Self::profile) says.
    pub fn max_stream(self, time: Duration) -> Self {
        self.with(|options| options.max_stream = time)
    }

    /// Sets the most bytes of such a stream, in all of its events together. Default: 8 MiB.
    pub fn max_stream_bytes(self, bytes: usize) -> Self {
        self.with(|options| options.max_stream_bytes = bytes)
    }
}

/// # What clients see
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets the profile: what clients expect of this API's keys. It sets [`require_key`](Self::require_key),
    /// [`fingerprint_body`](Self::fingerprint_body), [`key_from`](Self::key_from), [`max_stream`](Self::max_stream) and
    /// [`replay_header_name`](Self::replay_header_name), unless the application has set them to something else than
    /// their defaults. Records made under a profile that compares
    /// bodies in another way can't be compared (409 `not-verifiable`), and keys get other records where
    /// [`key_per_path`](Profile::key_per_path) changes. Default: [`Profile::draft`].
    pub fn profile(self, profile: Profile) -> Self {
        self.with(|options| {
            // What is as the profile before has it, the application has not set.
            let before = std::mem::replace(&mut options.profile, Arc::new(profile));
            let profile = &options.profile;
            if options.require_key == before.require_key {
                options.require_key = profile.require_key;
            }
            if options.sameness.has_body(&before.fingerprint_body) {
                options.sameness.of_body(profile.fingerprint_body.clone());
            }
            if KeyFrom::are_same(options.key_from.as_ref(), before.key_from.as_ref()) {
                options.key_from.clone_from(&profile.key_from);
            }
            if options.max_stream == before.max_stream {
                options.max_stream = profile.max_stream;
            }
            if options.recorder.replay_header_name == before.replay_header {
                Arc::make_mut(&mut options.recorder).replay_header_name = profile.replay_header.clone();
            }
        })
    }

    /// Names the routes that this layer covers, for clients, with the paths that clients send: `/v1/charges`, or
    /// `/v1/charges/{id}` for any segment. [`discovery`](Self::discovery) lists them as they are given here. An
    /// `OPTIONS` request to one of them gets that description, if the application has no answer of its own (it answers
    /// 405 or 501). A CORS preflight is left to the application. Default: no routes, and no such answers.
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use axum::{Router, routing::post};
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).discoverable(["/charges"]);
    /// let app: Router = Router::new()
    ///     .route("/charges", post(|| async { "charged" }))
    ///     .route_layer(layer.clone())
    ///     .merge(layer.well_known());
    /// # }
    /// ```
    pub fn discoverable(self, routes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let routes: Vec<String> = routes.into_iter().map(Into::into).collect();
        self.with(|options| options.routes = routes.into())
    }

    /// Sets which headers of an answer are replayed. Default: those that [`KeptHeaders`] keeps by default.
    pub fn kept_headers(self, kept: KeptHeaders) -> Self {
        self.with(|options| Arc::make_mut(&mut options.recorder).kept_headers = kept)
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

/// # Without axum
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets the body mode to `AnyBody`, which carries every body. Use it where the request's body or the answer's is
    /// not axum's: in a plain Tower stack, on a hyper server, around tonic's routes. A body `B` comes out as
    /// [`ReplayBody<B>`](crate::server::ReplayBody), so the inner service takes a `Request<ReplayBody<B>>` and the
    /// layer's answer has a `ReplayBody`, too.
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
}
