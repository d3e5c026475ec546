//! What an operator does, in one call.

use bytes::Bytes;
use http::Response;
use tower_idempotency::operations::{Action, Answer, Applied, Change, ChangeError, Operations};
use tower_idempotency::store::Store;
use tower_idempotency::{Fence, IdempotencyLayer, Once, RecordId};

/// A layer or a consumer, whose operations an operator changes.
pub trait Operated<St: Store>: Sync {
    /// Returns its operators' interface.
    fn operated(&self) -> Operations<St>;

    /// Makes a change of one operation.
    fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        action: Action,
    ) -> impl Future<Output = Result<Applied, ChangeError>> + Send {
        async move { self.operated().by("the test").apply(Change::new(id, fence, action)).await }
    }
}

impl<St: Store, M: Sync> Operated<St> for IdempotencyLayer<St, M> {
    fn operated(&self) -> Operations<St> {
        self.operations()
    }
}

impl<St: Store> Operated<St> for Once<St> {
    fn operated(&self) -> Operations<St> {
        self.operations()
    }
}

/// Retries get this answer, of a layer.
pub fn answer(body: impl Into<Bytes>) -> Action {
    Action::Answer(Answer::Http(Response::new(body.into())))
}

/// Redeliveries get this outcome, of a consumer.
pub fn outcome(bytes: impl Into<Bytes>) -> Action {
    Action::Answer(Answer::Bytes(bytes.into()))
}
