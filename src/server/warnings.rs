//! Refuses names of headers that have another purpose, and warns of options that switch the protection off.

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE, ETAG, EXPECT, HeaderName,
    LINK, LOCATION, RETRY_AFTER, SET_COOKIE, TRANSFER_ENCODING,
};

use super::effect::Effect;
use super::fingerprint::credentials::is_usual;
use super::options::Options;
use super::probe;
use crate::engine::Policy;

/// Headers that requests have for another purpose, besides those that most have or that say who asks. As a key, such a
/// header would be the same in different operations.
const OF_REQUESTS: [HeaderName; 3] = [COOKIE, EXPECT, probe::HEADER];

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

/// An option of a layer has a name that can't be meant: of a header with another purpose, or of no cookie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` has the name {name:?}, which {}; give another one", if *option == COOKIES { "no cookie can have" } else { "has another purpose" })]
#[non_exhaustive]
pub struct WrongName {
    /// The option: `header_name`, `replay_header_name`, `outcome_header_name` or `credential_cookies`.
    pub option: &'static str,
    /// The name.
    pub name: String,
}

const COOKIES: &str = "credential_cookies";

/// Looks for a name that can't be meant: of a header of HTTP's, of the layer's own or of another option, or of no cookie
/// (RFC 6265, section 4.1.1), in which place no other cookie would count.
pub(super) fn check(options: &Options) -> Result<(), WrongName> {
    let Options { header_name, recorder, outcome_header_name, profile, sameness, .. } = options;
    let replay = &recorder.replay_header_name;
    let is_of_answers = |name| OF_ANSWERS.contains(name) || profile.retry_header.as_ref() == Some(name);
    let outcome =
        outcome_header_name.as_ref().filter(|name| is_of_answers(name) || [header_name, replay].contains(name));
    let is_of_requests = OF_REQUESTS.contains(header_name) || is_usual(header_name);
    let wrong = [
        ("header_name", Some(header_name).filter(|_| is_of_requests)),
        ("replay_header_name", Some(replay).filter(|name| is_of_answers(name) || *name == header_name)),
        ("outcome_header_name", outcome),
    ];
    let headers = wrong.into_iter().filter_map(|(option, name)| Some((option, name?.as_str())));
    let cookies = sameness.credentials.cookie_names().iter().map(|name| (COOKIES, name.as_str()));
    match headers.chain(cookies.filter(|(_, name)| !is_token(name))).next() {
        Some((option, name)) => Err(WrongName { option, name: name.to_owned() }),
        None => Ok(()),
    }
}

/// Returns whether a cookie can have this name: it is a token, as that of a header is (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    name.parse::<HeaderName>().is_ok()
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
