//! What an outbox holds: a call, and what has become of it. A lease returns one, and so does each look at the outbox. A
//! try makes its answer, which is written as JSON.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::Call;

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It waits for its next try, or for those before it.
    Waiting,
    /// A relay has it. If its lease ends without a result, the call is sent again.
    Sending,
    /// **An end**: the operation has taken place. The answer is kept.
    Delivered,
    /// **An end**: the server has refused the call, and the operation has not taken place.
    Refused,
    /// **An end**: there is no try any more, and no answer of the operation. It waits for an operator.
    /// [`Entry::may_have_taken_place`] says whether the operation may have taken place.
    GivenUp,
    /// It can't be read. It is set aside, and waits for an operator.
    Damaged,
}

impl State {
    /// All values.
    pub const ALL: &'static [Self] =
        &[Self::Waiting, Self::Sending, Self::Delivered, Self::Refused, Self::GivenUp, Self::Damaged];

    /// Its name, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::GivenUp => "given_up",
            Self::Damaged => "damaged",
        }
    }

    /// Returns the one with this name, which may have a hyphen for its underscore.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == name.replace('-', "_"))
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A call in an outbox, as it was when it was read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// Its place in the order in which calls were stored.
    pub position: u64,
    /// How far it has come.
    pub state: State,
    /// Scheme, host and port, without a default port; empty if it can't be read.
    pub destination: String,
    /// The call; `None` if it can't be read, and in a [list](crate::Outbox::list).
    pub call: Option<Call>,
    /// When it was put in, by the outbox's clock; 1970 if that can't be read.
    pub stored: SystemTime,
    /// How often a relay has begun to send it, since it was stored or an operator has retried it.
    pub tries: u32,
    /// When the first of these tries began, by the outbox's clock.
    pub first_try: Option<SystemTime>,
    /// When it may be tried next; while it is [sent](State::Sending), when its lease ends.
    pub due: SystemTime,
    /// Whether the operation may have taken place. **If this is `false`, it has not.**
    pub may_have_taken_place: bool,
    /// What the last try has met, or why there is none any more, for people to read.
    pub reason: Option<String>,
    /// The server's last answer, if there was one; `None` in a [list](crate::Outbox::list).
    pub answer: Option<Answer>,
    /// Each change gives the entry another one, so that a change that comes too late does nothing.
    pub(crate) fence: u64,
}

impl Entry {
    /// Returns a number that each change of the entry replaces. An operator who comes back to it compares it.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Gives it its call, or the reason why that can't be read.
    pub(crate) fn with_call(self, call: Result<Call, String>) -> Self {
        match call {
            Ok(call) => Self { call: Some(call), ..self },
            // The reason why it was set aside.
            Err(_) if self.state == State::Damaged && self.reason.is_some() => self,
            Err(why) => {
                let reason = self.reason.map_or(why.clone(), |reason| format!("{why}; {reason}"));
                Self { reason: Some(reason), ..self }
            }
        }
    }
}

/// The calls to one destination that are in one state, and have not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenCalls {
    /// The state: neither [`State::Delivered`] nor [`State::Refused`].
    pub state: State,
    /// Scheme, host and port, without a default port; empty if it can't be read.
    pub destination: String,
    /// How many they are.
    pub calls: u64,
    /// How long ago the first of them was put in, by the outbox's clock.
    pub oldest: Duration,
}

/// The answer to a call, as it is kept.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The first 16 KiB of headers, but for those that are not printable ASCII, and for `Set-Cookie`.
    pub headers: HeaderMap,
    /// The body, up to [`MAX_BODY`](Self::MAX_BODY) bytes. It is left out if the answer asks for another try, such as a
    /// 503, or has `Idempotency-Effect`, and is not JSON.
    pub body: Bytes,
    /// Whether the body was longer, broke off, or had no end in time. Not so for one that is left out.
    pub is_cut: bool,
}

impl Answer {
    /// The bytes of a body that are kept.
    pub const MAX_BODY: usize = 32 << 10;
    /// The bytes of headers that are kept, so that each database can take an answer.
    const MAX_HEADERS: usize = 16 << 10;

    pub(crate) fn to_json(&self) -> String {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.to_string(), value.to_str().ok()?.to_owned())).filter(|_| name != http::header::SET_COOKIE)
        };
        let mut left = Self::MAX_HEADERS;
        let fits = move |(name, value): &(String, String)| {
            let rest = left.checked_sub(name.len() + value.len());
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let stored = StoredAnswer {
            status: self.status.as_u16(),
            headers: self.headers.iter().filter_map(text).take_while(fits).collect(),
            body: STANDARD.encode(&self.body),
            is_cut: self.is_cut,
        };
        serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("texts and numbers alone"))
    }

    /// Reads what was stored. What can't be read is no answer.
    pub(crate) fn from_json(json: &str) -> Option<Self> {
        let stored: StoredAnswer = serde_json::from_str(json).ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in stored.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
                headers.try_append(name, value).ok()?;
            }
        }
        Some(Self {
            status: StatusCode::from_u16(stored.status).ok()?,
            headers,
            body: STANDARD.decode(stored.body).ok()?.into(),
            is_cut: stored.is_cut,
        })
    }
}

impl fmt::Debug for Answer {
    /// Leaves out headers and body, which may have what does not belong into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// An answer in JSON.
#[derive(Serialize, Deserialize)]
struct StoredAnswer {
    status: u16,
    headers: Vec<(String, String)>,
    /// In base64.
    body: String,
    is_cut: bool,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(tries: u32, may_have_taken_place: bool) -> Entry {
        Entry {
            position: 1,
            stored: SystemTime::now(),
            state: State::Sending,
            destination: String::new(),
            call: None,
            tries,
            first_try: None,
            due: SystemTime::now(),
            may_have_taken_place,
            reason: None,
            answer: None,
            fence: 1,
        }
    }

    #[test]
    fn a_call_that_can_t_be_read_says_why_and_what_the_last_try_has_met() {
        for (state, met, said) in [
            (State::Waiting, None, "no call"),
            (State::Waiting, Some("the connection broke"), "no call; the connection broke"),
            (State::Damaged, None, "no call"),
            // It was said when it was set aside.
            (State::Damaged, Some("no call; the connection broke"), "no call; the connection broke"),
        ] {
            let entry = Entry { state, reason: met.map(str::to_owned), ..entry(1, true) };
            let entry = entry.with_call(Err("no call".to_owned()));
            assert_eq!((entry.call, entry.reason.as_deref()), (None, Some(said)), "{state} {met:?}");
        }
    }
}
