//! What a layer tells an observer: the events of its calls, and how a call ends.

use std::time::Duration;

use crate::Known;

/// Learns how the calls of a layer go: for metrics and alerts of your own. Give it to the layer with
/// [`observe`](crate::KeyedRetryLayer::observe). Each method is one event and does nothing by default.
///
/// Every argument is a duration, a number, or one of few values, which can be labels of metrics. None says which key,
/// URL or account an event is about. A method is called in the task of the call: **it must return at once**. If it
/// panics, so does the call. Requests with a safe method, and calls without a valid key, have no events. A call that is
/// dropped has no end.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use tower_idempotency_client::{CallEnd, KeyedRetryLayer, Observer};
///
/// #[derive(Default)]
/// struct Unknown(AtomicU64);
///
/// impl Observer for Unknown {
///     fn ended(&self, end: CallEnd, attempts: u32, took: Duration) {
///         if end == CallEnd::Unknown {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let layer = KeyedRetryLayer::new().observe(Unknown::default());
/// ```
#[allow(unused_variables, reason = "the names of arguments are documentation")]
pub trait Observer: Send + Sync + 'static {
    /// An attempt begins. The first one of a call has the number 1; each further one is a retry.
    fn attempt(&self, number: u32) {}

    /// A call has ended after so many attempts. `took` is the time since it began, waits included.
    fn ended(&self, end: CallEnd, attempts: u32, took: Duration) {}
}

/// How a call ended: with an answer, or with an [`Error`](crate::Error).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallEnd {
    /// The server's answer, of any status, which is no replay.
    Answered,
    /// The recorded answer of an earlier attempt.
    Replayed,
    /// An error: nothing was sent.
    NotSent,
    /// An error: the server refused the operation.
    Refused,
    /// **The operation may have taken place**: an error with [`Known::Unknown`], or an answer of which
    /// [`Delivery::is_unknown`](crate::Delivery::is_unknown) says so.
    Unknown,
    /// An error: the operation has taken place, and its answer was not kept.
    NotKept,
}

impl CallEnd {
    /// All values.
    pub const ALL: &'static [Self] =
        &[Self::Answered, Self::Replayed, Self::NotSent, Self::Refused, Self::Unknown, Self::NotKept];

    /// Returns its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Replayed => "replayed",
            Self::NotSent => "not-sent",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::NotKept => "not-kept",
        }
    }
}

impl From<Known> for CallEnd {
    fn from(known: Known) -> Self {
        match known {
            Known::NotSent => Self::NotSent,
            Known::Refused => Self::Refused,
            Known::Unknown => Self::Unknown,
            Known::Done => Self::NotKept,
        }
    }
}
