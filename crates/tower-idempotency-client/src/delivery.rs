//! How an answer came about, for the extensions of a response.

use http::Response;
use tower_idempotency_meaning::Says;

use crate::Key;
use crate::verdict::is_success;

/// How an answer came about. The layer puts it into the extensions of each response to a request with a key.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub(crate) key: Key,
    pub(crate) attempts: u32,
    pub(crate) is_replay: bool,
    pub(crate) is_unknown: bool,
    pub(crate) says: Option<Says>,
}

impl Delivery {
    /// The delivery of a response that has come through the layer; `None` if the request had a safe method.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }

    /// The key that was sent.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How many attempts there were, this one included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the server says, in the header of
    /// [`replay_header_name`](crate::KeyedRetryLayer::replay_header_name), that this is the recorded answer of an
    /// earlier attempt.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// What the body or the trailers of the answer say, by gRPC's rules or by the
    /// [`judge`](crate::KeyedRetryLayer::judge); `None` if they say nothing, so that the status counts.
    #[must_use]
    pub fn says(&self) -> Option<Says> {
        self.says
    }

    /// Whether this answer is a success: by its status, and by what its body or its trailers [say](Self::says).
    #[must_use]
    pub fn is_success<B>(response: &Response<B>) -> bool {
        is_success(response.status(), Self::of(response).and_then(Self::says))
    }

    /// Whether the operation may have taken place although this answer is no success. Ask again with the same key; or,
    /// if it is a replay, look the operation up.
    ///
    /// That is so if it is a replay of neither a success nor a registered client's error, such as 500 or 499, or of
    /// 408: the server may have failed after the effect. So it is with a replay that says `unknown` in
    /// `Idempotency-Effect`. It is so, too, if the answer is no replay, and
    /// - an earlier attempt of the call was lost, or an earlier call with the key is remembered: a 401 after it says
    ///   that the token has expired since, and not that nothing was done; or
    /// - it is neither a success nor a client's error nor 307, 308 or 511, such as 500 or 303, and has no
    ///   `Idempotency-Effect: none`; or
    /// - it is a 409 to a key of the caller's own: an earlier call with that key may still run; or
    /// - it came after a redirect that was followed.
    ///
    /// Where the answer [says](Self::says) something by its body or its trailers, that counts in place of its status:
    /// `Failed` and `Unknown` leave the operation unknown.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }
}
