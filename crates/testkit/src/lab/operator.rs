//! What an operator does, in one call.

use bytes::Bytes;
use http::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_idempotency::operations::{
    Action, Answer, Applied, Change, ChangeError, Filter, OperationRecord, Operations, Reconciliation, StateKind,
};
use tower_idempotency::store::{Store, StoreError};
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

    /// Lists interrupted operations, at most `limit`.
    fn interrupted(&self, limit: usize) -> impl Future<Output = Result<Vec<OperationRecord>, StoreError>> + Send {
        let interrupted = Filter::all().in_state(StateKind::Interrupted);
        async move {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let page = self.operated().list(&interrupted, after.as_ref(), limit - listed.len()).await?;
                listed.extend(page.operations);
                after = page.next;
                if after.is_none() || listed.len() == limit {
                    return Ok(listed);
                }
            }
        }
    }

    /// Asks the reconciler about all interrupted operations.
    fn reconcile_all(&self) -> impl Future<Output = Result<Reconciliation, StoreError>> + Send {
        async move { self.operated().by("the test").reconcile_all().await }
    }
}

impl<St: Store, M: Sync> Operated<St> for IdempotencyLayer<St, M> {
    fn operated(&self) -> Operations<St> {
        self.operations()
    }
}

impl<St: Store, T: DeserializeOwned> Operated<St> for Once<St, T> {
    fn operated(&self) -> Operations<St> {
        self.operations()
    }
}

/// Retries get this answer, of a layer.
pub fn answer(body: impl Into<Bytes>) -> Action {
    Action::Answer(Answer::Http(Response::new(body.into())))
}

/// Redeliveries get this outcome, of a consumer.
pub fn outcome(value: impl Serialize) -> Action {
    Action::Answer(Answer::Bytes(serde_json::to_vec(&value).expect("it can be written").into()))
}
