use crate::Key;

/// How an answer came about. The layer puts it into the extensions of each response to a request with a key.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub(crate) key: Key,
    pub(crate) attempts: u32,
    pub(crate) is_replay: bool,
    pub(crate) is_earlier_unknown: bool,
}

impl Delivery {
    /// The delivery of a response that has come through the layer; `None` if the request had a safe method.
    #[must_use]
    pub fn of<B>(response: &http::Response<B>) -> Option<&Self> {
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

    /// Whether the server says that this is the recorded answer of an earlier attempt (`Idempotent-Replayed: true`).
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// Whether an earlier attempt of this call may have had an effect of which this answer says nothing: that attempt
    /// was lost, and this answer is neither a success nor a replay.
    ///
    /// A 401 after a lost attempt, for example, says that the token has expired since, and not that nothing was done.
    /// Ask again with the same key.
    #[must_use]
    pub fn is_earlier_unknown(&self) -> bool {
        self.is_earlier_unknown
    }
}
