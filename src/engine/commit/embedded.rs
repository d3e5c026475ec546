//! Effect and record in one transaction of an embedded store: what the functions of each engine share.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::commitment::PendingCommit;
use crate::engine::context::RunContext;
use crate::slots::End;
use crate::store::contract::Records as _;
use crate::store::embedded::{Purpose, Reason, StorageEngine, Transact};
use crate::store::{CommitError, EmbeddedStore, StoreError, TransactionError};
use crate::timeouts::COMMIT_TIMEOUT;

/// The time that a transaction that belongs to no run may wait for the writer.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);

impl RunContext {
    /// Sends a transaction that writes the run's effect and the record of its outcome, before the future is polled. Its
    /// closure leaves its value in `given`.
    pub(super) fn complete_in_embedded<S: StorageEngine, T: Send + 'static, E: Send + 'static>(
        &self,
        store: &EmbeddedStore<S>,
        effect: S::Transaction,
        given: Given<T>,
    ) -> impl Future<Output = Result<T, CommitError<E>>> + Send + use<S, T, E> {
        let commitment = self.commitment().cloned();
        let sent = self.begin(store).map(|(pending, purpose)| {
            // The writer calls this, so the run learns the end even if the handler drops the future.
            let settle = |result: &_| pending.answered(end_of(result));
            send(store, purpose, effect, settle)
        });
        async move {
            let result = answer(sent?).await;
            // If `answer` stopped waiting, the run need not wait for the writer either.
            if let (Some(End::InDoubt), Some(commitment)) = (end_of(&result), commitment) {
                commitment.give_up();
            }
            taken(result, &given)
        }
    }

    /// Begins the run's transaction in this store, if that is allowed.
    fn begin<S: StorageEngine, E>(&self, store: &EmbeddedStore<S>) -> Result<(PendingCommit, Purpose), CommitError<E>> {
        let commitment = self.commitment().ok_or(CommitError::FailOpen)?;
        // Each opened store has its own slots, so this tells whether the run was claimed in another store.
        if !Arc::ptr_eq(&commitment.slots, store.slots()) {
            return Err(CommitError::Foreign);
        }
        let refused = || if commitment.is_over() { CommitError::Over } else { CommitError::Twice };
        let pending = PendingCommit::begin(commitment).ok_or_else(refused)?;
        // The writer puts in the outcome that the closure returns.
        Ok((pending, Purpose::Run(commitment.completion(()))))
    }
}

/// The value that the closure of a transaction returned the last time it was called.
pub(super) type Given<T> = Arc<Mutex<Option<T>>>;

/// Returns a function that leaves the value of a transaction's closure, and returns the outcome to record.
pub(super) fn leaving<O, T>(
    encode: impl Fn(O) -> Result<(Bytes, T), TransactionError>,
) -> (impl Fn(O) -> Result<Bytes, TransactionError>, Given<T>) {
    let given = Given::default();
    let left = Given::clone(&given);
    let leave = move |value| {
        let (outcome, value) = encode(value)?;
        *left.lock() = Some(value);
        Ok(outcome)
    };
    (leave, given)
}

/// Sends a transaction that belongs to no run. Its closure leaves its value in `given`.
pub(super) fn write_alone<S: StorageEngine, T: Send + 'static, E: Send + 'static>(
    store: &EmbeddedStore<S>,
    effect: S::Transaction,
    given: Given<T>,
) -> impl Future<Output = Result<T, CommitError<E>>> + Send + use<S, T, E> {
    // No run waits for this transaction, so `settle` does nothing.
    let sent = send(store, Purpose::Own(Instant::now() + BEGIN_TIMEOUT), effect, |_| {});
    async move { taken(answer(sent).await, &given) }
}

/// Returns the value that a transaction has left, if it was done.
fn taken<T, E>(answer: Result<Bytes, CommitError<E>>, given: &Given<T>) -> Result<T, CommitError<E>> {
    // One that was done has left a value, so `Panicked` never comes from here.
    answer.and_then(|_| given.lock().take().ok_or(CommitError::Panicked))
}

/// Receives the writer's answer. It fails if the writer drops the transaction unanswered.
type SentCommit<E> = oneshot::Receiver<Result<Bytes, CommitError<E>>>;

/// Sends a transaction to the store's writer, which calls `settle` as soon as it knows the result.
fn send<S: StorageEngine, E: Send + 'static>(
    store: &EmbeddedStore<S>,
    purpose: Purpose,
    effect: S::Transaction,
    settle: impl FnOnce(&Result<Bytes, CommitError<E>>) + Send + 'static,
) -> SentCommit<E> {
    let (reply, sent) = oneshot::channel();
    let answer = Box::new(move |result: Result<_, CommitError<Reason>>| {
        let result = result.map_err(|error| error.map(own_reason));
        settle(&result);
        // The handler may have dropped its future.
        let _ = reply.send(result);
    });
    store.transact(Transact { purpose, effect, answer });
    sent
}

/// Returns the closure's own reason. Its answer cannot carry the reason of another closure.
fn own_reason<E: 'static>(reason: Reason) -> CommitError<E> {
    reason.downcast().map_or(CommitError::Panicked, |reason| CommitError::Aborted(*reason))
}

/// Waits for the writer's answer.
async fn answer<E>(sent: SentCommit<E>) -> Result<Bytes, CommitError<E>> {
    let doubt = match timeout(COMMIT_TIMEOUT, sent).await {
        Ok(Ok(answer)) => return answer,
        Ok(Err(_)) => "the store was poisoned or closed meanwhile",
        Err(_) => "a write has not returned",
    };
    Err(CommitError::Store(StoreError::uncertain(doubt)))
}

/// Returns how a transaction has ended its run, or `None` if it did nothing.
fn end_of<E>(result: &Result<Bytes, CommitError<E>>) -> Option<End> {
    match result {
        Ok(outcome) => Some(End::Outcome(outcome.clone())),
        Err(CommitError::Store(StoreError::Uncertain { .. })) => Some(End::InDoubt),
        Err(_) => None,
    }
}
