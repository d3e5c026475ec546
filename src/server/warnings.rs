//! Warns of options that switch the protection off.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName,
    ORIGIN, TRANSFER_ENCODING, USER_AGENT,
};

use super::options::Options;
use crate::engine::Policy;

/// Headers that requests have for another purpose. As a key, such a header would be the same in different operations.
const OF_ANOTHER_PURPOSE: [HeaderName; 12] = [
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, ORIGIN,
    TRANSFER_ENCODING, USER_AGENT,
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
}
