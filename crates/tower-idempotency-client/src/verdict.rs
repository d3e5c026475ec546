//! What an answer means for a call: whether it is final, and what is known if it is not the operation's own.
//!
//! `docs/meanings.md` of tower-idempotency has the same as a table, which a test compares.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use sfv::{BareItem, Item, Parser};
use tower_idempotency_meaning::{Says, is_of_grpc};

use crate::Known;
use crate::retry_after::retry_after;

/// By which a server says what its answer says about the operation, where that is no outcome.
const EFFECT: HeaderName = HeaderName::from_static("idempotency-effect");

/// Servers say with them whether the same request may get another answer.
const SHOULD_RETRY: [&str; 2] = ["stripe-should-retry", "x-should-retry"];

/// Codes of rejections that no retry changes.
const OWN_CODES: [&str; 4] = ["outcome_unknown", "not_verifiable", "credentials_changed", "not_replayable"];

/// Names of the refusal of a key that was used for another request, or with other credentials: of the Agentic Commerce
/// Protocol, and of tower-idempotency for Apache Iceberg's REST catalog.
const REUSED: [&str; 3] =
    ["idempotency_conflict", "IdempotencyKeyReusedException", "IdempotencyCredentialsChangedException"];

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the operation's own answer, or the API's. If it is no success, this is known of the operation.
    Answer(Known),
    /// The server refuses the operation, and the same request gets the same refusal.
    Rejected(Known),
    /// The operation has ended, and its answer was not kept. Nothing that an earlier attempt has met says more.
    Ended(Known),
    /// The same request may get another answer, after this time.
    Again(Known, Option<Duration>),
}

/// What is known of the call before an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Earlier {
    /// An earlier attempt of the call was lost.
    pub(crate) is_unknown: bool,
    /// The key is the caller's, who may have sent it in another call.
    pub(crate) is_own: bool,
}

/// Whether the answer's body may be a rejection, which has to be read.
pub(crate) fn may_be_rejection(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_json = |value: &http::HeaderValue| value.to_str().is_ok_and(|value| value.to_lowercase().contains("json"));
    (status.is_client_error() || status.is_server_error()) && headers.get(CONTENT_TYPE).is_some_and(is_json)
}

/// What is known of an operation whose recorded answer this is.
pub(crate) fn known_of_replay(status: StatusCode, headers: &HeaderMap, says: Option<Says>) -> Known {
    match (Effect::in_head(status, headers), says) {
        // The application has had it recorded although its status says that nothing was done.
        (Some(Effect { token: Token::Unknown, .. }), _) => Known::Unknown,
        (_, Some(says)) => known_of_says(says),
        _ if status.is_success() => Known::Done,
        // Of a replay, a 409 is about this operation itself.
        _ if status == StatusCode::CONFLICT => Known::Refused,
        _ if status.is_client_error() => known_of_status(status),
        // A recorded error of the server's may have come after the effect.
        _ => Known::Unknown,
    }
}

/// Whether an answer is a success that says nothing else of itself. What can't be read says nothing.
pub(crate) fn is_plain_success(status: StatusCode, headers: &HeaderMap, says: Option<Says>) -> bool {
    is_success(status, says) && Effect::in_head(status, headers).is_none()
}

/// Whether an answer is a success by its status, and its body says nothing else.
pub(crate) fn is_success(status: StatusCode, says: Option<Says>) -> bool {
    status.is_success() && says.is_none_or(|says| says == Says::Done)
}

/// Judges an answer that is neither a replay nor a plain success, and whose body `says` this.
pub(crate) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    says: Option<Says>,
    before: Earlier,
) -> Verdict {
    let after = match says {
        // The longer one: both have to be over.
        Some(Says::TryLater(Some(after))) => Some(retry_after(headers).map_or(after, |asked| asked.max(after))),
        _ => retry_after(headers),
    };
    let of_status = known_of_status(status);
    if let Some(effect) = Effect::in_head(status, headers) {
        let known = match effect.token {
            // A success can't say so, but for one whose body says that it is none. gRPC's may not have been read.
            Token::None if is_success(status, says) && !is_of_grpc(headers) => Known::Unknown,
            Token::None => Known::Refused,
            Token::Unknown => Known::Unknown,
            Token::Done => return Verdict::Ended(known_of_end(effect.status)),
        };
        return match effect.retry {
            Some(true) if status != StatusCode::UNPROCESSABLE_ENTITY => Verdict::Again(known, after),
            // The status or the body says whether to try again. A success with this header is none.
            None if is_again(status) || matches!(says, Some(Says::TryLater(_))) => Verdict::Again(known, after),
            None if !status.is_success() => Verdict::Answer(known),
            _ => Verdict::Rejected(known),
        };
    }
    match says {
        Some(Says::TryLater(_)) => return Verdict::Again(Known::Refused, after),
        // What is known is what the body says. The status may say that another attempt is of use all the same.
        Some(says) if is_again(status) && !matches!(says, Says::Done | Says::Refused) => {
            return Verdict::Again(known_of_says(says), after);
        }
        Some(says) => return Verdict::Answer(known_of_says(says)),
        None => {}
    }
    let rejection = match may_be_rejection(status, headers) {
        true => serde_json::from_slice(body).unwrap_or_default(),
        false => Value::Null,
    };
    if let Some(verdict) = judge_rejection(status, &rejection, after, before) {
        return verdict;
    }
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        return Verdict::Answer(of_status);
    }
    let should_retry = SHOULD_RETRY.into_iter().filter_map(|name| headers.get(name));
    match should_retry.map(|value| value.as_bytes()).find(|value| [&b"true"[..], b"false"].contains(value)) {
        Some(b"true") => return Verdict::Again(of_status, after),
        // It is the last word, and says nothing of the operation.
        Some(_) if is_again(status) || status == StatusCode::CONFLICT => return Verdict::Rejected(of_status),
        Some(_) => return Verdict::Answer(of_status),
        None => {}
    }
    match status {
        // What conflicts may be an earlier attempt of this call, which still runs.
        StatusCode::CONFLICT if after.is_some() || before.is_unknown => Verdict::Again(Known::Unknown, after),
        _ if is_again(status) => Verdict::Again(of_status, after),
        // The condition is temporary (RFC 9110 section 15.5.14).
        StatusCode::PAYLOAD_TOO_LARGE if after.is_some() => Verdict::Again(of_status, after),
        // There was no other call with this key.
        StatusCode::CONFLICT if !before.is_own => Verdict::Answer(Known::Refused),
        _ => Verdict::Answer(of_status),
    }
}

/// What the server says of the operation: an Item of structured fields (RFC 9651), a Token with parameters.
struct Effect {
    token: Token,
    retry: Option<bool>,
    status: Option<u64>,
}

enum Token {
    None,
    /// Also `pending`.
    Unknown,
    Done,
}

impl Effect {
    /// Reads the header, if it is there. A value that can't be read, or is not known here, and several leave it unknown
    /// what became of the operation, unless the answer is a success.
    fn in_head(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(EFFECT).iter();
        let first = lines.next()?;
        let only = Some(first).filter(|_| lines.next().is_none());
        let unread = Self { token: Token::Unknown, retry: None, status: None };
        only.and_then(Self::of).or(Some(unread).filter(|_| !status.is_success()))
    }

    /// Reads a value of the header, strictly. Parameters of a later release are passed over.
    fn of(value: &HeaderValue) -> Option<Self> {
        let Item { bare_item, params } = Parser::new(value.as_bytes()).parse().ok()?;
        let BareItem::Token(token) = bare_item else { return None };
        let token = match token.as_str() {
            "none" => Token::None,
            "pending" | "unknown" => Token::Unknown,
            "done" => Token::Done,
            _ => return None,
        };
        let mut effect = Self { token, retry: None, status: None };
        if let Some(retry) = params.get("retry") {
            effect.retry = Some(retry.as_boolean()?);
        }
        if let Some(status) = params.get("status") {
            effect.status = Some(i64::from(status.as_integer()?).try_into().ok()?);
        }
        Some(effect)
    }
}

/// Judges what a rejection in JSON says of itself: problem details (RFC 9457), and envelopes in the style of Stripe and
/// of the Agentic Commerce Protocol. `None`: it is none that is known here.
fn judge_rejection(status: StatusCode, rejection: &Value, after: Option<Duration>, before: Earlier) -> Option<Verdict> {
    let original = rejection["original_status"].as_u64();
    let (of_status, kind) = (known_of_status(status), rejection["type"].as_str().unwrap_or_default());
    // What one of tower-idempotency says, by its name.
    let own = |name: &str, again: bool| match name {
        "not-replayable" => Verdict::Ended(known_of_end(original)),
        _ => match known_of_problem(name, after.is_some()) {
            // It refuses the replay of an operation that has ended, and not the operation.
            None if original.is_some() && !again => Verdict::Ended(known_of_end(original)),
            None if original.is_some() => Verdict::Again(Known::Unknown, after),
            known if again => Verdict::Again(known.unwrap_or(of_status), after),
            known => Verdict::Rejected(known.unwrap_or(of_status)),
        },
    };
    if let Some(again) = rejection["retry_with_same_key"].as_bool() {
        // The `type` is a URL, and its last part is the problem's name.
        let name = kind.rsplit(['/', '#']).next().unwrap_or_default();
        return Some(own(name, again && status != StatusCode::UNPROCESSABLE_ENTITY));
    }
    let error = &rejection["error"];
    let texts = [Some(kind), rejection["code"].as_str(), error["type"].as_str(), error["code"].as_str()];
    let says = |name| texts.contains(&Some(name));
    // The key was used for another request, as `idempotency_error` says below.
    if REUSED.into_iter().any(says) {
        return Some(Verdict::Rejected(Known::Unknown));
    }
    // Those in the protocol's envelope, where only `Retry-After` says that a retry is of use.
    if after.is_none()
        && status != StatusCode::SERVICE_UNAVAILABLE
        && let Some(code) = OWN_CODES.into_iter().find(|code| says(code))
    {
        return Some(own(&code.replace('_', "-"), false));
    }
    // The key that the caller has sent before was refused, in a dialect that is not known here.
    let names_keys = texts.into_iter().flatten().any(|text| text.to_lowercase().contains("idempoten"));
    if names_keys && before.is_own && status.is_client_error() && status != StatusCode::CONFLICT {
        return Some(Verdict::Rejected(Known::Unknown));
    }
    let is_of_keys = says("idempotency_key_in_use") || says("idempotency_in_flight") || says("idempotency_error");
    // The draft has a conflict for a request that is being processed, with a type of the API's own for keys.
    if status == StatusCode::CONFLICT && (is_of_keys || kind.to_lowercase().contains("idempotency")) {
        return Some(Verdict::Again(Known::Unknown, after));
    }
    says("idempotency_error").then_some(Verdict::Rejected(Known::Unknown))
}

/// Statuses that say that another attempt may get another answer.
fn is_again(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 421 | 425 | 429 | 502..=504)
}

/// What a body says of the operation.
fn known_of_says(says: Says) -> Known {
    match says {
        Says::Done => Known::Done,
        Says::Refused | Says::NotStarted | Says::Unauthenticated | Says::TryLater(_) => Known::Refused,
        // Also what a later release of the judge may say.
        _ => Known::Unknown,
    }
}

/// What a status says of the operation, if nothing else says more.
///
/// A client's error says that the request was refused, but for two: a 408 may come from a layer that has ended a
/// handler, and a 409 may be about an earlier request with the key. 307, 308 and 511 say that nothing was done
/// (RFC 9110 sections 15.4.8 and 15.4.9, RFC 6585 section 6). Any other status may come after an effect: a 5xx from a
/// gateway that has lost the answer, and one that is not registered, such as 499, from anywhere.
fn known_of_status(status: StatusCode) -> Known {
    match status.as_u16() {
        408 | 409 => Known::Unknown,
        307 | 308 | 511 => Known::Refused,
        400..=417 | 421..=426 | 428 | 429 | 431 | 451 => Known::Refused,
        _ => Known::Unknown,
    }
}

/// The names are those of the module `problem` of tower-idempotency. `None`: it is another one, or `custom`, which says
/// only who wrote the answer.
fn known_of_problem(name: &str, has_retry_after: bool) -> Option<Known> {
    Some(match name {
        "key-missing" | "key-malformed" | "body-incomplete" | "body-too-large" => Known::Refused,
        "overloaded" | "shutting-down" | "store-full" => Known::Refused,
        // Without a time to come back, the key's record is damaged.
        "store-unavailable" if has_retry_after => Known::Refused,
        "store-unavailable" | "not-found" | "in-flight" | "outcome-unknown" | "not-verifiable" => Known::Unknown,
        // The other request may be an earlier attempt of this one.
        "key-reused" | "credentials-changed" => Known::Unknown,
        _ => return None,
    })
}

/// What is known of an operation that has ended with an answer of this status.
fn known_of_end(status: Option<u64>) -> Known {
    let status = status.and_then(|status| StatusCode::from_u16(status.try_into().ok()?).ok());
    match status {
        Some(status) if status.is_success() => Known::Done,
        // They say that nothing was done: the application has had them recorded although that is not so.
        Some(status) if matches!(status.as_u16(), 307 | 308 | 401 | 403 | 407 | 411 | 417 | 421 | 425..=431 | 511) => {
            Known::Unknown
        }
        Some(status) => known_of_status(status),
        None => Known::Unknown,
    }
}

#[cfg(test)]
mod tests;
