//! Warns of options that switch the protection off.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, DATE, ETAG, EXPECT, HOST, HeaderName, LOCATION, ORIGIN, SET_COOKIE, TRANSFER_ENCODING, USER_AGENT,
};

use super::options::Options;
use crate::engine::Policy;

/// Headers that requests have for another purpose. As a key, such a header would be the same in different operations.
const OF_ANOTHER_PURPOSE: [HeaderName; 12] = [
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, ORIGIN,
    TRANSFER_ENCODING, USER_AGENT,
];

/// Headers that answers have for another purpose. As the mark of a replay, such a header would be lost.
const OF_ANSWERS: [HeaderName; 10] = [
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, LOCATION, SET_COOKIE,
    TRANSFER_ENCODING,
];

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
    if OF_ANOTHER_PURPOSE.contains(&options.header_name) {
        tracing::warn!(
            target: "tower_idempotency", header = %options.header_name,
            "`header_name` is a header that requests have for another purpose, so different operations have the same key"
        );
    }
    if OF_ANSWERS.contains(&options.recorder.replay_header_name) {
        tracing::warn!(
            target: "tower_idempotency", header = %options.recorder.replay_header_name,
            "`replay_header_name` is a header that answers have for another purpose, so replays lose it"
        );
    }
    if let Some(route) = options.routes.iter().find(|route| !route.starts_with('/')) {
        tracing::warn!(target: "tower_idempotency", route, "`discoverable` names a route that does not begin with /");
    }
}
