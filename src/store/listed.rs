//! Records as lists show them: without the bytes of their outcomes.

use std::convert::Infallible;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Fence, Record};
use crate::store::StoreError;

/// The bytes at the beginning of an outcome that are listed.
const START_BYTES: usize = 16;

/// A record of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRecord {
    /// The id of the operation.
    pub id: RecordId,
    /// The record, or the reason why it cannot be read.
    pub record: Result<Record<OutcomeStart>, Damage>,
    /// The session that its row names; `None` over an embedded store. A record has none, as no other step needs it.
    pub session: Option<RecordId>,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong with it.
    pub reason: String,
    /// What is known of it all the same: a database keeps the fence and the times as columns. An operator settles it by
    /// them, as one that is interrupted.
    pub known: Option<Known>,
}

/// What is known of a record whose bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// As in [`Record`].
    pub fence: Fence,
    /// As in [`Record`].
    pub began: Timestamp,
    /// As in [`Record`].
    pub since: Timestamp,
    /// As in [`Record`].
    pub expires: Option<Timestamp>,
}

/// The length of an outcome, and its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeStart {
    /// The length of the outcome, in bytes.
    pub length: u64,
    /// At most its first 16 bytes.
    pub start: Bytes,
}

impl OutcomeStart {
    /// Returns what is listed of an outcome of this length, of which `bytes` are the first ones. It shares no memory
    /// with them.
    #[must_use]
    pub fn of(length: u64, bytes: &[u8]) -> Self {
        Self { length, start: Bytes::copy_from_slice(&bytes[..bytes.len().min(START_BYTES)]) }
    }
}

impl ListedRecord {
    /// Returns what is listed of a whole record.
    #[must_use]
    pub fn of(id: RecordId, record: &Record) -> Self {
        let Ok(record) = record.form(|outcome| Ok::<_, Infallible>(OutcomeStart::of(outcome.len() as u64, outcome)));
        Self::readable(id, record)
    }

    /// Returns what is listed of a record that was loaded. A damaged one is no error.
    ///
    /// # Errors
    /// Any other error of the load.
    pub fn of_load(id: RecordId, loaded: Result<Option<Record>, StoreError>) -> Result<Option<Self>, StoreError> {
        match loaded {
            Ok(record) => Ok(record.map(|record| Self::of(id, &record))),
            Err(StoreError::Corrupt { reason, .. }) => Ok(Some(Self::damaged(id, reason, None))),
            Err(error) => Err(error),
        }
    }

    /// Returns what is listed of a record that has no outcome, or of which the outcome is not meant.
    #[must_use]
    pub fn without_outcome<O>(id: RecordId, record: &Record<O>) -> Self {
        let Ok(record) = record.form(|_| Ok::<_, Infallible>(OutcomeStart::of(0, &[])));
        Self::readable(id, record)
    }

    /// Returns what is listed of a record that can be read.
    #[must_use]
    pub fn readable(id: RecordId, record: Record<OutcomeStart>) -> Self {
        Self { id, record: Ok(record), session: None }
    }

    /// Returns what is listed of a record that cannot be read, of which the columns of `known` are known.
    #[must_use]
    pub fn damaged(id: RecordId, reason: String, known: Option<&Record>) -> Self {
        let known = known.map(|&Record { fence, began, since, expires, .. }| Known { fence, began, since, expires });
        Self { id, record: Err(Damage { reason, known }), session: None }
    }
}
