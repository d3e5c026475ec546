//! Effect and record in one transaction: the functions that a run calls.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::commitment::{CommitResult, PendingCommit};
use crate::engine::context::RunContext;
use crate::store::embedded::{Purpose, Reason, Transact};
use crate::store::sled_engine::SledStore;
use crate::store::{Abort, CommitError, Records as _, StoreError, TransactionTree, effect_of};
use crate::within::COMMIT_ANSWERED_WITHIN;

/// The time that a transaction that belongs to no run may wait for the writer.
const BEGUN_WITHIN: Duration = Duration::from_secs(30);

impl RunContext {
    /// Writes the run's effect and the record of its outcome in one transaction, durably. With
    /// [`Rerun`](crate::engine::OnInterrupted::Rerun) the effect takes place exactly once: a crash leaves both or
    /// neither, and a retry gets the outcome or runs.
    ///
    /// `closure` is given the trees, which must have been opened from [`SledStore::db`], and returns the outcome. It
    /// runs on the store's writer thread, where every other request waits for it, look-ups included: it should only
    /// read and write these trees. The database may call it again, after undoing what it wrote. Whatever the run
    /// returns afterwards, the client gets this outcome. All that the transaction writes, the outcome included, is at
    /// most 128 KiB.
    ///
    /// # Errors
    /// [`CommitError`]. Unless it is uncertain whether the transaction is durable, nothing was done, and the value that
    /// the run returns counts as usual.
    ///
    /// # Cancel safety
    /// The transaction is sent when this is *called*; dropping the future undoes nothing, and the transaction still
    /// settles the run.
    pub fn complete_in_trees<const N: usize, E, F>(
        &self,
        store: &SledStore,
        trees: [&sled::Tree; N],
        closure: F,
    ) -> impl Future<Output = Result<Bytes, CommitError<E>>> + Send + use<N, E, F>
    where
        F: FnMut([TransactionTree<'_>; N]) -> Result<Bytes, Abort<E>> + Send + 'static,
        E: Send + 'static,
    {
        let mut closure = closure;
        // The outcome may be a small part of a large buffer, which the record would keep alive.
        self.commit_whole(store, trees, move |trees| Ok(Bytes::copy_from_slice(&closure(trees)?)))
    }

    /// Does the same for an outcome that fills its buffer.
    pub(crate) fn commit_whole<const N: usize, E, F>(
        &self,
        store: &SledStore,
        trees: [&sled::Tree; N],
        closure: F,
    ) -> impl Future<Output = Result<Bytes, CommitError<E>>> + Send + use<N, E, F>
    where
        F: FnMut([TransactionTree<'_>; N]) -> Result<Bytes, Abort<E>> + Send + 'static,
        E: Send + 'static,
    {
        let commitment = self.commitment().cloned();
        let sent = self.begin(store).map(|(pending, purpose)| {
            // The writer calls this, so the run learns the end even if the handler drops the future.
            let settle = |result: &_| pending.answered(commit_result(result));
            send(store, purpose, trees, closure, settle)
        });
        async move {
            let result = answer(sent?).await;
            // If `answer` stopped waiting, the run need not wait for the writer either.
            if let (CommitResult::Doubt, Some(commitment)) = (commit_result(&result), commitment) {
                commitment.give_up();
            }
            result
        }
    }

    /// Begins the run's transaction in this store, if that is allowed.
    fn begin<E>(&self, store: &SledStore) -> Result<(PendingCommit, Purpose), CommitError<E>> {
        let commitment = self.commitment().ok_or(CommitError::Unprotected)?;
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

impl SledStore {
    /// Writes to trees of the application in one transaction, durably, for effects that belong to no run. The effect of
    /// a run should be written with the record of its outcome, by [`RunContext::complete_in_trees`].
    ///
    /// `closure` is given the trees, which must have been opened from [`db`](Self::db). It runs on the store's writer
    /// thread, where every other request waits for it, so it should only read and write these trees; the database may
    /// call it again. What it writes is limited to 128 KiB, where each key counts 64 bytes more: after a power cut
    /// during a longer transaction, or a longer `apply_batch` of your own, sled may not be able to open the database
    /// again.
    ///
    /// # Errors
    /// [`CommitError`], as `Aborted`, `Panicked`, `Refused`, `Trees` or `Store`. Nothing was done, unless it is
    /// uncertain whether the transaction is durable, as it is when a write has not returned in 70 seconds. The store
    /// returns [`Overloaded`](StoreError::Overloaded) at once while 4,096 commands wait for it, and
    /// [`Unavailable`](StoreError::Unavailable) if it comes to the transaction only after 30 seconds and does not begin
    /// it.
    ///
    /// # Cancel safety
    /// The transaction is sent when this is *called*; dropping the future undoes nothing.
    pub fn transaction<const N: usize, T, E, F>(
        &self,
        trees: [&sled::Tree; N],
        closure: F,
    ) -> impl Future<Output = Result<T, CommitError<E>>> + Send + use<N, T, E, F>
    where
        F: FnMut([TransactionTree<'_>; N]) -> Result<T, Abort<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        // The value that the closure returned the last time it was called.
        let given = Arc::new(Mutex::new(None));
        let (mut closure, value) = (closure, Arc::clone(&given));
        let kept = move |trees: [TransactionTree<'_>; N]| {
            *value.lock() = Some(closure(trees)?);
            // No record is written, so the writer needs no outcome.
            Ok(Bytes::new())
        };
        // No run waits for this transaction, so `settle` does nothing.
        let sent = send(self, Purpose::Own(Instant::now() + BEGUN_WITHIN), trees, kept, |_| {});
        // A transaction that was done has left a value, so `Panicked` never comes from here.
        async move { answer(sent).await.and_then(|_| given.lock().take().ok_or(CommitError::Panicked)) }
    }
}

/// Receives the writer's answer. It fails if the writer drops the transaction unanswered.
type SentCommit<E> = oneshot::Receiver<Result<Bytes, CommitError<E>>>;

/// Sends a transaction to the store's writer, which calls `settle` as soon as it knows the result.
fn send<const N: usize, E, F>(
    store: &SledStore,
    purpose: Purpose,
    trees: [&sled::Tree; N],
    closure: F,
    settle: impl FnOnce(&Result<Bytes, CommitError<E>>) + Send + 'static,
) -> SentCommit<E>
where
    F: FnMut([TransactionTree<'_>; N]) -> Result<Bytes, Abort<E>> + Send + 'static,
    E: Send + 'static,
{
    let (reply, sent) = oneshot::channel();
    let answer = Box::new(move |result: Result<_, CommitError<Reason>>| {
        let result = result.map_err(|error| error.map(own_reason));
        settle(&result);
        // The handler may have dropped its future.
        let _ = reply.send(result);
    });
    store.transact(Transact { purpose, effect: effect_of(trees, closure), answer });
    sent
}

/// Returns the closure's own reason. Its answer cannot carry the reason of another closure.
fn own_reason<E: 'static>(reason: Reason) -> CommitError<E> {
    reason.downcast().map_or(CommitError::Panicked, |reason| CommitError::Aborted(*reason))
}

/// Waits for the writer's answer.
async fn answer<E>(sent: SentCommit<E>) -> Result<Bytes, CommitError<E>> {
    let doubt = match timeout(COMMIT_ANSWERED_WITHIN, sent).await {
        Ok(Ok(answer)) => return answer,
        Ok(Err(_)) => "the store was poisoned or closed meanwhile",
        Err(_) => "a write has not returned",
    };
    Err(CommitError::Store(StoreError::uncertain(doubt)))
}

/// Returns how a transaction ended, in the form that the run's commitment takes.
fn commit_result<E>(result: &Result<Bytes, CommitError<E>>) -> CommitResult {
    match result {
        Ok(outcome) => CommitResult::Committed(outcome.clone()),
        Err(CommitError::Store(StoreError::Uncertain { .. })) => CommitResult::Doubt,
        Err(_) => CommitResult::Nothing,
    }
}
