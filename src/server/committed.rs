//! The return value of a handler that has committed its answer.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "axum")]
use std::time::Duration;

use bytes::Bytes;
use http::Response;

#[cfg(feature = "axum")]
use crate::engine::IntoOutcome;
use crate::engine::{Completable, Encoder, RunContext};
use crate::server::answer::snapshot;
#[cfg(feature = "axum")]
use crate::server::bodies::collect::{Bounds, Collected, collect, is_cut};
use crate::server::context::IdempotencyContext;
use crate::store::TransactionError;
use crate::store::contract::Sealed;

/// The answer that was committed with its effect. A handler returns it; the layer answers with its record.
#[must_use]
pub struct Committed {
    /// The answer as `Recorder` has encoded it for the store.
    pub(crate) outcome: Bytes,
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed").field("bytes", &self.outcome.len()).finish()
    }
}

impl Committed {
    /// Returns the answer, as it was recorded.
    #[must_use]
    pub fn answer(self) -> Response<Bytes> {
        // The outcome was encoded by this process, so decoding does not fail.
        snapshot::decode(&self.outcome).map(|(answer, _)| answer).unwrap_or_default()
    }
}

impl Sealed for IdempotencyContext {}

impl Completable for IdempotencyContext {
    type Outcome = Response<Bytes>;
    type Committed = Committed;

    fn run(&self) -> &RunContext {
        &self.run
    }

    fn encoder(&self) -> Encoder<Response<Bytes>, Committed> {
        let recorder = Arc::clone(&self.recorder);
        Box::new(move |answer| {
            // It is refused if its body is longer than `max_response_body`.
            let outcome = recorder.record(&answer).ok_or(TransactionError::Unrecordable)?;
            Ok((outcome.clone(), Committed { outcome }))
        })
    }
}

#[cfg(feature = "axum")]
impl<A: axum::response::IntoResponse + Send> IntoOutcome<IdempotencyContext> for A {
    async fn into_outcome(self, context: &IdempotencyContext) -> Result<Response<Bytes>, TransactionError> {
        let (parts, body) = self.into_response().into_parts();
        // The transaction is open meanwhile, so no stream is waited for.
        let time = Some(Duration::from_secs(10));
        let mut bounds = Bounds { bytes: context.recorder.max_response_body, time, ..Bounds::default() };
        match collect(Box::pin(body), &mut bounds).await {
            Collected::Whole { data, trailers: None } if !is_cut(&parts, data.len(), None) => {
                Ok(Response::from_parts(parts, data))
            }
            _ => Err(TransactionError::Unrecordable),
        }
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Committed {
    fn into_response(self) -> axum::response::Response {
        self.answer().map(Into::into)
    }
}
