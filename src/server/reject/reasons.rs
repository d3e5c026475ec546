//! The reasons for which a request is rejected, and the text that the client gets.
//!
//! The engine refuses ([`Refusal`]) without knowing HTTP. A [`Rejection`] is the answer to the HTTP client, for a
//! refusal of the engine or for a reason outside the engine.
//!
//! The calls at the end of a rejection: `same_key` says that a retry with the same key may be answered otherwise.
//! `after` says so too, and sets `Retry-After` in seconds. `for_the_operator` puts the record id into the answer.

use std::error::Error;
use std::fmt::Debug;

use http::{HeaderName, Method, StatusCode};

use super::rejection::{Rejection, RejectionKind};
use crate::engine::{OnInterrupted, Policy, Unanswered};
use crate::fingerprint::Match;
use crate::key::RecordId;
use crate::record::Origin;
use crate::server::effect::Effect;
use crate::server::header::{HeaderError, KeyForm};
use crate::server::not_applied;
use crate::slots::Refusal;

/// Rejects a covered request without a key, where `require_key` is set. `place` is where a body may have it.
pub(crate) fn key_missing(name: &HeaderName, form: KeyForm, place: Option<&dyn Debug>) -> Rejection {
    let value = match form {
        KeyForm::Any => "a value unique to this operation, such as a UUID",
        KeyForm::UuidV7 => "a new UUID of version 7",
    };
    let detail = match place {
        Some(place) => format!("Send a key in the body ({place:?}) or in an {name} header: {value}."),
        None => format!("Send an {name} header with {value}."),
    };
    Rejection::new(RejectionKind::KeyMissing, detail)
}

/// Rejects a key that `header::read_key` does not take. The error names the header and what is wrong.
pub(crate) fn key_malformed(error: &HeaderError) -> Rejection {
    Rejection::new(RejectionKind::KeyMalformed, error.to_string())
}

/// Rejects a method that differs from a covered one in the case of its letters alone. The server knows no such method
/// (RFC 9110, section 9.1), and a service that reads it without its case would run the request unprotected.
pub(crate) fn method_in_other_letters(method: &Method) -> Rejection {
    let detail = format!(
        "Methods are case-sensitive, and {method} is none that is known here. Nothing was done; send the request with the \
         method in capital letters, or as the server's documentation has it."
    );
    Rejection::custom(StatusCode::NOT_IMPLEMENTED, "The method is not known", detail)
}

/// Rejects a body in which the key can't be found.
pub(crate) fn key_in_body_malformed(error: &dyn Error) -> Rejection {
    let detail = format!("The key in the body can't be read: {error}. {}", Rejection::NOTHING_WAS_DONE);
    Rejection::new(RejectionKind::KeyMalformed, detail)
}

/// Rejects a request whose header has another key than its body. One with the body's key may have run before.
pub(crate) fn keys_differ(name: &HeaderName) -> Rejection {
    let detail = format!(
        "The {name} header has another key than the body, so this request was not run. Send one key, in one of them or \
         in both. If a request with either key was sent before, send that one again to learn what became of it."
    );
    Rejection::new(RejectionKind::KeyReused, detail)
}

/// Rejects a request whose body has two keys.
pub(crate) fn keys_in_body_differ(places: &dyn Debug) -> Rejection {
    let detail = format!(
        "The body has different keys in two of these places, so this request was not run: {places:?}. Send one key. If a \
         request with either key was sent before, send that one again to learn what became of it."
    );
    Rejection::new(RejectionKind::KeyReused, detail)
}

/// Rejects a body that is longer than `max_request_body`.
pub(crate) fn body_too_large(limit: usize) -> Rejection {
    let detail = format!("A request may have at most {limit} bytes of body here. Nothing was done.");
    Rejection::new(RejectionKind::BodyTooLarge, detail)
}

/// Rejects a body that a layer outside has found too long. That layer's limit is not known here.
pub(crate) fn body_over_outer_limit() -> Rejection {
    Rejection::new(RejectionKind::BodyTooLarge, "The body is longer than this server takes. Nothing was done.")
}

/// Rejects a body that broke off. As a rule the connection is broken too, and no client reads this.
pub(crate) fn body_incomplete() -> Rejection {
    let detail = "The request body could not be read to its end. Nothing was done.";
    Rejection::new(RejectionKind::BodyIncomplete, detail).same_key()
}

/// Rejects a body of which nothing, or too little, came for a while.
pub(crate) fn body_late() -> Rejection {
    let detail = "The rest of the request body did not come in time. Nothing was done.";
    let late = Rejection::new(RejectionKind::BodyIncomplete, detail).same_key();
    Rejection { status: StatusCode::REQUEST_TIMEOUT, ..late }
}

/// Returns the rejection of a request of the operation `id` that gets no answer for this reason. `origin` is that of
/// the operation's attempt.
pub(crate) fn of_unanswered(why: Unanswered, policy: &Policy, id: &RecordId, origin: Origin) -> Rejection {
    match why {
        Unanswered::Mismatch(found) => of_mismatch(found, id),
        Unanswered::NotReplayable(status) => not_replayable(status),
        Unanswered::NotCommitted => not_committed(),
        Unanswered::InFlight | Unanswered::Freed => in_flight(),
        Unanswered::Interrupted => interrupted_run(policy, id).of(origin),
        Unanswered::Unknown => outcome_unknown(policy, id).of(origin),
        Unanswered::InDoubt => in_doubt(id).of(origin),
        Unanswered::Refused(refusal) => of_refusal(refusal, id),
    }
}

/// Returns the rejection for a refusal of the engine of the operation `id`.
pub(crate) fn of_refusal(refusal: Refusal, id: &RecordId) -> Rejection {
    match refusal {
        Refusal::Unavailable => {
            let detail =
                "The store of idempotency keys can't be reached. Nothing was done; try again with the same key.";
            Rejection::new(RejectionKind::StoreUnavailable, detail).after(1)
        }
        Refusal::Corrupt => {
            let detail = "What is stored for this key can't be read, so the request is not run again. \
                A new key would run it again; ask the operator before you use one.";
            // A retry does not help, so no pause is set.
            let corrupt = Rejection::new(RejectionKind::StoreUnavailable, detail).for_the_operator(id);
            Rejection { effect: Effect::Unknown, ..corrupt }
        }
        Refusal::Full => {
            let detail = "The store of idempotency keys is full. Nothing was done; try again later with the same key.";
            // It is not known when there is room again, so no pause is set.
            Rejection::new(RejectionKind::StoreFull, detail).same_key()
        }
        Refusal::Overloaded => overloaded(),
        Refusal::ShuttingDown => {
            let detail = "The server is shutting down. Nothing was done; try again with the same key.";
            Rejection::new(RejectionKind::ShuttingDown, detail).after(1)
        }
    }
}

/// Rejects a request while there are too many runs or too much other work, or no budget for its body.
pub(crate) fn overloaded() -> Rejection {
    let detail = "Too much is under way. Nothing was done; try again in a moment with the same key.";
    Rejection::new(RejectionKind::Overloaded, detail).after(2)
}

/// Rejects a request that is not the one that its key was first used for.
fn of_mismatch(found: Match, id: &RecordId) -> Rejection {
    match found {
        // It may be the owner of the key with a renewed token, the owner whose key another client has used first, or
        // that other client. The answer says what each has to do, and not what was requested under the key.
        Match::OtherCredentials => {
            let detail = "This key was used with other credentials, and nothing was done for this request. If you have \
                sent this request with this key before, and your credentials have changed since: Do not mint a new key, \
                because a new key would run it again. Repeat the request with the credentials of that try, or ask the \
                operator. If you have not, the key is another client's: use a new one.";
            Rejection::new(RejectionKind::CredentialsChanged, detail)
        }
        Match::NotVerifiable => {
            let detail = "This key was used under rules that this server can't apply, so it can't tell whether this is \
                the same request. Nothing was done for it now. If you have sent it with this key before: Do not mint a \
                new key, because a new key could run it again.";
            Rejection::new(RejectionKind::NotVerifiable, detail).for_the_operator(id)
        }
        // `Same` is no mismatch and does not come here.
        Match::Other(_) | Match::Same => {
            // The other request may be an earlier attempt of this one, which was sent in another way.
            let detail = "This key was used for another request: its method, host, path, query, content type, body, or \
                a header that this server compares differs. Nothing was done for this request. If you have sent it \
                with this key before, it may have been done then: send it again as it was, with this key. Only a \
                new operation needs a new key.";
            Rejection::new(RejectionKind::KeyReused, detail)
        }
    }
}

/// Rejects a probe whose operation has no record that its client may see.
pub(crate) fn not_found() -> Rejection {
    let detail = "No request with this key is known here, as far as these credentials may see. One that is still on its \
        way may arrive later, so this does not say that nothing was done. For as long as keys are remembered here, send \
        the request again with the same key.";
    Rejection::new(RejectionKind::NotFound, detail).same_key()
}

/// Rejects a probe of a request that is not covered.
pub(crate) fn no_record() -> Rejection {
    let detail = "Requests like this one have no record here, and a key does not protect them. What became of it is not \
        known here.";
    Rejection::new(RejectionKind::NotFound, detail)
}

/// Rejects a probe of an interrupted operation that a retry would run again.
pub(crate) fn would_run_again(id: &RecordId) -> Rejection {
    let detail = "It is unknown whether the request with this key took effect. The same request with the same key runs \
        again.";
    Rejection::new(RejectionKind::OutcomeUnknown, detail).for_the_operator(id).same_key()
}

/// Rejects a duplicate while its operation goes on, or if the key was freed while it waited.
fn in_flight() -> Rejection {
    let detail = "A request with this key is being processed. Try again with the same key. A new key could run it a \
        second time.";
    Rejection::new(RejectionKind::InFlight, detail).after(1)
}

/// Rejects a retry of a request that took place and whose answer is not stored.
pub(crate) fn not_replayable(status: u16) -> Rejection {
    // The status is 0 if the database of a shared store did not take the outcome.
    let original_status = StatusCode::from_u16(status).ok();
    let with = original_status.map(|status| format!(" with status {}", status.as_u16())).unwrap_or_default();
    let detail = format!(
        "The request with this key was answered{with}, and that answer is not stored: it showed a secret once, was too \
         large, too slow or a stream, or was deleted since. It is not run again; a new key would run it again. If you \
         have lost a secret, have it revoked, and ask for another one."
    );
    // One whose status says that nothing was done is final because the application says so. Without a status, it is not
    // known whether it was a success.
    let is_final = |status: StatusCode| !not_applied::by_status(status) && !not_applied::is_unknown(status);
    let effect = if original_status.is_some_and(is_final) { Effect::Done } else { Effect::Unknown };
    Rejection { original_status, effect, ..Rejection::new(RejectionKind::NotReplayable, detail) }
}

/// Rejects a retry of a request if it is unknown whether the request took effect.
fn outcome_unknown(policy: &Policy, id: &RecordId) -> Rejection {
    if policy.reconciler.is_some() {
        let detail = "It is not known yet whether the request with this key took effect. Try again later with the same \
            key. A new key would run it again.";
        return Rejection::new(RejectionKind::OutcomeUnknown, detail).for_the_operator(id).same_key();
    }
    let detail = "It is unknown whether the request with this key took effect. It is not run again. A new key would \
        run it again; find out first, or ask the operator, who can settle it.";
    Rejection::new(RejectionKind::OutcomeUnknown, detail).for_the_operator(id)
}

/// Rejects a request, or a retry of it, whose run has sent a transaction that may or may not be durable. Retries are
/// rejected until the store knows, or until a restart, which shows the end.
fn in_doubt(id: &RecordId) -> Rejection {
    let detail = "The store failed while the request was being committed, and it is unknown whether it took effect. \
        Try again later with the same key. A new key could run it again.";
    let in_doubt = Rejection::new(RejectionKind::OutcomeUnknown, detail).for_the_operator(id).same_key();
    Rejection { status: StatusCode::SERVICE_UNAVAILABLE, ..in_doubt }
}

/// Rejects a request whose own run did not commit the transaction of its effect and its record.
fn not_committed() -> Rejection {
    let detail = "The transaction of this request was not committed. Nothing was done; try again with the same key.";
    Rejection::new(RejectionKind::StoreUnavailable, detail).after(1)
}

/// Rejects a request whose own run was interrupted.
fn interrupted_run(policy: &Policy, id: &RecordId) -> Rejection {
    let unknown = "The request was interrupted, and it is unknown whether it took effect.";
    let then = match policy.on_interrupted {
        OnInterrupted::Rerun => "With the same key it is run again.",
        OnInterrupted::Refuse if policy.reconciler.is_some() => "With the same key it is found out.",
        OnInterrupted::Refuse => {
            "It is not run again under this key. A new key would run it again; find out first, or ask the operator, \
             who can settle it."
        }
    };
    let interrupted_run =
        Rejection::new(RejectionKind::OutcomeUnknown, format!("{unknown} {then}")).for_the_operator(id);
    let retry_with_same_key = policy.answers_retries();
    Rejection { status: StatusCode::INTERNAL_SERVER_ERROR, retry_with_same_key, ..interrupted_run }
}
