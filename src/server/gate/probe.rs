//! A probe: a request that asks what a retry would get, and that never runs.

use http::{HeaderMap, HeaderName};

use crate::engine::{Unanswered, Verdict};
use crate::fingerprint::Match;
use crate::server::header::lines;

/// The header that makes a request a probe. Its value is a Boolean of structured fields (RFC 9651, section 3.3.6).
pub(crate) const HEADER: HeaderName = HeaderName::from_static("idempotency-probe");

/// Returns whether the request must not run. Only `?0` says that it may: a value that can't be read is taken for `?1`.
pub(crate) fn is_probe(headers: &HeaderMap) -> bool {
    lines(headers, HEADER).any(|value| value.as_bytes() != b"?0")
}

/// Returns whether a client may learn of the verdict whose key belongs to no scope: whether it is the one that has used
/// the key. Any other client gets what it would get of a key that has not been used. A refusal is of the store, or of a
/// damaged record, and may come of a used key alone.
pub(crate) fn is_of_client<T>(verdict: &Verdict<T>) -> bool {
    let Verdict::Unanswered { why, .. } = verdict else { return true };
    !matches!(why, Unanswered::Mismatch(Match::OtherCredentials | Match::NotVerifiable) | Unanswered::Refused(_))
}
