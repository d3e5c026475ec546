//! Refuses names of headers that have another purpose, and warns of options that switch the protection off.

use http::HeaderName;

use super::fingerprint::credentials::is_usual;
use super::options::{Options, USUAL};
use crate::engine::Policy;

/// Headers that answers have for another purpose. As the mark of a replay, such a header would be lost, or would say
/// what is not so; as that of the key, the proxy would take it off.
const OF_ANSWERS: [&str; 32] = [
    "access-control-allow-credentials", "access-control-allow-origin", "access-control-expose-headers", "age",
    "cache-control", "connection", "content-encoding", "content-length", "content-type", "date", "etag", "expires",
    "grpc-message", "grpc-status", "idempotency-effect", "idempotency-mark", "idempotency-probe", "keep-alive", "link",
    "location", "proxy-authenticate", "proxy-connection", "retry-after", "server", "set-cookie", "te", "trailer",
    "transfer-encoding", "upgrade", "vary", "via", "www-authenticate",
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

/// Looks for a name that can't be meant: of a header of HTTP's, of the layer's own or of another option, or of no
/// cookie (RFC 6265, section 4.1.1), in which place no other cookie would count.
pub(super) fn check(options: &Options) -> Result<(), WrongName> {
    let Options { header_name, recorder, outcome_header_name, profile, sameness, .. } = options;
    let replay = &recorder.replay_header_name;
    let has_purpose =
        |name: &&HeaderName| OF_ANSWERS.contains(&name.as_str()) || profile.retry_header.as_ref() == Some(*name);
    let outcome = outcome_header_name.as_ref();
    let wrong = [
        ("header_name", Some(header_name).filter(|name| is_usual(name) || has_purpose(name))),
        ("replay_header_name", Some(replay).filter(|name| has_purpose(name) || *name == header_name)),
        ("outcome_header_name", outcome.filter(|name| has_purpose(name) || [header_name, replay].contains(name))),
    ];
    let headers = wrong.into_iter().filter_map(|(option, name)| Some((option, name?.as_str())));
    let cookies = sameness.credentials.cookie_names().iter().map(|name| (COOKIES, name.as_str()));
    // A cookie's name is a token, as that of a header is (RFC 9110, section 5.6.2).
    match headers.chain(cookies.filter(|(_, name)| name.parse::<HeaderName>().is_err())).next() {
        Some((option, name)) => Err(WrongName { option, name: name.to_owned() }),
        None => Ok(()),
    }
}

/// Logs a WARN for each option without which retries are not what users expect of a layer. `policy` is what the engine
/// goes by.
pub(super) fn warn(options: &Options, policy: &Policy) {
    policy.warn();
    if !options.require_key && !options.methods.iter().any(|method| USUAL.contains(method)) {
        tracing::warn!(
            target: "tower_idempotency",
            "`methods` names no method of POST, PATCH, PUT and DELETE, so no request with one of them is protected"
        );
    }
    if let Some(route) = options.routes.iter().find(|route| !route.starts_with('/')) {
        tracing::warn!(target: "tower_idempotency", route, "`discoverable` names a route that does not begin with /");
    }
}
