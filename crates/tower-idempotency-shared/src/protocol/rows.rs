//! Rows as records: the content of a row's bytes, and how this process judges a row that it reads.
//!
//! The bytes are a version, the record without its first four fields (which are columns) as postcard writes it, and a
//! checksum over the row's id and the bytes before it: see `codec` of tower-idempotency. The version has one more bit
//! set if a transaction of the application wrote the row.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals;
use tower_idempotency::internals::codec::{self, CHECKSUM_BYTES, CodecError, HEAD_BYTES, VERSION};
use tower_idempotency::internals::{
    Cause, ClaimPolicy, Draft, ListedRecord, Origin, OutcomeStart, Owner, Record, State,
};
use tower_idempotency::store::StoreError;
use tower_idempotency::{Fingerprint, RecordId};

use crate::backend::{Kind, Row};
use crate::session::others::OtherSessions;

/// The version of a row that a transaction of the application wrote.
const OF_TRANSACTION: u8 = VERSION | 0x80;

/// The part of a record that a row holds as bytes. The order of the fields is the stored format.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rest {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) attempt: u32,
    pub(crate) origin: Origin,
    pub(crate) state: State,
}

/// Returns the bytes of those parts of `draft` that have no columns.
pub(crate) fn encode(id: &RecordId, draft: &Draft<Bytes>) -> Option<Bytes> {
    let Draft { fingerprint, attempt, ref origin, ref state, .. } = *draft;
    let rest = Rest { fingerprint, attempt, origin: origin.clone(), state: state.clone() };
    let outcome = if let State::Completed { outcome } = state { outcome.len() } else { 0 };
    // `None` means that the record can't be encoded.
    codec::seal(id, VERSION, &rest, HEAD_BYTES + outcome).ok().map(Bytes::from)
}

/// Returns the same bytes, marked as written by a transaction of the application.
pub(crate) fn of_transaction(id: &RecordId, bytes: &[u8]) -> Option<Bytes> {
    let (content, _) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let mut bytes = [&[OF_TRANSACTION], content.get(1..)?].concat();
    let checksum = codec::checksum(id.as_bytes(), &bytes);
    bytes.extend_from_slice(&checksum);
    Some(bytes.into())
}

/// Returns whether a transaction of the application wrote the row with its effects.
pub(crate) fn is_of_transaction(row: &Row) -> bool {
    row.state.first() == Some(&OF_TRANSACTION)
}

/// Returns the kind of a row in this state.
pub(crate) fn kind<O>(state: &State<O>) -> Kind {
    match state {
        State::Running { .. } => Kind::Running,
        State::Interrupted { .. } => Kind::Interrupted,
        State::Completed { .. } => Kind::Completed,
        State::Consumed { .. } => Kind::Consumed,
    }
}

/// A process's view of rows: the sessions that are its own, and the other sessions that are over.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// The sessions of this process, past ones included.
    pub(crate) own: Arc<HashSet<RecordId>>,
    /// The earliest time, by which the row is judged.
    pub(crate) earliest: Timestamp,
    /// The sessions of other processes. `None` if this process may not consider any other process dead.
    pub(crate) others: Option<&'a OtherSessions>,
}

/// A row that is neither absent nor released.
#[derive(Debug, Clone)]
pub(crate) enum Decoded {
    /// The record, as this process sees it now.
    Record(Box<Record>),
    /// The bytes can't be read. The record has only what the columns say, and its fingerprint matches no request.
    Damaged(Box<Record>, CodecError),
    /// A later release has written it.
    Newer(String),
}

impl View<'_> {
    /// Returns the record of a row, as this process sees it; `None` if it expired or was released.
    pub(crate) fn of(&self, row: &Row) -> Option<Decoded> {
        match row.kind {
            Kind::Released | Kind::Session | Kind::Disputed => None,
            Kind::Other(number) => {
                Some(Decoded::Newer(format!("the row is of kind {number}, which this release does not know")))
            }
            Kind::Running | Kind::Interrupted | Kind::Completed | Kind::Consumed => self.decoded(row),
        }
    }

    /// Returns the record in a row of an operation or of a disputed outcome; `None` if it expired.
    pub(crate) fn decoded(&self, row: &Row) -> Option<Decoded> {
        let is_meant = |state| kind(state) == row.kind || row.kind == Kind::Disputed && state.is_done();
        match codec::open::<Rest>(&row.id, &[VERSION, OF_TRANSACTION], &row.state) {
            Ok(rest) if is_meant(&rest.state) => Some(Decoded::Record(Box::new(self.presented(row, rest)?))),
            // The bytes can be read, but their state is not that of the column.
            Ok(_) => self.damaged(row, CodecError::Content),
            Err(error @ CodecError::Version(_)) => Some(Decoded::Newer(error.to_string())),
            Err(error) => self.damaged(row, error),
        }
    }

    /// Returns what the columns say of a row whose bytes can't be read. It is unknown how its operation ended, or
    /// whether it did.
    fn damaged(&self, row: &Row, error: CodecError) -> Option<Decoded> {
        let state = State::Interrupted { policy: ClaimPolicy::Unreadable, run: row.fence, cause: Cause::Unknown };
        // The true number of attempts is unknown, so it counts as 1.
        let rest = Rest { fingerprint: internals::unverifiable(), attempt: 1, origin: Origin::default(), state };
        Some(Decoded::Damaged(Box::new(self.presented(row, rest)?), error))
    }

    /// Returns the record of a row: a run whose process is gone is presented as interrupted, and an expired record as
    /// `None`.
    fn presented(&self, row: &Row, rest: Rest) -> Option<Record> {
        let Rest { fingerprint, attempt, origin, state } = rest;
        let Row { fence, began, since, .. } = *row;
        let is_running = matches!(state, State::Running { .. });
        let owner = self.owner(row);
        let expires = if is_running { None } else { Some(row.record_expires()) };
        let record = Record { fence, began, since, expires, fingerprint, attempt, origin, state, owner };
        // The time at which its process died is unknown. So the record expires with the row: after its bound and the
        // retention, counted from the claim.
        let lapsed = |record: Record| Record { expires: Some(row.expires), ..record.lapse(since, self.cause(row)) };
        let record = if is_running && owner == Owner::None { lapsed(record) } else { record };
        record.live(self.earliest)
    }

    /// Returns which process sees to the operation now, by the session and the bound of its row.
    fn owner(&self, row: &Row) -> Owner {
        match row.session {
            None => Owner::None,
            Some(session) if self.own.contains(&session) => Owner::Here,
            // The bound of the question about it is over.
            Some(_) if row.kind != Kind::Running && row.until.is_none_or(|until| until <= self.earliest) => Owner::None,
            Some(session) if self.others.is_some_and(|others| is_over(others, session, row.until)) => Owner::None,
            Some(_) => Owner::Elsewhere,
        }
    }

    /// Returns why a run is over that has not said how it ended: its process, or the run alone.
    fn cause(&self, row: &Row) -> Cause {
        match (row.session, self.others) {
            (Some(session), Some(others)) if !others.is_over(session) => Cause::MaxRun,
            _ => Cause::Lease,
        }
    }
}

/// Returns whether a run is over: its session is over, or its bound is over and its process says that the run is.
fn is_over(others: &OtherSessions, session: RecordId, bound: Option<Timestamp>) -> bool {
    others.is_over(session) || bound.is_none_or(|bound| others.has_ended(session, bound))
}

impl View<'_> {
    /// Returns what is listed of a row, whose bytes may have been cut; `None` if it expired or was released.
    pub(crate) fn listed(&self, row: &Row) -> Option<ListedRecord> {
        self.held(row, self.of(row)?)
    }

    /// Returns what is listed of a disputed outcome, under the id of its operation, which its row names as its session.
    /// It is unknown when the operation began.
    pub(crate) fn disputed(&self, row: &Row) -> Option<ListedRecord> {
        let id = Some(row).filter(|row| row.kind == Kind::Disputed)?.session.unwrap_or(row.id);
        let row = Row { began: Timestamp::from_millis(0), ..row.clone() };
        Some(ListedRecord { id, session: None, ..self.held(&row, self.decoded(&row)?)? })
    }

    /// Returns what is listed of a row that was read as `held`.
    fn held(&self, row: &Row, held: Decoded) -> Option<ListedRecord> {
        let cut = if matches!(held, Decoded::Damaged(..)) { cut(row) } else { None };
        let Some((rest, outcome)) = cut else { return Some(listed(row, held)) };
        let record = self.presented(row, rest)?;
        let Ok(record) = record.form(|_| Ok::<_, Infallible>(outcome.clone()));
        Some(ListedRecord { session: row.session, ..ListedRecord::readable(row.id, record) })
    }
}

/// The beginning of a completed record whose bytes were cut: the fields of [`Rest`] without an outcome, and the start
/// of that.
type Cut = (Rest, OutcomeStart);

/// Reads the fields of [`Rest`] one by one. Returns `None` if the bytes are those of another record, or whole.
fn cut(row: &Row) -> Option<Cut> {
    let (version, content) = row.state.split_first()?;
    let is_meant = matches!(row.kind, Kind::Completed | Kind::Disputed) && [VERSION, OF_TRANSACTION].contains(version);
    let content = Some(content).filter(|_| is_meant)?;
    // The fingerprint, the attempt and the origin; then the index of the state, and the length of its outcome.
    let ((fingerprint, attempt, origin, index, length), start) =
        postcard::take_from_bytes::<(_, _, _, u32, u64)>(content).ok()?;
    let rest = Rest { fingerprint, attempt, origin, state: State::Completed { outcome: Bytes::new() } };
    let is_cut = index == COMPLETED && length > start.len() as u64;
    is_cut.then(|| (rest, OutcomeStart::of(length, start)))
}

/// The index of [`State::Completed`].
const COMPLETED: u32 = 2;

/// Returns what is listed of a row.
pub(crate) fn listed(row: &Row, held: Decoded) -> ListedRecord {
    let listed = match held {
        Decoded::Record(record) => ListedRecord::of(row.id, &record),
        Decoded::Damaged(record, error) => ListedRecord::damaged(row.id, error.to_string(), Some(&record)),
        Decoded::Newer(reason) => ListedRecord::damaged(row.id, reason, None),
    };
    ListedRecord { session: row.session, ..listed }
}

impl Decoded {
    /// Returns the whole record.
    pub(crate) fn whole(self, id: RecordId) -> Result<Record, StoreError> {
        match self {
            Self::Record(record) => Ok(*record),
            Self::Damaged(_, error) => Err(StoreError::Corrupt { id, reason: error.to_string() }),
            Self::Newer(reason) => Err(StoreError::Corrupt { id, reason }),
        }
    }

    /// Returns the record in order to end or settle the operation, for which the columns are enough.
    pub(crate) fn columns(self, id: RecordId) -> Result<Record, StoreError> {
        match self {
            Self::Record(record) | Self::Damaged(record, _) => Ok(*record),
            Self::Newer(reason) => Err(StoreError::Corrupt { id, reason }),
        }
    }
}
