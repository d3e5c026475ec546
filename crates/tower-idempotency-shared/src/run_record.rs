//! The contract of a database in which a transaction of the application writes the record of a run.

use std::error::Error;
use std::future::Future;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::{CommitError, TransactionError};
use tower_idempotency::{Fence, RecordId};

use super::apply::Moment;
use super::backend::{Backend, Clocks, Row, Write};

/// A database whose transactions can hold the record of a run next to the effects of the application: *exactly once*.
///
/// [`SharedStore::complete_in`](super::SharedStore::complete_in) works with every store over such a database. See
/// [`guide::exactly_once`](mod@tower_idempotency::guide::exactly_once).
///
/// # Rules
/// 1. The record and the effects of a transaction are durable together, or neither is there.
/// 2. The transaction writes the row that [`RunRecord::apply_to`] returns for the current row, past its expiry or not.
///    If that is `None`, it fails with [`CommitError::Superseded`]. A database that judges in its own language does the
///    same: it writes the row only if the row has the fence of the record and is still
///    [`Running`](super::Kind::Running).
/// 3. From then on until the transaction has ended, a [`put`](Backend::put) on this row waits, leaves the row alone and
///    answers it as it was, or fails with [`BackendError::Busy`](super::BackendError::Busy). A `put` that was done
///    before makes the transaction fail. If another transaction has the row locked, `write_in` waits, or fails with
///    [`CommitError::Aborted`].
/// 4. A transaction that was answered as committed is as durable as a `put` that was answered.
/// 5. If a savepoint can undo the record without the effects, the record is refused within one, with
///    [`CommitError::Nested`].
///
/// `transaction_conformance!` of the crate `tower-idempotency-conformance` tests rules 1 to 3. The suites for backends
/// and stores do not look at this trait.
pub trait RecordInTransaction: Backend {
    /// A transaction of the application: a reference to the client's, or a closure with the effects. A type without a
    /// lifetime is written as `Self::Transaction<'_>` in [`write_in`](Self::write_in) all the same.
    type Transaction<'t>;
    /// The error of such a transaction.
    type Error: Error + Send + Sync + 'static;

    /// Writes `record` in `transaction`. The application commits it afterwards; if a transaction is a closure that this
    /// method runs, this method does.
    ///
    /// # Errors
    /// [`CommitError::Superseded`], [`CommitError::Nested`], [`CommitError::Refused`] if the record is too large, and
    /// [`CommitError::Aborted`] with the database's error. The transaction has to be rolled back.
    ///
    /// # Cancel safety
    /// If the future is dropped, the record may be written. It takes effect only if the transaction is committed.
    fn write_in(
        &self,
        transaction: Self::Transaction<'_>,
        record: RunRecord,
    ) -> impl Future<Output = Result<(), CommitError<Self::Error>>> + Send;

    /// Notes that a transaction with the record of `id` was committed, so that [`changes`](Backend::changes) may notify
    /// other processes. They also find out by reading. The store calls this once it knows of the commit. A database
    /// that notifies by itself needs nothing here. By default this does nothing.
    fn committed(&self, id: RecordId) {
        let _ = id;
    }
}

/// A database whose transactions write the record of a run by one statement, with any client.
pub trait RecordByStatement: RecordInTransaction {
    /// Returns the statement that writes `record`, and its one parameter, a byte string.
    ///
    /// # Errors
    /// [`TransactionError::TooLarge`]. The transaction has to be rolled back.
    fn statement(&self, record: &RunRecord) -> Result<(&'static str, Vec<u8>), TransactionError>;
}

/// The record of a run, for a transaction of the application. A run gives it out with
/// [`SharedStore::record_for`](super::SharedStore::record_for).
#[derive(Debug, Clone)]
#[must_use = "the transaction has to write it"]
pub struct RunRecord {
    /// The row that completes the run. `protocol/transaction.rs` makes it.
    pub(super) write: Write,
    /// The fence of the run, by which a database finds out whether the run still has the operation.
    pub(super) fence: Fence,
    pub(super) clocks: Clocks,
}

impl RunRecord {
    /// Returns the id of the row.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.write.id
    }

    /// Returns the fence of the run. The row of the run has it.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Returns the row as it is to be written: its token, its state, and how long it is kept.
    #[must_use]
    pub fn write(&self) -> &Write {
        &self.write
    }

    /// Returns the clocks of the process: see [`Backend`], *Time*.
    #[must_use]
    pub fn clocks(&self) -> Clocks {
        self.clocks
    }

    /// Returns the row that the transaction writes over the `current` one, past its expiry or not, at the database's
    /// time `now`. Returns `None` if the run no longer has the operation, or the operation is completed already. The
    /// transaction then has to be rolled back.
    #[must_use]
    pub fn apply_to(&self, current: Option<&Row>, now: Timestamp) -> Option<Row> {
        // A row with this token means that a transaction of this run has completed the operation already.
        let current = current.filter(|row| row.token != self.write.token)?;
        let Moment { now, latest, .. } = self.clocks.at(now);
        // Another run that has claimed the operation, expired or not, has another fence and another token.
        // With 0 as the earliest time, the row counts as there even past its expiry.
        self.write.apply_to(Some(current), Moment { now, earliest: Timestamp::from_millis(0), latest })
    }
}
