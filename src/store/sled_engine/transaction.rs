//! The application's part of a transaction: a closure over its trees, which runs on the writer's thread, in one of
//! sled's transactions.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use sled::transaction::{
    ConflictableTransactionError, TransactionError as Error, Transactional as _, TransactionalTree,
    UnabortableTransactionError,
};
use sled::{IVec, Tree};

use crate::store::embedded::{
    Abort, AppEffect, AppValue, EffectLimits, MAX_STEP, ReadError, Reason, RecordWritesFn, Transacted, Writes,
};
use crate::store::{CommitError, StoreError, TransactionError};

/// sled writes whole pages, of 16 entries, or of 256 keys in an index, and a page over 128 KiB goes to a file that it
/// never syncs.
const LIMITS: EffectLimits = EffectLimits { key: 256, value: 4_096, all: MAX_STEP };

/// One of the application's trees, within a transaction. It sees what the transaction wrote before.
///
/// Inside the closure use only these: a call on the `sled::Tree` itself would wait for ever for the transaction's own
/// lock.
pub struct TransactionTree<'a> {
    tree: &'a TransactionalTree,
    effect: &'a AppEffect,
}

impl TransactionTree<'_> {
    /// Returns the value of `key`.
    ///
    /// # Errors
    /// [`TransactionError`], as for the other functions. The transaction is then aborted, whatever the closure returns.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>, TransactionError> {
        // The application's key is read before the call and dropped after it, so a panic in it is not taken for the
        // database's.
        let bytes = key.as_ref();
        self.effect.call(|| self.tree.get(bytes))
    }

    /// Sets the value of `key`, and returns the old one.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`] beyond the [limits](mod@crate::guide::exactly_once#limits-over-sled-and-fjall).
    pub fn insert(&self, key: impl Into<IVec>, value: impl Into<IVec>) -> Result<Option<IVec>, TransactionError> {
        let (key, value) = (key.into(), value.into());
        self.effect.insert(key.len(), value.len())?;
        self.effect.call(|| self.tree.insert(key, value))
    }

    /// Removes `key`, and returns its value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn remove(&self, key: impl Into<IVec>) -> Result<Option<IVec>, TransactionError> {
        let key = key.into();
        self.effect.count(key.len());
        self.effect.call(|| self.tree.remove(key))
    }
}

impl From<UnabortableTransactionError> for ReadError {
    fn from(error: UnabortableTransactionError) -> Self {
        Self::Failed(error.into())
    }
}

impl fmt::Debug for TransactionTree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransactionTree")
    }
}

/// The application's closure, in the form in which the engine calls it.
type Call = Box<dyn FnMut(&[TransactionalTree], &AppEffect) -> Result<Bytes, Abort<Reason>> + Send>;

/// The application's closure, and the trees that it writes to.
pub(crate) struct Transaction {
    trees: Vec<Tree>,
    call: AppValue<Call>,
}

/// Makes a transaction for the engine from a closure over `N` trees.
pub(crate) fn transaction<const N: usize, E: Send + 'static>(
    trees: [&Tree; N],
    mut closure: impl FnMut([TransactionTree<'_>; N]) -> Result<Bytes, Abort<E>> + Send + 'static,
) -> Transaction {
    let call = move |trees: &[TransactionalTree], effect: &AppEffect| {
        // There are as many trees as were given.
        let views = std::array::from_fn(|index| TransactionTree { tree: &trees[index], effect });
        closure(views).map_err(Abort::boxed)
    };
    Transaction { trees: trees.map(Tree::clone).into(), call: AppValue::new(Box::new(call)) }
}

/// Runs one of sled's transactions over the store's tree and the application's.
pub(super) fn run(store: &Tree, effect: &mut Transaction, writes_of: RecordWritesFn<'_>) -> Transacted<(Bytes, usize)> {
    let Transaction { trees, call } = effect;
    check_trees(store, trees)?;
    // The store's tree is among them, so sled refuses trees of another database.
    let trees: Vec<Tree> = std::iter::once(store.clone()).chain(trees.iter().cloned()).collect();
    let (call, writes_of) = (RefCell::new(call.get_mut()), RefCell::new(writes_of));
    let result = trees.as_slice().transaction(|views| {
        // `views[0]` is the store's tree. The closure gets the others, and comes first: the record has its outcome.
        let ran = AppEffect::run(LIMITS, |effect| (call.borrow_mut())(&views[1..], effect));
        let (outcome, bytes) = ran.map_err(ConflictableTransactionError::Abort)?;
        let writes = (writes_of.borrow_mut())(&outcome).map_err(ConflictableTransactionError::Abort)?;
        views[0].apply_batch(&as_batch(writes))?;
        Ok((outcome, bytes))
    });
    result.map_err(|error| match error {
        Error::Abort(not_committed) => not_committed,
        Error::Storage(sled::Error::Unsupported(_)) => {
            CommitError::Trees("a tree is of another database than the store's")
        }
        Error::Storage(error) => CommitError::Store(StoreError::uncertain(format!("writing failed: {error}"))),
    })
}

/// Turns a step into a batch, of which sled recovers everything or nothing.
pub(super) fn as_batch(step: Writes) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in step.entries {
        match value {
            Some(value) => batch.insert(key, &*value),
            None => batch.remove(key),
        }
    }
    batch
}

fn check_trees(store: &Tree, trees: &[Tree]) -> Transacted<()> {
    if trees.iter().any(|tree| tree.name() == store.name()) {
        return Err(CommitError::Trees("the store's own tree is not the application's to write"));
    }
    let twice = |(index, tree): (usize, &Tree)| trees[..index].iter().any(|other| other.name() == tree.name());
    if trees.iter().enumerate().any(twice) {
        return Err(CommitError::Trees("a tree is named twice"));
    }
    Ok(())
}
