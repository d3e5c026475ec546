//! The return value of a handler that has committed its answer.

use bytes::Bytes;
use http::Response;

use crate::server::answer::snapshot;

/// The answer that was committed with its effect. A handler returns it; the layer answers with its record.
#[derive(Debug)]
#[must_use]
pub struct Committed {
    /// The answer as `Recorder` has encoded it for the store.
    pub(crate) outcome: Bytes,
}

impl Committed {
    /// Returns the answer, as it was recorded.
    #[must_use]
    pub fn answer(self) -> Response<Bytes> {
        // The outcome was encoded by this process, so decoding does not fail.
        snapshot::decode(&self.outcome).map(|(answer, _)| answer).unwrap_or_default()
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Committed {
    fn into_response(self) -> axum::response::Response {
        self.answer().map(Into::into)
    }
}
