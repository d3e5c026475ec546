//! Why a call has no answer, and what is known of its operation.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;
use tower_idempotency_meaning::Says;

use crate::{BoxError, Key};

/// What is known of an operation when a call has ended without an answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Known {
    /// No attempt was sent. The operation has not taken place.
    NotSent,
    /// The server refused the operation: nothing was done for this call. Each attempt was refused before it began, or
    /// the one that ran was refused. With a key of the caller's own, this says nothing of calls before that this client
    /// does not remember.
    Refused,
    /// **The operation may have taken place.** A new key could run it a second time. Ask again with the same key. If
    /// the server's last answer is final, that is of no use: quote [`Error::record_id`] to the operator of the API, and
    /// once they have settled the operation, its key gets the outcome. If there is none, the last answer was about
    /// another request than an earlier attempt's: ask again as that one did, or look the operation up.
    Unknown,
    /// The operation has taken place, and its answer was not kept. Look its result up; do not send it again.
    Done,
}

/// Why a call ended without another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The server's rejection is final: the same request gets it again. [`Error::response`] has it.
    Rejected,
    /// The operation has ended, and its answer was not kept. [`Error::known`] says how, whatever earlier attempts have
    /// met. [`Error::response`] has the server's rejection.
    NotKept,
    /// The deadline for all attempts is over, or would be before the next one.
    Deadline,
    /// The backoff policy permits no more attempts.
    Backoff,
    /// The budget that calls share for their retries is used up.
    Budget,
    /// The body can't be sent again.
    SentOnce,
    /// The client may have followed a redirect to another origin. Build it without redirects, and say so with
    /// [`without_redirects`](crate::KeyedRetryLayer::without_redirects).
    Redirect,
    /// The key is not a valid one. Nothing was sent.
    InvalidKey,
    /// This client has used the key for another request. Nothing was sent. Use a new key for a new operation.
    KeyReused,
    /// The inner service can't take the request: it is not ready, or the request is malformed.
    Unsendable,
    /// The method is safe, so the layer has passed the request through: it has no key, and was not retried.
    PassedThrough,
}

/// A call that ended without an answer to its operation.
///
/// `source` is the failure of the last attempt, if that got no response, or one that broke off.
pub struct Error(Box<Parts>);

struct Parts {
    known: Known,
    reason: Reason,
    key: Option<Key>,
    attempts: u32,
    response: Option<http::Response<Bytes>>,
    source: Option<BoxError>,
}

impl Error {
    pub(crate) fn new(known: Known, reason: Reason, source: Option<BoxError>) -> Self {
        Self(Box::new(Parts { known, reason, key: None, attempts: 0, response: None, source }))
    }

    pub(crate) fn of_call(mut self, key: Key, attempts: u32, response: Option<http::Response<Bytes>>) -> Self {
        (self.0.key, self.0.attempts, self.0.response) = (Some(key), attempts, response);
        self
    }

    /// What is known of the operation, from all attempts of this call, and from calls with the key that this client
    /// remembers: after one of those, it is never less than [`Known::Unknown`].
    #[must_use]
    pub fn known(&self) -> Known {
        self.0.known
    }

    /// Why there was no further attempt.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The key to ask again with, unless the error came before there was one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// How many attempts began.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The name by which the operator of the API finds the operation, if the server's rejection has one: hexadecimal
    /// digits of its record's id, as a rule eight. Servers with tower-idempotency name one where they do not know
    /// whether the operation took place.
    #[must_use]
    pub fn record_id(&self) -> Option<String> {
        let rejection: Value = serde_json::from_slice(self.0.response.as_ref()?.body()).ok()?;
        let id = rejection["record_id"].as_str()?;
        let is_id = (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    }

    /// What the body or the trailers of the last response say, by gRPC's rules or by the
    /// [`judge`](crate::KeyedRetryLayer::judge); `None` if they say nothing, so that its head counted.
    #[must_use]
    pub fn says(&self) -> Option<Says> {
        self.0.response.as_ref()?.extensions().get().copied()
    }

    /// The response that the last attempt got, if it got one. Its body is what the layer has read of it. If it broke
    /// off, or had no end in time, this error has a `source`, too: a status of success without `Idempotency-Effect`
    /// says that the operation has taken place, and a call with the same key may get the rest.
    #[must_use]
    pub fn response(&self) -> Option<&http::Response<Bytes>> {
        self.0.response.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_final = matches!(self.0.reason, Reason::Rejected | Reason::NotKept);
        formatter.write_str(match self.0.known {
            Known::NotSent => "nothing was sent",
            Known::Refused => "the server refused it: nothing was done for this call",
            Known::Unknown if is_final => "the operation may have taken place",
            Known::Unknown => "the operation may have taken place; ask again with the same key",
            Known::Done => "the operation has taken place, and its answer was not kept; look its result up",
        })?;
        formatter.write_str(match self.0.reason {
            Reason::Rejected => ": the same request is rejected again",
            Reason::NotKept => ": it has ended, and its answer was not kept",
            Reason::Deadline => ": the deadline for all attempts leaves no time for another one",
            Reason::Backoff => ": the backoff policy permits no more attempts",
            Reason::Budget => ": the budget for retries is used up",
            Reason::SentOnce => ": the body can't be sent again",
            Reason::Redirect => {
                ": the client may have followed a redirect; build it without redirects, and set without_redirects"
            }
            Reason::InvalidKey => ": the idempotency key is not valid",
            Reason::KeyReused => {
                ": the idempotency key was used for another request; use a new one for a new operation"
            }
            Reason::Unsendable => ": the inner service can't take the request",
            Reason::PassedThrough => ": a request with a safe method is not retried",
        })?;
        if is_final && self.0.known == Known::Unknown {
            match self.record_id() {
                Some(id) => write!(formatter, "; quote {id} to the operator of the API")?,
                None if self.0.reason == Reason::NotKept => formatter.write_str("; look the operation up")?,
                None => formatter.write_str("; ask again as an earlier attempt did, or look the operation up")?,
            }
        }
        match (&self.0.response, self.says()) {
            (Some(response), Some(says)) => {
                write!(formatter, " ({}: {says}, attempt {})", response.status(), self.0.attempts)
            }
            (Some(response), None) => write!(formatter, " ({}, attempt {})", response.status(), self.0.attempts),
            (None, _) if self.0.attempts > 0 => write!(formatter, " (attempt {})", self.0.attempts),
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and bodies may have the key, and more that does not belong into logs.
        let status = self.0.response.as_ref().map(http::Response::status);
        formatter
            .debug_struct("Error")
            .field("known", &self.0.known)
            .field("reason", &self.0.reason)
            .field("attempts", &self.0.attempts)
            .field("status", &status)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
