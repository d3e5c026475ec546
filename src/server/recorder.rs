//! An answer given by the application beside a run, as the outcome of one.

use bytes::Bytes;
use http::{HeaderName, Response};

use super::kept::KeptHeaders;
use super::snapshot;

/// What decides how an answer is recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    pub(super) kept_headers: KeptHeaders,
    pub(super) replay_header_name: HeaderName,
    pub(super) max_response_body: usize,
}

impl Recorder {
    /// The outcome of an answer; `None` where it is too long for one.
    pub(super) fn record(&self, answer: &Response<Bytes>) -> Option<Bytes> {
        if answer.body().len() > self.max_response_body {
            return None;
        }
        let kept = self.kept_headers.choose(answer.headers(), &self.replay_header_name, false);
        snapshot::encode(answer.status(), kept, answer.body(), None)
    }
}
