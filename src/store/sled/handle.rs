//! The handle: what the rest of the crate, and the application, hold of a store.

use std::future::{Future, ready};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::Either;
use futures_util::stream::{self, BoxStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::batch::Reply;
use super::open::SledStoreBuilder;
use super::queue::Sender;
use super::state::{STUCK, Shared};
use super::verb::{Step, Verb};
use super::{NotCommitted, Purpose, Transact, close, read};
use crate::key::RecordId;
use crate::record::{self, Applied, Change, Claim, Current, Record, Transition};
use crate::slots::Slots;
use crate::store::contract::{Health, InterruptedRecord, Page, Sealed, Store};
use crate::store::{OpenError, StoreError};

/// How long an answer is waited for: a little longer than a write may take before it is taken for failed.
const ANSWERED_WITHIN: Duration = STUCK.saturating_add(Duration::from_secs(5));

/// Keeps records in a [sled](https://docs.rs/sled/0.34) database in a directory of its own: they survive crashes of
/// the process and power cuts.
///
/// A handle; clones share the open store. One process at a time, and one opening in it, may use a directory.
///
/// # Durability
/// What is answered is on disk: written, flushed, and made durable with `fdatasync`, together with what else came in
/// meanwhile, and, while few have come and other runs are under way, within some 0.2 ms more (group commit). If a write, sync or read fails, or a write does not return within a minute, the store is
/// [poisoned](Health::Poisoned): it answers only what memory can, and the process must be restarted.
///
/// # Memory
/// Its two caches, and some 20 bytes for each record, by which a new key is known to be new without a read; and sled's own
/// tables: 150 bytes for each of a million records, all in all.
#[derive(Debug, Clone)]
pub struct SledStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    writer: Sender<Verb>,
}

impl SledStore {
    /// Opens the store in `directory`, which is made if it is not there, with mode 0700.
    ///
    /// Blocks while what lists the records is read: 0.2 s for a million; if that is damaged, all records are read, and listed
    /// anew.
    ///
    /// # Errors
    /// [`OpenError`]: in use, not a store's directory, or refused by the operating system.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(directory)
    }

    /// Opens the store in `directory` as [`open`](Self::open) does, and waits for at most `patience` where it is in use: see
    /// [`SledStoreBuilder::open_within`].
    ///
    /// # Errors
    /// As [`open`](Self::open); [`OpenError::InUse`] only after `patience`.
    pub fn open_within(directory: impl AsRef<Path>, patience: Duration) -> Result<Self, OpenError> {
        Self::builder().open_within(directory, patience)
    }

    /// Sets what differs from the defaults.
    pub fn builder() -> SledStoreBuilder {
        SledStoreBuilder::default()
    }

    pub(super) fn new(shared: Arc<Shared>, writer: Sender<Verb>) -> Self {
        Self { inner: Arc::new(Inner { shared, writer }) }
    }

    /// Records it holds: those that have expired and are not swept yet included, and without the runs whose claims leave no
    /// trace (`Rerun`).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.inner.shared.count.load(Ordering::Relaxed)
    }

    /// Whether it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(super) fn inner(&self) -> &Shared {
        &self.inner.shared
    }

    /// Lends the database, for trees of the application. Open them at the start, and write to them with
    /// [`transaction`](Self::transaction), which is bounded, and durable when it returns.
    ///
    /// What is written past that, with sled's own `transaction` or `apply_batch`, is durable after
    /// [`sync`](Self::sync). Keep values below 4 KiB and keys below 256 bytes: sled writes large pages to files that nothing
    /// syncs; keep each below 128 KiB in all: a power cut in a longer one can leave a database that can't be opened; and
    /// **don't `insert`**: two threads, the store's being one, that make new pages at once can be cut short, by SIGKILL or a
    /// power cut, so that sled panics at every later opening. sled has one lock for all transactions of the process, and every read waits for it: **a long transaction holds
    /// up every request with a key**, past all time-outs. Make durable what you write with [`sync`](Self::sync), not with sled's
    /// `flush` or `flush_async`, and keep the trees that you open as long as the store is open: sled 0.34 reads a log buffer
    /// there that may be freed meanwhile; what the store itself calls is protected.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] once the store is closed.
    pub fn db(&self) -> Result<sled::Db, StoreError> {
        let database = self.inner.shared.database();
        database.map(|database| database.db).ok_or_else(closed)
    }

    /// Returns when all that was written to the database before this call is durable.
    ///
    /// # Errors
    /// [`StoreError::Uncertain`] when the sync failed, which poisons the store; [`StoreError::Unavailable`] for a store
    /// that is closed or poisoned.
    ///
    /// # Cancel safety
    /// The sync takes place whether or not its answer is waited for.
    pub fn sync(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        answer(self.send(Verb::Sync))
    }

    /// Finishes what was asked for and closes the store, for all its handles. Returns when the directory can be opened
    /// again, or after ten seconds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the application still holds a handle that [`db`](Self::db) lent, or the disk doesn't
    /// return. [`StoreError::Uncertain`]: closed, but the store was poisoned, before or just now. What was answered is
    /// durable all the same.
    ///
    /// # Cancel safety
    /// If dropped, the store may be closed or on its way to it; call it again.
    pub async fn close(&self) -> Result<(), StoreError> {
        close::close(&self.inner.shared, &self.inner.writer).await
    }

    /// Sends a transaction to the writer, now. It is answered in any case.
    pub(crate) fn transact(&self, transact: Transact) {
        let shared = &self.inner.shared;
        let checked = match transact.purpose {
            Purpose::Run(_) => shared.check(),
            // It may be the effect of a run that has begun: a slow disk is no reason to refuse it.
            Purpose::Own(_) => shared.check_queue(self.inner.writer.waiting()),
        };
        let refused = match checked {
            Ok(()) => match self.inner.writer.send(Verb::Transact(Box::new(transact))) {
                Ok(()) => return,
                Err(Verb::Transact(transact)) => (transact.answer, closed()),
                Err(_) => return,
            },
            Err(error) => (transact.answer, error),
        };
        (refused.0)(Err(NotCommitted::Store(refused.1)));
    }

    /// Sends a verb to the writer, now.
    fn send<T>(&self, verb: impl FnOnce(Reply<T>) -> Verb) -> Sent<T> {
        let (reply, answer) = oneshot::channel();
        self.inner.shared.check()?;
        self.inner.writer.send(verb(reply)).map_err(|_| closed())?;
        Ok(answer)
    }

    /// A claim that leaves no trace: the slot is the claim.
    async fn claim_by_slot(&self, id: RecordId, claim: Claim) -> Result<Applied, StoreError> {
        let shared = &self.inner.shared;
        shared.check_load(self.inner.writer.waiting())?;
        let current = read::load(shared, id).await?;
        if current.is_none() {
            shared.check_room(0, 0)?;
        }
        match record::next(Current::from(current.as_ref()), Transition::Claim(claim)) {
            (Change::Put(draft), reply) => {
                let record = draft.stamp(current.as_ref(), shared.next_fence()?, shared.time.now());
                Ok(Applied { reply, record: Some(record) })
            }
            (_, reply) => Ok(Applied { reply, record: current }),
        }
    }

    /// What memory alone can answer: there is nothing to release or to interrupt where there is no record.
    fn known(&self, id: &RecordId, transition: &Transition) -> Option<Applied> {
        let ends = matches!(transition, Transition::Release(_) | Transition::Interrupt { .. });
        if !ends || self.inner.shared.present.may_have(id) {
            return None;
        }
        let (_, reply) = record::next(Current::Absent, transition.clone());
        Some(Applied { reply, record: None })
    }
}

/// A verb on its way, and where its answer will be.
type Sent<T> = Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>;

async fn answer<T>(sent: Sent<T>) -> Result<T, StoreError> {
    match timeout(ANSWERED_WITHIN, sent?).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(gone()),
        Err(_) => Err(StoreError::uncertain("a write has not returned")),
    }
}

fn gone() -> StoreError {
    StoreError::uncertain("the store was poisoned or closed meanwhile")
}

fn closed() -> StoreError {
    StoreError::unavailable("closed")
}

impl Sealed for SledStore {}

impl Store for SledStore {
    fn slots(&self) -> &Arc<Slots> {
        &self.inner.shared.slots
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        read::load(&self.inner.shared, id)
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        if let Some(known) = self.known(&id, &transition) {
            return Either::Left(Either::Left(ready(Ok(known))));
        }
        match transition {
            Transition::Claim(claim) if claim.may_repeat => Either::Right(self.claim_by_slot(id, claim)),
            transition => {
                let checked = match transition.claim() {
                    Some(_) => self.inner.shared.check_load(self.inner.writer.waiting()),
                    None => Ok(()),
                };
                let sent = checked.and_then(|()| self.send(|reply| Verb::Apply(Step::new(id, transition, reply))));
                Either::Left(Either::Right(answer(sent)))
            }
        }
    }

    async fn interrupted(&self, page: Page) -> Result<Vec<InterruptedRecord>, StoreError> {
        read::interrupted(&self.inner.shared, page).await
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        // It takes many batches, and may be ever so long.
        let sent = self.send(|reply| Verb::Sweep(limit, reply));
        async move { sent?.await.unwrap_or_else(|_| Err(gone())) }
    }

    fn health(&self) -> Health {
        self.inner.shared.health()
    }

    fn changed(&self) -> BoxStream<'static, RecordId> {
        stream::pending().boxed()
    }
}
