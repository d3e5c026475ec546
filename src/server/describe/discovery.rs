//! What clients can find out about a layer before their first request.

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::engine::{OnInFlight, OnInterrupted, Policy};
use crate::server::answer::meaning::Meaning;
use crate::server::gate::probe;
use crate::server::header::lines;
use crate::server::layer_state::LayerState;
use crate::server::options::{Options, USUAL};
use crate::server::profile::Envelope;
use crate::server::reject::rejection::{Rejection, RejectionKind};

impl Options {
    /// Returns whether an `OPTIONS` request may be answered with a description.
    pub(crate) fn may_describe(&self, method: &Method, headers: &HeaderMap) -> bool {
        !self.routes.is_empty() && *method == Method::OPTIONS && !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Returns status and code of a kind of rejection, as clients see them.
    fn seen(&self, kind: RejectionKind) -> Value {
        let mut rejection = Rejection::new(kind, "");
        self.profile.name(&mut rejection);
        let code = match self.profile.envelope {
            Envelope::Problem | Envelope::JsonRpc => kind.slug().into(),
            _ => rejection.code(),
        };
        // An error of JSON-RPC comes with 200, and its `data` has the slug.
        let status = if self.profile.calls.is_some() { 200 } else { rejection.status.as_u16() };
        json!({ "status": status, "code": code })
    }
}

impl<St> LayerState<St> {
    /// Answers an `OPTIONS` request to `path` with the description, if `answer` is not the application's own.
    pub(crate) fn described<B>(&self, path: &str, answer: &Response<B>) -> Option<Response<Bytes>> {
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

    pub(crate) fn discovery(&self) -> Value {
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
        let methods = options.methods.iter().chain(others).filter(|method| options.covers_method(method));
        let mut discovery = json!({
            "profile": profile.name,
            "routes": *options.routes,
            "methods": methods.map(Method::as_str).collect::<Vec<_>>(),
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
        if let Some(places) = &options.key_from {
            discovery["key_from"] = format!("{places:?}").into();
        }
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
