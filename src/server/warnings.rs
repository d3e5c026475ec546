//! Refuses names of headers that have another purpose, and warns of options that switch the protection off.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, DATE, ETAG, EXPECT, HOST, HeaderName, LINK, LOCATION, ORIGIN, RETRY_AFTER, SET_COOKIE, TRANSFER_ENCODING,
    USER_AGENT,
};

use super::effect::Effect;
use super::options::Options;
use super::probe;
use crate::engine::Policy;

/// Headers that requests have for another purpose. As a key, such a header would be the same in different operations.
const OF_REQUESTS: [HeaderName; 13] = [
    ACCEPT,
    ACCEPT_ENCODING,
    AUTHORIZATION,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    ORIGIN,
    TRANSFER_ENCODING,
    USER_AGENT,
    probe::HEADER,
];

/// Headers that answers have for another purpose. As the mark of a replay, such a header would be lost, or would say
/// what is not so.
const OF_ANSWERS: [HeaderName; 13] = [
    CACHE_CONTROL,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    DATE,
    ETAG,
    LINK,
    LOCATION,
    RETRY_AFTER,
    SET_COOKIE,
    TRANSFER_ENCODING,
    Effect::HEADER,
];

/// An option of a layer names a header that can't have this purpose, because it has another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` names the header {name}, which has another purpose; name one of its own")]
#[non_exhaustive]
pub struct HeaderTaken {
    /// The option: `header_name`, `replay_header_name` or `outcome_header_name`.
    pub option: &'static str,
    /// The header that it names.
    pub name: HeaderName,
}

/// Looks for an option that names a header of another purpose: one of HTTP's or of the layer's own, or of another
/// option.
pub(super) fn check(options: &Options) -> Result<(), HeaderTaken> {
    let Options { header_name, recorder, outcome_header_name, profile, .. } = options;
    let replay = &recorder.replay_header_name;
    let outcome = outcome_header_name.as_ref();
    let is_of_answers = |name| OF_ANSWERS.contains(name) || profile.retry_header.as_ref() == Some(name);
    let is_taken = [
        ("header_name", Some(header_name), OF_REQUESTS.contains(header_name)),
        ("replay_header_name", Some(replay), is_of_answers(replay) || replay == header_name),
        (
            "outcome_header_name",
            outcome,
            outcome.is_some_and(|name| is_of_answers(name) || [header_name, replay].contains(&name)),
        ),
    ];
    match is_taken.into_iter().find(|(.., is_taken)| *is_taken) {
        Some((option, Some(name), _)) => Err(HeaderTaken { option, name: name.clone() }),
        _ => Ok(()),
    }
}

/// Logs a WARN for each option without which retries are not what users expect of a layer. `policy` is what the engine
/// goes by.
pub(super) fn warn(options: &Options, policy: &Policy) {
    policy.warn();
    if options.methods.is_empty() {
        tracing::warn!(
            target: "tower_idempotency",
            "`methods` names no method that can be covered, so no request is protected; name POST, or another unsafe one"
        );
    }
    if let Some(route) = options.routes.iter().find(|route| !route.starts_with('/')) {
        tracing::warn!(target: "tower_idempotency", route, "`discoverable` names a route that does not begin with /");
    }
}
