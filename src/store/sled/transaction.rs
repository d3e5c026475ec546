//! Effect and record in one transaction: a closure over the application's trees, run on the writer thread, and the record
//! of its outcome beside it. Both are in one of sled's transactions, so a crash leaves both or neither.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;
use sled::transaction::{
    ConflictableTransactionError, Transactional as _, TransactionalTree, UnabortableTransactionError,
};
use sled::{IVec, Tree};

use super::batch::{Batch, MAX_STEP};
use super::keys;
use super::read::PANICKED;
use super::writes::ENTRY_BYTES;
use crate::codec::Stored;
use crate::record::{self, Change, Completion, Current, Record, Reply, Settlement, State, Transition};
use crate::store::StoreError;

/// The most bytes of a value and of a key. sled writes whole pages, of 16 entries, or of 256 keys in an index, and one of over
/// 128 KiB goes to a file that it never syncs.
const MAX_VALUE: usize = 4_096;
const MAX_KEY: usize = 256;
/// The most bytes of keys, values and outcome, and 64 for each key: see [`Batch::write_out`].
const MAX_TRANSACTION: usize = MAX_STEP;

/// One of the application's trees, within a transaction. It sees what the transaction wrote before.
///
/// Inside the closure only these may be touched: a call on the `sled::Tree` itself would wait for the transaction's own
/// lock, for ever.
pub struct TransactionTree<'a> {
    tree: &'a TransactionalTree,
    failed: &'a Failed,
}

/// What went wrong with the trees. Kept, so that a closure that overlooks it is aborted all the same.
#[derive(Default)]
pub(crate) struct Failed {
    error: RefCell<Option<TransactionError>>,
    // The bytes of keys and values so far.
    written: Cell<usize>,
    // Whether the closure is in a call of the database's: what panics then is not the closure.
    inside: Cell<bool>,
}

/// What a transaction refuses. It is aborted; nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A key over 256 bytes, a value over 4 KiB, or over 128 KiB in all, the outcome and 64 bytes for each key included. Use a
    /// digest as the key; divide the value, or the transaction; keep large answers elsewhere.
    #[error("a {what} has {bytes} bytes; at most {limit} are durable in sled")]
    TooLarge {
        /// A key, a value, or the transaction.
        what: &'static str,
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The database can't be read. The store is poisoned.
    #[error("the database failed: {0}; restart the process")]
    Database(String),
    /// The answer's body is longer than `max_response_body`.
    #[error("the answer can't be recorded: its body is longer than max_response_body")]
    Unrecordable,
}

/// Why a transaction is given up, and nothing done.
#[derive(Debug)]
pub enum Abort<E> {
    /// For a reason of the application's.
    Because(E),
    /// The transaction refused something. What `?` makes of its error.
    Refused(TransactionError),
}

impl<E> From<TransactionError> for Abort<E> {
    fn from(error: TransactionError) -> Self {
        Self::Refused(error)
    }
}

impl TransactionTree<'_> {
    /// What stands under `key`.
    ///
    /// # Errors
    /// [`TransactionError`], here and below; the transaction is then aborted whatever the closure says.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>, TransactionError> {
        self.check(|tree| tree.get(key))
    }

    /// Puts `value` under `key`, and gives what stood there.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`] for a key over 256 bytes or a value over 4 KiB.
    pub fn insert(&self, key: impl Into<IVec>, value: impl Into<IVec>) -> Result<Option<IVec>, TransactionError> {
        let (key, value) = (key.into(), value.into());
        for (what, bytes, limit) in [("key", key.len(), MAX_KEY), ("value", value.len(), MAX_VALUE)] {
            if bytes > limit {
                return Err(self.fail(TransactionError::TooLarge { what, bytes, limit }));
            }
        }
        self.failed.count(key.len() + value.len());
        self.check(|tree| tree.insert(key, value))
    }

    /// Removes what stands under `key`, and gives it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn remove(&self, key: impl Into<IVec>) -> Result<Option<IVec>, TransactionError> {
        let key = key.into();
        self.failed.count(key.len());
        self.check(|tree| tree.remove(key))
    }

    fn check<T>(
        &self,
        call: impl FnOnce(&TransactionalTree) -> Result<T, UnabortableTransactionError>,
    ) -> Result<T, TransactionError> {
        self.failed.inside.set(true);
        let result = call(self.tree);
        self.failed.inside.set(false);
        result.map_err(|error| self.fail(TransactionError::Database(error.to_string())))
    }

    fn fail(&self, error: TransactionError) -> TransactionError {
        self.failed.error.borrow_mut().get_or_insert_with(|| error.clone());
        error
    }
}

impl Failed {
    /// One key more, with so many bytes.
    fn count(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes + ENTRY_BYTES);
    }
}

impl fmt::Debug for TransactionTree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransactionTree")
    }
}

/// What the application's closure is to the writer: it puts its own error away and says only that there is one.
type Effect = Box<dyn FnMut(&[TransactionalTree], &Failed) -> Result<Bytes, Abort<()>> + Send>;

/// How the writer answers.
type Answer = Box<dyn FnOnce(Result<Bytes, NotCommitted>) + Send>;

/// What a transaction is for.
pub(crate) enum Purpose {
    /// It completes a run.
    Run(Completion<()>),
    /// It is the application's own. The writer does it until then, or not at all.
    Own(Instant),
}

/// A transaction on its way to the writer. If it is dropped unanswered, what its answer holds is dropped with it.
pub(crate) struct Transact {
    /// What it completes; where it is no run's, until when it may begin.
    pub(crate) purpose: Purpose,
    pub(crate) trees: Vec<Tree>,
    pub(crate) effect: Effect,
    pub(crate) answer: Answer,
}

/// Why a transaction was not committed, or not known to be.
#[derive(Debug)]
pub(crate) enum NotCommitted {
    /// The closure said so.
    Aborted,
    /// It panicked.
    Panicked,
    /// The operation is not (or no longer) this run's.
    Superseded,
    /// The transaction refused something.
    Refused(TransactionError),
    /// The trees can't be written to together.
    Trees(&'static str),
    /// The store failed.
    Store(StoreError),
    /// Nothing was done, as the store came to it too late.
    Late(StoreError),
}

/// The closure over `N` trees, as the writer takes it. `keep` is given its error.
pub(crate) fn effect<const N: usize, E>(
    mut closure: impl FnMut([TransactionTree<'_>; N]) -> Result<Bytes, Abort<E>> + Send + 'static,
    keep: impl Fn(E) + Send + 'static,
) -> Effect {
    Box::new(move |trees, failed| {
        // As many as were given: the writer was handed an array of them.
        let views = std::array::from_fn(|index| TransactionTree { tree: &trees[index], failed });
        closure(views).map_err(|abort| match abort {
            Abort::Because(error) => {
                keep(error);
                Abort::Because(())
            }
            Abort::Refused(error) => Abort::Refused(error),
        })
    })
}

impl Batch<'_> {
    /// Runs a transaction, and answers once this batch is durable.
    pub(super) fn transact(&mut self, transact: Transact) {
        let Transact { purpose, trees, mut effect, answer } = transact;
        let run = |batch: &mut Self| {
            check_trees(&trees)?;
            match purpose {
                Purpose::Run(completion) => batch.commit_together(&completion, trees, &mut effect),
                Purpose::Own(until) if until <= Instant::now() => {
                    let late = "the store came to the transaction too late; nothing was done";
                    Err(NotCommitted::Late(StoreError::unavailable(late)))
                }
                Purpose::Own(_) => batch.write_alone(trees, &mut effect),
            }
        };
        let ran = run(self);
        // What the application's closure and error hold may panic when it is dropped; that is not the database's.
        quietly(move || drop(effect));
        let answer = move |result| quietly(|| answer(result));
        match ran {
            Ok(outcome) => self.tell(move |committed| answer(committed.map(|()| outcome).map_err(NotCommitted::Store))),
            // Answered after the store is poisoned.
            Err(NotCommitted::Store(error)) => self.tell(move |committed| {
                answer(Err(NotCommitted::Store(committed.err().unwrap_or(error))));
            }),
            Err(not_committed @ NotCommitted::Refused(TransactionError::Database(_))) => {
                self.tell(move |_| answer(Err(not_committed)));
            }
            Err(not_committed) => answer(Err(not_committed)),
        }
    }

    fn commit_together(
        &mut self,
        completion: &Completion<()>,
        trees: Vec<Tree>,
        effect: &mut Effect,
    ) -> Result<Bytes, NotCommitted> {
        let id = completion.hold.id;
        let current = self.current(id).map_err(|error| NotCommitted::Store(error.for_caller(self.shared, id)))?;
        let live = current.clone().and_then(|record| record.live(self.now));
        // Somebody may have been asked meanwhile about a run that was interrupted, and have found nothing.
        let is_open = live.as_ref().is_none_or(|live| matches!(live.state, State::Running { .. }));
        if !is_open || completed(live.as_ref(), completion, &Bytes::new(), self).is_none() {
            return Err(NotCommitted::Superseded);
        }
        // What was decided before is written before: sled's transaction is written at once.
        self.write_decided().map_err(NotCommitted::Store)?;
        let trees = self.with_own(trees);
        let effect = RefCell::new(effect);
        let beside = Cell::new(None);
        self.make_room().map_err(NotCommitted::Store)?;
        let result = trees.as_slice().transaction(|views| {
            let (outcome, bytes) =
                call(&mut effect.borrow_mut(), &views[1..]).map_err(ConflictableTransactionError::Abort)?;
            let record = completed(live.as_ref(), completion, &outcome, self)
                .ok_or(ConflictableTransactionError::Abort(NotCommitted::Superseded))?;
            let (writes, batch) = self
                .beside(id, current.clone(), record, outcome.clone())
                .map_err(|error| ConflictableTransactionError::Abort(NotCommitted::Store(error)))?;
            views[0].apply_batch(&writes)?;
            beside.set(Some((batch, bytes)));
            Ok(outcome)
        });
        if let (Ok(_), Some((batch, bytes))) = (&result, beside.take()) {
            self.merge(batch);
            self.has_written(bytes);
        }
        self.ended(result)
    }

    /// A transaction of the application that completes no run.
    fn write_alone(&mut self, trees: Vec<Tree>, effect: &mut Effect) -> Result<Bytes, NotCommitted> {
        self.write_decided().map_err(NotCommitted::Store)?;
        self.make_room().map_err(NotCommitted::Store)?;
        let trees = self.with_own(trees);
        let effect = RefCell::new(effect);
        let call = |views: &[TransactionalTree]| call(&mut effect.borrow_mut(), views);
        let result = trees
            .as_slice()
            .transaction(|views| call(&views[1..]).map_err(ConflictableTransactionError::Abort))
            .map(|(outcome, bytes)| {
                self.has_written(bytes);
                outcome
            });
        self.ended(result)
    }

    /// The store's tree and these: sled refuses those of another database.
    fn with_own(&self, trees: Vec<Tree>) -> Vec<Tree> {
        std::iter::once(self.database.tree.clone()).chain(trees).collect()
    }

    /// What came of a transaction of sled's.
    fn ended(
        &mut self,
        result: Result<Bytes, sled::transaction::TransactionError<NotCommitted>>,
    ) -> Result<Bytes, NotCommitted> {
        match result {
            Ok(outcome) => Ok(outcome),
            // As any read that fails.
            Err(sled::transaction::TransactionError::Abort(NotCommitted::Refused(TransactionError::Database(
                error,
            )))) => {
                self.fail(format!("reading failed: {error}"));
                Err(NotCommitted::Refused(TransactionError::Database(error)))
            }
            Err(sled::transaction::TransactionError::Abort(not_committed)) => Err(not_committed),
            Err(sled::transaction::TransactionError::Storage(sled::Error::Unsupported(_))) => {
                Err(NotCommitted::Trees("a tree is of another database than the store's"))
            }
            Err(sled::transaction::TransactionError::Storage(error)) => {
                let reason = format!("writing failed: {error}");
                self.fail(reason.clone());
                Err(NotCommitted::Store(StoreError::uncertain(reason)))
            }
        }
    }
}

fn quietly(run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!(target: "tower_idempotency", "what a transaction's closure held panicked when it was dropped");
    }
}

fn check_trees(trees: &[Tree]) -> Result<(), NotCommitted> {
    if trees.iter().any(|tree| tree.name() == keys::TREE) {
        return Err(NotCommitted::Trees("the store's own tree is not the application's to write"));
    }
    let twice = |(index, tree): (usize, &Tree)| trees[..index].iter().any(|other| other.name() == tree.name());
    if trees.iter().enumerate().any(twice) {
        return Err(NotCommitted::Trees("a tree is named twice"));
    }
    Ok(())
}

/// The outcome, and how many bytes are written with it.
fn call(effect: &mut Effect, trees: &[TransactionalTree]) -> Result<(Bytes, usize), NotCommitted> {
    let failed = Failed::default();
    let result = catch_unwind(AssertUnwindSafe(|| effect(trees, &failed)));
    if let Some(error) = failed.error.take() {
        return Err(NotCommitted::Refused(error));
    }
    match result {
        Err(_) if failed.inside.get() => Err(NotCommitted::Refused(TransactionError::Database(PANICKED.to_owned()))),
        Ok(Ok(outcome)) => {
            let bytes = failed.written.get() + outcome.len();
            if bytes > MAX_TRANSACTION {
                let limit = MAX_TRANSACTION;
                return Err(NotCommitted::Refused(TransactionError::TooLarge { what: "transaction", bytes, limit }));
            }
            Ok((outcome, bytes))
        }
        Ok(Err(Abort::Because(()))) => Err(NotCommitted::Aborted),
        Ok(Err(Abort::Refused(error))) => Err(NotCommitted::Refused(error)),
        Err(_) => Err(NotCommitted::Panicked),
    }
}

/// The record of a run's outcome; `None` if the run is not the one to say how it ended.
fn completed(
    live: Option<&Record<Stored>>,
    completion: &Completion<()>,
    outcome: &Bytes,
    batch: &Batch<'_>,
) -> Option<Record<Stored>> {
    let Completion { hold, fingerprint, retention, .. } = *completion;
    let settlement = Settlement::Outcome(Stored::of(outcome));
    let complete = Transition::Complete(Completion { hold, fingerprint, settlement, retention });
    match record::next(Current::from(live), complete) {
        (Change::Put(draft), Reply::Taken) => Some(draft.stamp(live, hold.fence, batch.now)),
        _ => None,
    }
}
