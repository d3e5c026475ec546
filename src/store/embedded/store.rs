//! The handle of an embedded store, which applications and the rest of the crate call: a look (`load`), and then the
//! claim and the end, which are both an `apply`; and at last `close`.

use std::fmt;
use std::future::{Future, ready};
#[cfg(feature = "fjall")]
use std::path::Path;
use std::sync::Arc;

use futures_util::future::Either;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::command::{Asked, Command, ReplyTo, Submitted};
use super::layout::storage_engine::StorageEngine;
use super::queue::Sender;
use super::read::{self, on_blocking_thread};
use super::state::StoreState;
use super::transact::{Purpose, Transact};
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{self, Claim, Current, Edit, Fence, Record, Stepped, Transition};
use crate::slots::Slots;
use crate::store::contract::{Gauges, Health, Records, Sealed, Store};
use crate::store::page::{Cursor, List, Page};
use crate::store::{CommitError, StoreError};
use crate::timeouts::STORE_ANSWER_TIMEOUT;

/// A store in a directory of its own, over the storage engine `E`: a [`SledStore`](crate::SledStore), for example.
///
/// A value is a handle, and clones share the open store. A directory has [one process](mod@crate::guide::embedded) at a
/// time, and in it one opening.
///
/// # Durability
/// The store answers when its data is on disk: written, and made durable with `fdatasync`. One sync serves all that
/// came in meanwhile (group commit). While few commands have come and other runs are under way, it waits for theirs for
/// up to some 0.2 ms more. If a write, sync or read fails, or a write does not return within a minute, the store is
/// [poisoned](Health::Poisoned): it answers only what memory can, and the process must be restarted.
pub struct EmbeddedStore<E: StorageEngine>(pub(super) Arc<Inner<E>>);

/// The state that the clones share. When the last one is dropped, so is `writer`, and the writer's thread ends.
pub(super) struct Inner<E: StorageEngine> {
    pub(super) shared: Arc<StoreState<E>>,
    pub(super) writer: Sender<Command<E>>,
}

impl<E: StorageEngine> Clone for EmbeddedStore<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E: StorageEngine> fmt::Debug for EmbeddedStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbeddedStore").field(&self.0.shared).finish()
    }
}

impl<E: StorageEngine> EmbeddedStore<E> {
    /// Returns the number of records. Expired records that are not swept yet count; runs whose claims leave no trace
    /// (`Rerun`) do not.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.shared.totals.lock().count
    }

    /// Returns whether the store holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns when everything that was written to the database before this call is durable.
    ///
    /// # Errors
    /// [`StoreError::Uncertain`] if the sync failed, which poisons the store; [`StoreError::Unavailable`] if the store
    /// is closed or poisoned.
    ///
    /// # Cancel safety
    /// The sync takes place even if its answer is not awaited.
    pub fn sync(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<E> {
        answer(self.send(Command::Sync))
    }

    /// Returns a fence that is above all that were given so far.
    #[doc(hidden)]
    #[must_use]
    pub fn fence_above_all(&self) -> Fence {
        Fence(self.0.shared.unused_number())
    }

    pub(super) fn new(shared: Arc<StoreState<E>>, writer: Sender<Command<E>>) -> Self {
        Self(Arc::new(Inner { shared, writer }))
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &StoreState<E> {
        &self.0.shared
    }

    /// Returns the engine, unless the store is closed.
    pub(crate) fn engine(&self) -> Result<E, StoreError> {
        self.0.shared.engine().ok_or_else(closed)
    }

    /// Poisons the store: from now on it refuses everything that the cache can't answer.
    #[cfg(feature = "fjall")]
    pub(crate) fn poison(&self, reason: String) {
        self.0.shared.poison(reason);
    }

    /// Returns the store's directory.
    #[cfg(feature = "fjall")]
    pub(crate) fn path(&self) -> &Path {
        &self.0.shared.path
    }

    /// Sends a transaction to the writer, now. It is answered in any case.
    pub(crate) fn transact(&self, transact: Transact<E::Transaction>) {
        let shared = &self.0.shared;
        let checked = match transact.purpose {
            Purpose::Run(_) => shared.check(),
            // It may be the effect of a run that has begun, so a slow disk is no reason to refuse it.
            Purpose::Own(_) => shared.check_queue(self.0.writer.waiting()),
        };
        if let Err(error) = checked {
            return (transact.answer)(Err(CommitError::Store(error)));
        }
        // If it was sent, the writer answers it.
        if let Err(Command::Transact(transact)) = self.0.writer.send(Command::Transact(Box::new(transact))) {
            (transact.answer)(Err(CommitError::Store(closed())));
        }
    }

    /// Sends a command to the writer, now.
    fn send<T>(&self, command: impl FnOnce(ReplyTo<T>) -> Command<E>) -> SentCommand<T> {
        let (reply, answer) = oneshot::channel();
        self.0.shared.check()?;
        self.0.writer.send(command(reply)).map_err(|_| closed())?;
        Ok(answer)
    }

    /// Makes a claim that leaves no trace: the slot is the claim.
    fn claim_by_slot(&self, id: RecordId, claim: Claim) -> impl Future<Output = Result<Stepped, StoreError>> + Send {
        let shared = &self.0.shared;
        let checked = shared.check_busy(self.0.writer.waiting());
        match read::from_memory(shared, id) {
            Some(known) => Either::Left(ready(checked.and(known).and_then(|current| self.claimed(current, claim)))),
            None => Either::Right(Box::pin(async move {
                checked?;
                self.claimed(read::load(shared, id).await?, claim)
            })),
        }
    }

    /// Returns the answer to such a claim of an operation that has this record.
    fn claimed(&self, current: Option<Record>, claim: Claim) -> Result<Stepped, StoreError> {
        let shared = &self.0.shared;
        if current.is_none() {
            shared.check_room(&shared.totals.lock())?;
        }
        match record::next(Current::from(current.as_ref()), Transition::Claim(claim)) {
            (Edit::Put(draft), reply) => {
                let now = shared.time.now();
                let record = draft.stamp(current.as_ref(), shared.next_fence()?, shared.time.began(now), now);
                Ok(Stepped { reply, record: Some(record) })
            }
            // The claim is refused, because there is a record.
            (_, reply) => Ok(Stepped { reply, record: current }),
        }
    }

    /// Returns what memory alone can answer: if there is no record, there is nothing to release or to interrupt.
    fn without_record(&self, id: &RecordId, transition: &Transition) -> Option<Stepped> {
        let ends = matches!(transition, Transition::Release(_) | Transition::Interrupt { .. });
        if !ends || self.0.shared.key_filter.may_have(id) {
            return None;
        }
        let (_, reply) = record::next(Current::Absent, transition.clone());
        Some(Stepped { reply, record: None })
    }
}

/// A command that was sent, and the receiver of its answer.
type SentCommand<T> = Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>;

/// Waits for the answer of the writer, for longer than any write may take.
async fn answer<T>(sent: SentCommand<T>) -> Result<T, StoreError> {
    match timeout(STORE_ANSWER_TIMEOUT, sent?).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(gone()),
        Err(_) => Err(StoreError::uncertain("a write has not returned")),
    }
}

/// The error if the writer has dropped a command unanswered.
fn gone() -> StoreError {
    StoreError::uncertain("the store was poisoned or closed meanwhile")
}

/// The error if a command could not be sent, or the engine was released.
fn closed() -> StoreError {
    StoreError::unavailable("closed")
}

impl<E: StorageEngine> Sealed for EmbeddedStore<E> {}

impl<E: StorageEngine> Records for EmbeddedStore<E> {
    fn slots(&self) -> &Arc<Slots> {
        &self.0.shared.slots
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        read::load(&self.0.shared, id)
    }

    /// Sends the transition before its future is polled, except a claim that leaves no trace.
    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Stepped, StoreError>> + Send {
        if let Some(known) = self.without_record(&id, &transition) {
            return Either::Left(Either::Left(ready(Ok(known))));
        }
        match transition {
            Transition::Claim(claim) if claim.may_repeat => Either::Right(self.claim_by_slot(id, claim)),
            transition => {
                let checked = match transition.claim() {
                    Some(_) => self.0.shared.check_busy(self.0.writer.waiting()),
                    // Limits and load refuse claims alone. `send` still refuses all if the store is closed or poisoned.
                    None => Ok(()),
                };
                let sent =
                    checked.and_then(|()| self.send(|reply| Command::Apply(Submitted::new(id, transition, reply))));
                Either::Left(Either::Right(answer(sent)))
            }
        }
    }

    async fn list(&self, list: List, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let shared = &self.0.shared;
        shared.check()?;
        match list {
            List::All => on_blocking_thread(shared, move |shared, engine| shared.all(engine, after, limit)).await,
            List::Interrupted => {
                on_blocking_thread(shared, move |shared, engine| shared.interrupted(engine, after, limit)).await
            }
            List::Running => Ok(Page::of_all(list, shared.running(), after, limit)),
            List::Disputed => Ok(Page::default()),
        }
    }

    fn now(&self) -> Timestamp {
        self.0.shared.time.now()
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        // A sweep takes many batches, and has no time limit.
        let sent = self.send(|reply| Command::Sweep(Asked { limit, swept: 0, reply }));
        async move { sent?.await.unwrap_or_else(|_| Err(gone())) }
    }
}

impl<E: StorageEngine> Store for EmbeddedStore<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn health(&self) -> Health {
        self.0.shared.health()
    }

    fn gauges(&self) -> Gauges {
        let shared = &self.0.shared;
        Gauges {
            records: Some(self.len()),
            bytes: Some(shared.totals.lock().bytes),
            free_bytes: shared.space.free(),
            queue: Some(self.0.writer.waiting() as u64),
            ..shared.measured.gauges(self.now())
        }
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        Self::close(self)
    }
}
