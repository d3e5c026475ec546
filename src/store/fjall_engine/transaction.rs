//! The application's part of a transaction: a closure over its keyspaces, which runs on the writer's thread. What it
//! writes is kept until the closure returns, and then written in one batch with the record.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use fjall::{Keyspace, OwnedWriteBatch, Slice};

use crate::store::embedded::{Abort, AppEffect, AppValue, EffectLimits, MAX_STEP, Reason, Transacted, Writes};
use crate::store::{CommitError, TransactionError};

/// fjall panics on longer keys.
const LIMITS: EffectLimits = EffectLimits { key: u16::MAX as usize, value: MAX_STEP, all: MAX_STEP };

/// What a transaction writes to one keyspace; `None` removes a key.
pub(super) type Changes = RefCell<HashMap<Vec<u8>, Option<Slice>>>;

/// One of the application's keyspaces, within a transaction. It sees what the transaction wrote before.
///
/// Inside the closure use only these: what is written to the `fjall::Keyspace` itself is not a part of the transaction.
pub struct TransactionKeyspace<'a> {
    keyspace: &'a Keyspace,
    changes: &'a Changes,
    effect: &'a AppEffect,
}

impl TransactionKeyspace<'_> {
    /// Returns the value of `key`.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`] for a key beyond the
    /// [limits](mod@crate::guide::exactly_once#limits-over-sled-and-fjall), or [`TransactionError::Database`]. The
    /// transaction is then aborted, whatever the closure returns.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>, TransactionError> {
        let bytes = key.as_ref();
        self.effect.check("key", bytes.len(), LIMITS.key)?;
        if let Some(changed) = self.changes.borrow().get(bytes) {
            return Ok(changed.clone());
        }
        self.effect.call(|| self.keyspace.get(bytes))
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`TransactionError::EmptyKey`]; [`TransactionError::TooLarge`] beyond the
    /// [limits](mod@crate::guide::exactly_once#limits-over-sled-and-fjall).
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl Into<Slice>) -> Result<(), TransactionError> {
        let (key, value) = (key.as_ref(), value.into());
        self.change(key, Some(value))
    }

    /// Removes `key`.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<(), TransactionError> {
        self.change(key.as_ref(), None)
    }

    fn change(&self, key: &[u8], value: Option<Slice>) -> Result<(), TransactionError> {
        if key.is_empty() {
            return Err(self.effect.fail(TransactionError::EmptyKey));
        }
        self.effect.insert(key.len(), value.as_ref().map_or(0, |value| value.len()))?;
        self.changes.borrow_mut().insert(key.into(), value);
        Ok(())
    }
}

impl fmt::Debug for TransactionKeyspace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransactionKeyspace")
    }
}

/// The application's closure, in the form in which the engine calls it.
type Call = Box<dyn FnMut(&[Keyspace], &[Changes], &AppEffect) -> Result<Bytes, Abort<Reason>> + Send>;

/// The application's closure, and the keyspaces that it writes to.
pub(crate) struct Transaction {
    pub(super) keyspaces: Vec<Keyspace>,
    call: AppValue<Call>,
}

/// Makes a transaction for the engine from a closure over `N` keyspaces.
pub(crate) fn transaction<const N: usize, E: Send + 'static>(
    keyspaces: [&Keyspace; N],
    mut closure: impl FnMut([TransactionKeyspace<'_>; N]) -> Result<Bytes, Abort<E>> + Send + 'static,
) -> Transaction {
    let call = move |keyspaces: &[Keyspace], changes: &[Changes], effect: &AppEffect| {
        // There are as many of both as keyspaces were given.
        let view = |index| TransactionKeyspace { keyspace: &keyspaces[index], changes: &changes[index], effect };
        closure(std::array::from_fn(view)).map_err(Abort::boxed)
    };
    Transaction { keyspaces: keyspaces.map(Keyspace::clone).into(), call: AppValue::new(Box::new(call)) }
}

impl Transaction {
    /// Calls the closure. Returns its outcome, how many bytes it writes, and what it changes in each keyspace.
    /// `records` is the store's own.
    pub(super) fn call(&mut self, records: &Keyspace) -> Transacted<(Bytes, usize, Vec<Changes>)> {
        let Self { keyspaces, call } = self;
        check_keyspaces(records, keyspaces)?;
        let changes: Vec<Changes> = keyspaces.iter().map(|_| Changes::default()).collect();
        let (outcome, bytes) = AppEffect::run(LIMITS, |effect| call.get_mut()(keyspaces, &changes, effect))?;
        Ok((outcome, bytes, changes))
    }
}

/// Adds a step of the store's to a batch.
pub(super) fn add(batch: &mut OwnedWriteBatch, records: &Keyspace, step: Writes) {
    // fjall's readers may see the beginning of a batch.
    for (key, value) in step.in_order() {
        match value {
            Some(value) => batch.insert(records, key, &*value),
            None => batch.remove(records, key),
        }
    }
}

/// Returns why a write failed.
pub(super) fn write_failed(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Poisoned => {
            "an earlier write or sync of fjall's worker failed; its log has the reason".to_owned()
        }
        error => format!("writing failed: {error}"),
    }
}

/// Refuses keyspaces that the batch would not write: fjall compares them by their names alone, and takes what is
/// written to one of another database for its own. None was deleted, because the store does not lend the database.
fn check_keyspaces(records: &Keyspace, keyspaces: &[Keyspace]) -> Transacted<()> {
    for (index, keyspace) in keyspaces.iter().enumerate() {
        if keyspace.path().parent() != records.path().parent() {
            return Err(CommitError::Trees("a keyspace is of another database than the store's"));
        }
        if keyspace == records {
            return Err(CommitError::Trees("the store's own keyspace is not the application's to write"));
        }
        if keyspaces[..index].contains(keyspace) {
            return Err(CommitError::Trees("a keyspace is named twice"));
        }
    }
    Ok(())
}
