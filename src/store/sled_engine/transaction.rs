//! The application's part of a transaction: a closure over its trees, which runs on the writer's thread, in one of
//! sled's transactions.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use sled::transaction::{
    ConflictableTransactionError, TransactionError as Error, Transactional as _, TransactionalTree,
    UnabortableTransactionError,
};
use sled::{IVec, Tree};

use crate::store::embedded::{
    Abort, AppValue, ENTRY_BYTES, PANICKED, Reason, RecordWritesFn, Transacted, Writes, quietly,
};
use crate::store::{CommitError, StoreError, TransactionError};

/// The most bytes of a value and of a key. sled writes whole pages, of 16 entries, or of 256 keys in an index, and a
/// page over 128 KiB goes to a file that it never syncs.
const MAX_VALUE: usize = 4_096;
const MAX_KEY: usize = 256;
/// The most bytes of keys, values and outcome, where each key counts 64 bytes more.
///
/// If the process ends within a batch, sled undoes the whole batch, and with it what its space collection has moved
/// meanwhile. If the batch was so long that the old places of what was moved are overwritten already, the database can
/// no longer be opened. So nothing that long is written at once, by a transaction or by the store itself.
pub(super) const MAX_STEP: usize = 128 * 1024;

/// One of the application's trees, within a transaction. It sees what the transaction wrote before.
///
/// Inside the closure use only these: a call on the `sled::Tree` itself would wait for ever for the transaction's own
/// lock.
pub struct TransactionTree<'a> {
    tree: &'a TransactionalTree,
    failed: &'a Failed,
}

/// The first error of the trees. It is kept, so that a closure that ignores it is still aborted.
#[derive(Default)]
pub(crate) struct Failed {
    error: RefCell<Option<TransactionError>>,
    // The bytes of keys and values so far.
    written: Cell<usize>,
    // `true` while the closure is inside a call to the database; a panic there is not the closure's.
    inside: Cell<bool>,
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
        self.check(|tree| tree.get(bytes))
    }

    /// Sets the value of `key`, and returns the old one.
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

    /// Removes `key`, and returns its value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn remove(&self, key: impl Into<IVec>) -> Result<Option<IVec>, TransactionError> {
        let key = key.into();
        self.failed.count(key.len());
        self.check(|tree| tree.remove(key))
    }

    /// Calls the database. Its error aborts the transaction, even if the closure ignores it.
    fn check<T>(
        &self,
        call: impl FnOnce(&TransactionalTree) -> Result<T, UnabortableTransactionError>,
    ) -> Result<T, TransactionError> {
        // If `call` panics, this stays `true`, and `called` takes the panic for the database's.
        self.failed.inside.set(true);
        let result = call(self.tree);
        self.failed.inside.set(false);
        result.map_err(|error| self.fail(TransactionError::Database(error.to_string())))
    }

    /// Notes an error, unless there was one before, and returns it for the closure.
    fn fail(&self, error: TransactionError) -> TransactionError {
        self.failed.error.borrow_mut().get_or_insert_with(|| error.clone());
        error
    }
}

impl Failed {
    /// Counts one more key, with this many bytes.
    fn count(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes + ENTRY_BYTES);
    }
}

impl fmt::Debug for TransactionTree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransactionTree")
    }
}

/// The application's closure, in the form in which the engine calls it.
type Call = Box<dyn FnMut(&[TransactionalTree], &Failed) -> Result<Bytes, Abort<Reason>> + Send>;

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
    let call = move |trees: &[TransactionalTree], failed: &Failed| {
        // There are as many trees as were given.
        let views = std::array::from_fn(|index| TransactionTree { tree: &trees[index], failed });
        closure(views).map_err(|abort| match abort {
            Abort::Because(reason) => Abort::Because(Box::new(reason) as Reason),
            Abort::Refused(error) => Abort::Refused(error),
        })
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
        let (outcome, bytes) =
            called(&mut call.borrow_mut(), &views[1..]).map_err(ConflictableTransactionError::Abort)?;
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
    for (key, value) in step.entries() {
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

/// Calls the closure. Returns its outcome, and how many bytes it wrote.
fn called(call: &mut Call, trees: &[TransactionalTree]) -> Transacted<(Bytes, usize)> {
    let failed = Failed::default();
    let result = catch_unwind(AssertUnwindSafe(|| call(trees, &failed)));
    if let Some(error) = failed.error.take() {
        quietly(move || drop(result));
        return Err(CommitError::Refused(error));
    }
    let result = match result {
        Ok(result) => result,
        Err(thrown) => {
            quietly(move || drop(thrown));
            let is_ours = failed.inside.get();
            let database = || CommitError::Refused(TransactionError::Database(PANICKED.to_owned()));
            return Err(if is_ours { database() } else { CommitError::Panicked });
        }
    };
    match result {
        Ok(outcome) => {
            let bytes = failed.written.get() + outcome.len();
            if bytes > MAX_STEP {
                let too_large = TransactionError::TooLarge { what: "transaction", bytes, limit: MAX_STEP };
                return Err(CommitError::Refused(too_large));
            }
            Ok((outcome, failed.written.get()))
        }
        Err(Abort::Because(reason)) => Err(CommitError::Aborted(reason)),
        Err(Abort::Refused(error)) => Err(CommitError::Refused(error)),
    }
}
