//! A run that a transaction can complete.

use bytes::Bytes;
use serde::Serialize;

use crate::engine::context::RunContext;
use crate::engine::once_context::{OnceContext, json_of};
use crate::store::TransactionError;
use crate::store::contract::Sealed;

/// A run that a transaction of the application can complete, by the `complete_in` of a store: the context of a handler
/// ([`IdempotencyContext`](crate::IdempotencyContext)), or of a consumer ([`OnceContext`](crate::engine::OnceContext)).
/// The trait is sealed.
pub trait Completable: Sealed + 'static {
    /// What the transaction records: an HTTP answer, or a consumer's outcome.
    type Outcome: Send + 'static;
    /// What the run returns after the commit: [`Committed`](crate::server::Committed), or the outcome.
    type Committed: Send + 'static;

    /// Returns the engine's part.
    #[doc(hidden)]
    fn run(&self) -> &RunContext;

    /// Returns what encodes an outcome for its record.
    #[doc(hidden)]
    fn encoder(&self) -> Encoder<Self::Outcome, Self::Committed>;
}

/// What a run can be completed with: a consumer with its outcome, and with the feature `axum` a handler with anything
/// that axum makes a response of, such as `(StatusCode::CREATED, Json(order))`.
pub trait IntoOutcome<R: Completable>: Send {
    /// Returns what the transaction records. The body of an answer is read, up to `max_response_body`.
    #[doc(hidden)]
    fn into_outcome(self, run: &R) -> impl Future<Output = Result<R::Outcome, TransactionError>> + Send;
}

/// Encodes an outcome for its record, or refuses it.
#[doc(hidden)]
pub type Encoder<Outcome, Committed> = Box<dyn Fn(Outcome) -> Result<(Bytes, Committed), TransactionError> + Send>;

impl<T> Sealed for OnceContext<T> {}

impl<T: Serialize + Send + 'static> Completable for OnceContext<T> {
    type Outcome = T;
    type Committed = T;

    fn run(&self) -> &RunContext {
        &self.run
    }

    fn encoder(&self) -> Encoder<T, T> {
        Box::new(|outcome| match json_of(&outcome) {
            Ok(json) => Ok((json, outcome)),
            Err(error) => Err(TransactionError::Unwritable(error.to_string())),
        })
    }
}

impl<T: Serialize + Send + 'static> IntoOutcome<OnceContext<T>> for T {
    async fn into_outcome(self, _: &OnceContext<T>) -> Result<T, TransactionError> {
        Ok(self)
    }
}
