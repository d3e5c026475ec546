//! An answer, and what it says.

use std::fmt;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// An answer whose body was read to its end.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The trailers of its body, if it has any.
    pub trailers: Option<&'a HeaderMap>,
    /// Its whole body.
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// An answer without trailers.
    #[must_use]
    pub fn new(status: StatusCode, headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        Self { status, headers, trailers: None, body }
    }

    /// The same answer, with these trailers.
    #[must_use]
    pub fn with_trailers(self, trailers: Option<&'a HeaderMap>) -> Self {
        Self { trailers, ..self }
    }

    /// Returns the body, if its type is JSON and it is.
    pub(crate) fn json(&self) -> Option<Value> {
        if !has_json(self.headers) {
            return None;
        }
        serde_json::from_slice(self.body).ok()
    }
}

/// Returns whether the type of a message is JSON, by its name or its suffix (RFC 6839, section 3.1).
pub(crate) fn has_json(headers: &HeaderMap) -> bool {
    only(lines(headers, CONTENT_TYPE)).is_some_and(|kind| {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        kind == b"application/json" || kind.ends_with(b"+json")
    })
}

/// Returns the values of all lines of a field. Most answers have so few fields that comparing all names takes less time
/// than hashing one.
#[inline]
pub(crate) fn lines(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers.iter().filter_map(move |(other, value)| (*other == name).then_some(value.as_bytes()))
}

/// Returns the only one.
#[inline]
pub(crate) fn only<T>(mut lines: impl Iterator<Item = T>) -> Option<T> {
    lines.next().filter(|_| lines.next().is_none())
}

/// What an answer says about its operation, other than by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Says {
    /// This is the outcome, and a success.
    Done,
    /// This is the outcome, and an error of the application's: the same request gets it again.
    Refused,
    /// Nothing was done. The same request is of no use before something else has changed.
    NotStarted,
    /// Nothing was done, because the server does not accept the credentials. With others the same request may run.
    Unauthenticated,
    /// Nothing was done. The same request may be sent again, after this time if the server says one.
    TryLater(Option<Duration>),
    /// The server failed, as with the status 500.
    Failed,
    /// It is unknown whether the operation took effect.
    Unknown,
}

/// A few words for a log, without anything of the answer's own text.
impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::NotStarted => "not started",
            Self::Unauthenticated => "not authenticated",
            Self::TryLater(_) => "not started, try later",
            Self::Failed => "the server failed",
            Self::Unknown => "unknown whether it was done",
        })
    }
}
