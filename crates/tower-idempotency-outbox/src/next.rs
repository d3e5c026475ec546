//! What a try's result means for the call: an end, or another try.

use std::iter::successors;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tower_idempotency_client::{Delivery, Error, Known, Reason, Says, retry_after};

use crate::lease::Update;
use crate::{Answer, Call, State};

/// What comes after a try.
#[derive(Debug)]
pub(crate) enum Next {
    /// The call has ended.
    End(Update),
    /// There is another try, after this time at least. The update is for the case that there is none any more.
    Again(Duration, Update),
}

/// How much of an answer's body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    Whole,
    /// As much as is kept; or it is an event stream, which has no end.
    Enough,
    /// It broke off, or did not end in time.
    Broken,
}

/// What comes after a try that has got an answer. `earlier`: a try before it may have taken effect.
pub(crate) fn answered(head: Parts, body: Bytes, read: Read, earlier: bool) -> Next {
    let (status, delivery) = (head.status, head.extensions.get::<Delivery>());
    let is_replay = delivery.is_some_and(Delivery::is_replay);
    // A replay is the answer of the operation itself, whatever has come before.
    let is_unknown = !is_replay && earlier || delivery.is_none_or(Delivery::is_unknown);
    let asked = retry_after(&head.headers).unwrap_or_default();
    let says = delivery.and_then(Delivery::says).filter(|says| *says != Says::Done);
    let is_done = status.is_success() && says.is_none();
    // 307 and 308 say that the operation has not begun here (RFC 9110 sections 15.4.8 and 15.4.9).
    let is_refusal = says.is_some() || status.is_client_error() || matches!(status.as_u16(), 307 | 308);
    let is_of_credentials = is_of_credentials(status, &head.headers, &body, says);
    let said = says.map_or_else(String::new, |says| format!(": {says}"));
    let answer = Answer { status, headers: head.headers, body, is_cut: read != Read::Whole };
    let update = |state, may_have_taken_place| Update {
        may_have_taken_place: Some(may_have_taken_place),
        answer: kept(answer, is_done),
        ..Update::to(state, format!("the server has answered {status}{said}"))
    };
    match status {
        // A server that remembers keys has the whole answer.
        _ if is_done && read == Read::Broken => Next::Again(Duration::ZERO, update(State::Delivered, true)),
        _ if is_done => Next::End(update(State::Delivered, true)),
        _ if is_of_credentials && !is_replay => Next::Again(asked, update(State::GivenUp, is_unknown)),
        _ if is_refusal && !is_unknown => Next::End(update(State::Refused, false)),
        // No redirect is followed, and another try would get the same one. A recorded answer does not change, either.
        _ if status.is_redirection() || is_replay => Next::End(update(State::GivenUp, true)),
        _ => Next::Again(asked, update(State::GivenUp, is_unknown)),
    }
}

/// What comes after a try that has got none.
pub(crate) fn unanswered(error: &Error, call: &Call, earlier: bool) -> Next {
    // An end is one, whatever has come before.
    let has_ended = error.reason() == Reason::NotKept;
    let known = if earlier && !has_ended { error.known().max(Known::Unknown) } else { error.known() };
    // With a response, a source says that this broke off.
    let is_cut = std::error::Error::source(error).is_some();
    let answer = error.response().map(|answer| Answer {
        status: answer.status(),
        headers: answer.headers().clone(),
        is_cut: is_cut || answer.body().len() > Answer::MAX_BODY,
        body: answer.body().slice(..answer.body().len().min(Answer::MAX_BODY)),
    });
    let answer = answer.and_then(|answer| kept(answer, false));
    let with_causes = successors(Some(error as &dyn std::error::Error), |error| error.source());
    let with_causes: Vec<_> = with_causes.map(ToString::to_string).collect();
    let update = |state| Update {
        may_have_taken_place: Some(known >= Known::Unknown),
        answer,
        ..Update::to(state, without_paths(&with_causes.join(": "), call))
    };
    let is_of_credentials = error
        .response()
        .is_some_and(|answer| is_of_credentials(answer.status(), answer.headers(), answer.body(), error.says()));
    let asked = match error.says() {
        Some(Says::TryLater(Some(asked))) => asked,
        _ => Duration::ZERO,
    };
    // The longer one: both have to be over.
    let asked = error.response().and_then(|answer| retry_after(answer.headers())).unwrap_or_default().max(asked);
    match (known, error.reason()) {
        (Known::Done, _) => Next::End(update(State::Delivered)),
        // They may be replaced, whichever part has written the answer.
        _ if is_of_credentials && !has_ended => Next::Again(asked, update(State::GivenUp)),
        (Known::NotSent | Known::Refused, Reason::Rejected | Reason::NotKept) => Next::End(update(State::Refused)),
        // The server's last word is that it doesn't know; or the client can't send the call, and will not later.
        (_, Reason::Rejected | Reason::NotKept | Reason::KeyReused | Reason::InvalidKey) => {
            Next::End(update(State::GivenUp))
        }
        _ => Next::Again(asked, update(State::GivenUp)),
    }
}

/// The answer, unless it was cut and has the status of a success without being one: the next try takes what was kept
/// so for a success that broke off.
fn kept(answer: Answer, is_done: bool) -> Option<Answer> {
    Some(answer).filter(|answer| is_done || !(answer.is_cut && answer.status.is_success()))
}

/// Whether an answer is about the relay's credentials, which may be replaced; or asks for a nonce in the next proof
/// (RFC 9449, section 8).
fn is_of_credentials(status: StatusCode, headers: &HeaderMap, body: &[u8], says: Option<Says>) -> bool {
    let asks = || serde_json::from_slice::<Value>(body).is_ok_and(|body| body["error"] == "use_dpop_nonce");
    match status {
        _ if says == Some(Says::Unauthenticated) => true,
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => true,
        StatusCode::BAD_REQUEST => headers.contains_key("dpop-nonce") && asks(),
        _ => false,
    }
}

/// Returns a reason without the path and the query of the call, and of each URL: a client's error may have them, and
/// they may name an account. Reasons are in the log, and operators see them.
fn without_paths(reason: &str, call: &Call) -> String {
    let mut left = reason.to_owned();
    let target = call.uri().path_and_query();
    let parts =
        [target.map(PathAndQuery::as_str), target.map(PathAndQuery::path), target.and_then(PathAndQuery::query)];
    // A path that is `/` alone is in any text.
    for part in parts.into_iter().flatten().filter(|part| part.len() > 1) {
        left = left.replace(part, HIDDEN);
    }
    let mut urls = left.split("://");
    let mut left = urls.next().unwrap_or_default().to_owned();
    for url in urls {
        // It ends with a character that no URI has (RFC 3986, section 2).
        let end = url.find(|next: char| next.is_whitespace() || "\"<>\\^`{|}".contains(next)).unwrap_or(url.len());
        let (url, rest) = url.split_at(end);
        let (authority, path) = url.split_at(url.find(['/', '?', '#']).unwrap_or(url.len()));
        // Before the host there may be a password.
        let host = authority.rsplit('@').next().unwrap_or_default();
        let hidden = if path.is_empty() { "" } else { HIDDEN };
        left.extend(["://", host, hidden, rest]);
    }
    left
}

/// What a reason has in place of a path.
const HIDDEN: &str = "/…";

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_reason_has_no_path_of_the_call_and_none_of_any_url() {
        let call = |uri: &str| Call::new(Request::post(uri).header("idempotency-key", "k").body("").unwrap()).unwrap();
        let of_account = call("https://api.example/accounts/17/charges?to=18");
        for (reason, left) in [
            ("no route to /accounts/17/charges?to=18", "no route to /…"),
            ("no route to /accounts/17/charges", "no route to /…"),
            ("the query to=18 is refused", "the query /… is refused"),
            ("for url (https://api.example/accounts/17/charges?to=18)", "for url (https://api.example/…"),
            // As another client writes them.
            ("GET \"https://api.example:443/accounts/%31%37\": refused", "GET \"https://api.example:443/…\": refused"),
            ("at https://api.example/accounts('17'),b/17", "at https://api.example/…"),
            ("http://[::1]:80/accounts/17 is down", "http://[::1]:80/… is down"),
            ("by http://user:secret@proxy:8080", "by http://proxy:8080"),
            ("to http://api.example?account=17, then http://b#17", "to http://api.example/… then http://b/…"),
            ("https://api.example is down", "https://api.example is down"),
            ("connection refused (os error 111)", "connection refused (os error 111)"),
        ] {
            assert_eq!(without_paths(reason, &of_account), left);
        }
        // A path that is `/` alone is in any text.
        assert_eq!(without_paths("and/or", &call("https://api.example/")), "and/or");
    }
}
