//! What a layer adds to an operation that it covers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::response::Response;
use utoipa::openapi::{Components, RefOr};

use super::{merge, parts, rejections};
use crate::server::options::Options;

/// Says to Fern that an operation takes the headers of the document's `x-fern-idempotency-headers`.
const FERN: &str = "x-fern-idempotent";
/// Says to Speakeasy what its clients try again by themselves.
pub(super) const SPEAKEASY: &str = "x-speakeasy-retries";

/// What a layer adds to each operation that it covers.
pub(super) struct Addition {
    parameter: Parameter,
    /// What an answer of the handler has: the headers that say whether it is a replay.
    answer: Response,
    /// By status.
    rejections: BTreeMap<String, Response>,
    extensions: Vec<(&'static str, Value)>,
}

impl Addition {
    /// Returns what a layer with these options, and this retention, adds. `may_retry` is false if the document says
    /// already what clients try again.
    pub(super) fn of(options: &Options, retention: Duration, may_retry: bool) -> Self {
        let mut answer = Response::default();
        let echo = options.profile.echo_key.then_some(&options.header_name);
        let names = [Some(&options.recorder.replay_header_name), options.outcome_header_name.as_ref(), echo];
        for name in names.into_iter().flatten() {
            answer.headers.insert(parts::written(name), parts::header(name, options).into());
        }
        let mut extensions = vec![(FERN, Value::Bool(true))];
        // Without a key, what is sent again runs again.
        if may_retry && options.require_key {
            extensions.push((SPEAKEASY, retries(retention)));
        }
        Self { parameter: parts::key(options), answer, rejections: rejections::responses(options), extensions }
    }

    /// Adds it to an operation. `of_path` are the parameters of all operations of its path.
    pub(super) fn add_to(&self, operation: &mut Operation, of_path: &[RefOr<Parameter>], components: &Components) {
        let parameters = operation.parameters.get_or_insert_default();
        merge::parameter(parameters, of_path, &components.parameters, &self.parameter);
        let responses = &mut operation.responses.responses;
        for response in responses.values_mut() {
            if let Some(own) = own(response, components).filter(|own| !merge::is_rejection(own)) {
                merge::response(own, &self.answer);
            }
        }
        for (status, rejection) in &self.rejections {
            let response = responses.entry(status.clone()).or_insert_with(|| Response::default().into());
            if let Some(own) = own(response, components) {
                merge::response(own, rejection);
            }
        }
        let extensions = operation.extensions.get_or_insert_default();
        for (name, value) in &self.extensions {
            extensions.entry((*name).to_owned()).or_insert_with(|| value.clone());
        }
    }
}

/// Returns a response of an operation, to be changed: a copy of its own, if it was a reference. `None` if it can't be
/// found in the document.
fn own<'a>(response: &'a mut RefOr<Response>, components: &Components) -> Option<&'a mut Response> {
    if let RefOr::Ref(_) = response {
        let shared = merge::resolved(response, "responses", &components.responses)?.clone();
        *response = RefOr::T(shared);
    }
    match response {
        RefOr::T(own) => Some(own),
        RefOr::Ref(_) => None,
    }
}

/// Returns what clients may try again by themselves: requests without an answer, and those that did not run. A retry
/// that comes after the retention runs again.
fn retries(retention: Duration) -> Value {
    const HOUR: u64 = 3_600_000;
    let longest = u64::try_from(retention.as_millis() / 2).map_or(HOUR, |half| half.min(HOUR));
    json!({
        "strategy": "backoff",
        "backoff": { "initialInterval": 500, "maxInterval": 60_000, "maxElapsedTime": longest, "exponent": 1.5 },
        "statusCodes": ["503"],
        "retryConnectionErrors": true,
    })
}
