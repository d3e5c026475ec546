//! The profile of a layer, and what clients can find out about it before their first request.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::answer::meaning::Meaning;
use super::header::lines;
use super::layer::IdempotencyLayer;
use super::layer_state::LayerState;
use super::options::{Options, USUAL};
use super::probe;
use super::profile::{Envelope, Profile};
use super::reject::rejection::{Rejection, RejectionKind};
use crate::engine::{OnInFlight, OnInterrupted, Policy};
use crate::store::Store;

/// # What clients expect
impl<St: Store, M> IdempotencyLayer<St, M> {
    /// Sets the profile: what clients expect of this API's keys. It sets [`require_key`](Self::require_key),
    /// [`fingerprint_body`](Self::fingerprint_body) and [`replay_header_name`](Self::replay_header_name), unless the
    /// application has set them to something else than their defaults. Records made under a profile that compares
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

    /// Returns what clients can find out: the routes, as [`discoverable`](Self::discoverable) names them; the profile,
    /// the header of the key and whether it is required, the retention, and what a retry can expect. What an error
    /// means is left out where a [`classify`](Self::classify) decides it.
    /// [`guide::profiles`](mod@crate::guide::profiles) has an example.
    #[must_use]
    pub fn discovery(&self) -> Value {
        self.state().discovery()
    }

    /// Returns a router with the route `/.well-known/idempotency`, which answers with [`discovery`](Self::discovery) as
    /// JSON. Merge it into the application's outermost router, after its options are set. Where several layers are in
    /// one application, write such a route by hand, with the [`discovery`](Self::discovery) of each.
    #[cfg(feature = "axum")]
    pub fn well_known<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        let discovery = self.discovery().to_string();
        let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], discovery.clone()));
        axum::Router::new().route("/.well-known/idempotency", axum::routing::get(answer))
    }
}

impl Options {
    /// Returns whether an `OPTIONS` request may be answered with a description.
    pub(super) fn may_describe(&self, method: &Method, headers: &HeaderMap) -> bool {
        !self.routes.is_empty() && *method == Method::OPTIONS && !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Returns status and code of a kind of rejection, as clients see them.
    fn seen(&self, kind: RejectionKind) -> Value {
        let mut rejection = Rejection::new(kind, "");
        self.profile.name(&mut rejection);
        let code = match self.profile.envelope {
            Envelope::Problem => kind.slug().into(),
            _ => rejection.code(),
        };
        json!({ "status": rejection.status.as_u16(), "code": code })
    }
}

impl<St> LayerState<St> {
    /// Answers an `OPTIONS` request to `path` with the description, if `answer` is not the application's own.
    pub(super) fn described<B>(&self, path: &str, answer: &Response<B>) -> Option<Response<Bytes>> {
        let is_own = !matches!(answer.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        if is_own || !self.options.routes.iter().any(|route| is_of_route(path, route)) {
            return None;
        }
        let mut described = Response::new(Bytes::from(self.discovery().to_string()));
        let headers = described.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // axum adds this header outside of the layer.
        for allow in lines(answer.headers(), ALLOW) {
            headers.append(ALLOW, allow.clone());
        }
        Some(described)
    }

    fn discovery(&self) -> Value {
        let (options, policy) = (&self.options, &self.engine.policy);
        let Options { profile, recorder, .. } = &**options;
        let wait = match policy.on_in_flight {
            OnInFlight::Wait(wait) => wait.as_secs_f64(),
            OnInFlight::Reject => 0.0,
        };
        let mut in_flight = options.seen(RejectionKind::InFlight);
        in_flight["after_seconds"] = wait.into();
        let mut retry = json!({
            "completed": "replay",
            "in_flight": in_flight,
            "other_request": options.seen(RejectionKind::KeyReused),
            "interrupted": interrupted(policy, options),
            "invalid_request": if profile.invalid == Some(Meaning::NotStarted) { "run" } else { "replay" },
        });
        if options.classify.is_none() {
            retry["server_error"] = server_error(policy, profile.server_error).into();
            retry["rate_limited"] = "run".into();
        }
        // A key that is required covers every method that is not safe.
        let others = USUAL.iter().filter(|method| options.require_key && !options.methods.contains(method));
        let mut discovery = json!({
            "profile": profile.name,
            "routes": *options.routes,
            "methods": options.methods.iter().chain(others).map(Method::as_str).collect::<Vec<_>>(),
            "header": options.header_name.as_str(),
            "key_required": options.require_key,
            "key_quoted": options.strict_keys,
            "key_max_bytes": profile.key_form.max_bytes(),
            "key_per_path": profile.key_per_path,
            "retention_seconds": policy.retention.as_secs(),
            "probe_header": probe::HEADER.as_str(),
            "replay_header": recorder.replay_header_name.as_str(),
            "retry": retry,
        });
        if let Some(form) = profile.key_form.name() {
            discovery["key_form"] = form.into();
        }
        if policy.kept() > policy.retention {
            discovery["outcome_retention_seconds"] = policy.kept().as_secs().into();
        }
        discovery
    }
}

/// Returns whether a path belongs to a route. A segment in braces matches any other, and one with `*` all that follow.
fn is_of_route(path: &str, route: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in route.split('/') {
        let Some(segment) = segments.next() else { return false };
        let is_pattern = wanted.starts_with('{') && wanted.ends_with('}');
        match is_pattern {
            true if wanted.starts_with("{*") => return true,
            true if segment.is_empty() => return false,
            false if segment != wanted => return false,
            _ => {}
        }
    }
    segments.next().is_none()
}

/// Says what the retry of an interrupted operation gets.
fn interrupted(policy: &Policy, options: &Options) -> Value {
    match policy.on_interrupted {
        OnInterrupted::Rerun => "run".into(),
        OnInterrupted::Refuse if policy.reconciler.is_some() => "look-up".into(),
        OnInterrupted::Refuse => options.seen(RejectionKind::OutcomeUnknown),
    }
}

/// Says what the retry gets of a request that was answered with a 5xx.
fn server_error(policy: &Policy, meaning: Option<Meaning>) -> &'static str {
    match (policy.on_interrupted, meaning) {
        (OnInterrupted::Rerun, _) | (OnInterrupted::Refuse, Some(Meaning::NotStarted)) => "run",
        (OnInterrupted::Refuse, Some(Meaning::Unknown)) => "interrupted",
        (OnInterrupted::Refuse, Some(Meaning::Final) | None) => "replay",
    }
}
