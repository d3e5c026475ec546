//! Which refusal a verdict is, and what it says.

use http::StatusCode;

use super::rejection::{Rejection, RejectionKind};
use crate::engine::{End, OnInterrupted, Policy, Verdict};
use crate::fingerprint::Match;
use crate::slots::Refusal;

pub(super) fn body_too_large(limit: usize) -> Rejection {
    too_large(format!("Requests with an idempotency key may have at most {limit} bytes of body. Nothing was done."))
}

pub(super) fn body_over_outer_limit() -> Rejection {
    too_large("The body is longer than this server takes. Nothing was done.".to_owned())
}

fn too_large(detail: String) -> Rejection {
    Rejection::new(RejectionKind::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, "The request body is too large", detail)
}

/// The connection is broken as a rule, and nobody reads this.
pub(super) fn body_incomplete() -> Rejection {
    let detail = "The request body could not be read to its end. Nothing was done.";
    let title = "The request body is incomplete";
    Rejection::new(RejectionKind::BodyIncomplete, StatusCode::BAD_REQUEST, title, detail).same_key()
}

/// Nothing of it came for a while.
pub(super) fn body_late() -> Rejection {
    let detail = "The rest of the request body did not come in time. Nothing was done.";
    let title = "The request body is incomplete";
    Rejection::new(RejectionKind::BodyIncomplete, StatusCode::REQUEST_TIMEOUT, title, detail).same_key()
}

/// The refusal of a verdict that is no answer.
pub(super) fn of_verdict<T>(verdict: &Verdict<T>, policy: &Policy) -> Rejection {
    match verdict {
        Verdict::CutShort => cut_short(&policy.on_interrupted),
        Verdict::Mismatch(found) => of_mismatch(*found),
        Verdict::Met(End::Refused(refusal)) => of_refusal(*refusal),
        Verdict::Met(End::Consumed { status }) => not_replayable(*status),
        Verdict::Met(End::Unknown { .. }) => outcome_unknown(&policy.on_interrupted),
        Verdict::Met(End::InDoubt) => in_doubt(),
        Verdict::Met(End::InFlight | End::Released) => in_flight(),
        // Those that are answers do not come here.
        Verdict::Met(End::Outcome(_)) | Verdict::Answered(_) | Verdict::Committed(_) => in_flight(),
    }
}

pub(super) fn of_refusal(refusal: Refusal) -> Rejection {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match refusal {
        Refusal::Unavailable => {
            let detail =
                "The store of idempotency keys can't be reached. Nothing was done; try again with the same key.";
            Rejection::new(RejectionKind::StoreUnavailable, unavailable, "The store is unavailable", detail).after(1)
        }
        Refusal::Corrupt => {
            let detail = "What is stored for this key can't be read, so the request is not run again. \
                A new key would run it again; ask the operator before you use one.";
            Rejection::new(RejectionKind::StoreUnavailable, unavailable, "The store is unavailable", detail)
        }
        Refusal::Full => {
            let detail = "The store of idempotency keys is full. Nothing was done; try again later with the same key.";
            Rejection::new(RejectionKind::StoreFull, unavailable, "The store is full", detail).same_key()
        }
        Refusal::Overloaded => overloaded(),
        Refusal::ShuttingDown => {
            let detail = "The server is shutting down. Nothing was done; try again with the same key.";
            Rejection::new(RejectionKind::ShuttingDown, unavailable, "The server is shutting down", detail).after(1)
        }
    }
}

pub(super) fn overloaded() -> Rejection {
    let detail = "Too much is under way. Nothing was done; try again in a moment with the same key.";
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    Rejection::new(RejectionKind::Overloaded, unavailable, "The server is overloaded", detail).after(2)
}

fn of_mismatch(found: Match) -> Rejection {
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    match found {
        Match::OtherCredentials => {
            let detail = "This key was used for the same request with other credentials. Do not mint a new key: the \
                operation may have taken place, and a new key would run it again. Repeat the request with the \
                credentials of the first try.";
            let title = "The credentials have changed between two tries";
            Rejection::new(RejectionKind::CredentialsChanged, unprocessable, title, detail)
        }
        Match::NotVerifiable => {
            let detail = "This key was used under rules that this server can't apply, so it can't tell whether this is \
                the same request. Do not mint a new key: the operation may have taken place.";
            let title = "The request can't be compared with the recorded one";
            Rejection::new(RejectionKind::NotVerifiable, StatusCode::CONFLICT, title, detail)
        }
        Match::Other | Match::Same => {
            let detail = "This key was used for another request: its method, host, path, query, content type, body, or a \
                header that this server compares differs. Use a new key for a new operation.";
            Rejection::new(RejectionKind::KeyReused, unprocessable, "The idempotency key was used before", detail)
        }
    }
}

fn in_flight() -> Rejection {
    let detail = "A request with this key is being processed. Try again with the same key.";
    Rejection::new(RejectionKind::InFlight, StatusCode::CONFLICT, "The request is in flight", detail).after(1)
}

fn not_replayable(status: u16) -> Rejection {
    let detail = format!(
        "The request with this key was answered with status {status}, and that answer was too large, too slow or a \
         stream, so that it was not stored. It is not run again; a new key would run it again."
    );
    let title = "The answer can't be replayed";
    Rejection::new(RejectionKind::NotReplayable, StatusCode::CONFLICT, title, detail).original(status)
}

const OUTCOME_UNKNOWN: &str = "The outcome is unknown";

fn outcome_unknown(policy: &OnInterrupted) -> Rejection {
    let refuse = |detail| Rejection::new(RejectionKind::OutcomeUnknown, StatusCode::CONFLICT, OUTCOME_UNKNOWN, detail);
    if let OnInterrupted::Reconcile(_) = policy {
        let detail = "It is not known yet whether the request with this key took effect. Try again later with the same key. \
            A new key would run it again.";
        return refuse(detail).same_key();
    }
    refuse(
        "Nobody knows whether the request with this key took effect. It is not run again. A new key would run it again; \
         find out first, or ask the operator, who can settle it.",
    )
}

/// For the request whose own run's transaction may or may not be durable. The store that could tell is poisoned; after a
/// restart it knows.
fn in_doubt() -> Rejection {
    let detail = "The store failed while the request was being committed, and nobody knows whether it took effect. Try \
        again later with the same key. A new key could run it again.";
    Rejection::new(RejectionKind::OutcomeUnknown, StatusCode::SERVICE_UNAVAILABLE, OUTCOME_UNKNOWN, detail).same_key()
}

/// For the request whose own run it was.
fn cut_short(policy: &OnInterrupted) -> Rejection {
    let (detail, again) = match policy {
        OnInterrupted::Refuse => (
            "The request was cut short, and nobody knows whether it took effect. It is not run again under this key. \
             A new key would run it again; find out first, or ask the operator, who can settle it.",
            false,
        ),
        OnInterrupted::Rerun => (
            "The request was cut short, and nobody knows whether it took effect. With the same key it is run again.",
            true,
        ),
        OnInterrupted::Reconcile(_) => (
            "The request was cut short, and nobody knows whether it took effect. With the same key it is found out.",
            true,
        ),
    };
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let mut rejection = Rejection::new(RejectionKind::OutcomeUnknown, status, OUTCOME_UNKNOWN, detail);
    rejection.retry_with_same_key = again;
    rejection
}
