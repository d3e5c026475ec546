//! What an answer that is no outcome says about the operation, in a header that clients read.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

/// What an answer says about the operation, where it is not the operation's recorded outcome.
///
/// The layer says it in the header [`Effect::HEADER`], as an Item of structured fields (RFC 9651, section 3.3): a Token
/// of this type, and the parameter `retry`, which is true if the same request with the same key may get another answer,
/// and false if it does not; `done` also has the parameter `status`. Each [`Rejection`](crate::Rejection) has both. So
/// has a handler's answer that leaves its operation unknown. A handler's answer that frees the key has `none` alone,
/// and its status says the rest. An outcome has no such header, nor has its replay.
///
/// [`guide::meanings`](mod@crate::guide::meanings) has the value for each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// `none`: nothing was done for this request.
    None,
    /// `pending`: a request with this key is being processed.
    Pending,
    /// `unknown`: the operation may have taken place. A new key could run it a second time.
    Unknown,
    /// `done`: the operation has ended, with the answer whose status is the parameter `status`.
    Done,
}

impl Effect {
    /// The header: `Idempotency-Effect`.
    pub const HEADER: HeaderName = HeaderName::from_static("idempotency-effect");

    /// Its name: the Token.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
            Self::Done => "done",
        }
    }

    /// Says it in the head of an answer. `retry` is the parameter of this name, and `status` that of an operation that
    /// is done; `None` leaves them out.
    pub(crate) fn say(self, headers: &mut HeaderMap, retry: Option<bool>, status: Option<StatusCode>) {
        let value = HeaderValue::from_static(match (self, retry) {
            (Self::None, None) => "none",
            (Self::None, Some(true)) => "none;retry",
            (Self::None, Some(false)) => "none;retry=?0",
            (Self::Pending, Some(false)) => "pending;retry=?0",
            (Self::Pending, None | Some(true)) => "pending;retry",
            (Self::Unknown, Some(true)) => "unknown;retry",
            (Self::Unknown, None | Some(false)) => "unknown;retry=?0",
            (Self::Done, _) => "done;retry=?0",
        });
        let of_status =
            status.filter(|_| self == Self::Done).map(|status| format!("done;status={};retry=?0", status.as_u16()));
        headers.insert(Self::HEADER, of_status.and_then(|value| value.try_into().ok()).unwrap_or(value));
    }
}
