//! Pages of lists, and the places at which they begin.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::{Owner, State};
use crate::store::listed::ListedRecord;

/// What a list has, and its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// All records that are not past their expiry, in the order of their ids. It may show what is not durable yet.
    All,
    /// The operations whose runs are under way in a process that is alive, in the order of their ids. A claim that left
    /// no trace is not among them.
    Running,
    /// The interrupted operations, the oldest first: an exclusive store orders them by when they were interrupted, and
    /// a shared store by when they began. A shared store lists here also the completed records
    /// that this process has met and can't read.
    Interrupted,
    /// The outcomes that came after their operations were taken over or settled, in the order in which they came. Each
    /// is a record of its operation's id and its run's fence. An exclusive store has none.
    Disputed,
}

impl List {
    /// Returns whether a record is one of this list, as far as its state says.
    #[must_use]
    pub fn has(self, listed: &ListedRecord) -> bool {
        match (self, &listed.record) {
            (Self::All, _) => true,
            (Self::Running, Ok(record)) => matches!(record.state, State::Running { .. }) && record.owner != Owner::None,
            (Self::Interrupted, Ok(record)) => matches!(record.state, State::Interrupted { .. }),
            // A disputed outcome has the state of one that is not.
            (Self::Disputed, _) | (_, Err(_)) => false,
        }
    }

    /// Returns the place of a record in this list.
    #[must_use]
    pub fn place(self, listed: &ListedRecord) -> Cursor {
        match (self, &listed.record) {
            (Self::Interrupted, Ok(record)) => Cursor::of_time(record.since, record.began, listed.id),
            _ => Cursor::of_id(listed.id),
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The records, in the order of the list.
    pub records: Vec<ListedRecord>,
    /// The place at which the next page begins; `None` if there are no more records.
    pub next: Option<Cursor>,
}

impl Page {
    /// Returns the page after `after` of the list that has `all` these records, in the order of an exclusive store.
    #[must_use]
    pub fn of_all(list: List, mut all: Vec<ListedRecord>, after: Option<Cursor>, limit: usize) -> Self {
        let order = |place: Cursor| (place.since(), place.id());
        // The place in a list of another order is none in this one.
        let after = after.filter(|after| after.id().is_none() == (list == List::Interrupted));
        all.retain(|listed| after.is_none_or(|after| order(after) < order(list.place(listed))));
        all.sort_by_key(|listed| order(list.place(listed)));
        let has_more = all.len() > limit;
        all.truncate(limit);
        let next = all.last().filter(|_| has_more).map(|last| list.place(last));
        Self { records: all, next }
    }
}

/// The place in a list at which the next page begins. As a text it has only digits, letters and dots, and no secret:
/// it may be a part of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// `since` and `began`: lists of interrupted operations and of disputed outcomes are ordered by time. `None`: all
    /// others are ordered by id.
    times: Option<(Timestamp, Timestamp)>,
    id: RecordId,
}

// For stores.
#[doc(hidden)]
impl Cursor {
    /// Returns the place behind the record of this id.
    #[must_use]
    pub fn of_id(id: RecordId) -> Self {
        Self { times: None, id }
    }

    /// Returns the place behind the record with these times.
    #[must_use]
    pub fn of_time(since: Timestamp, began: Timestamp, id: RecordId) -> Self {
        Self { times: Some((since, began)), id }
    }

    /// Returns the id; `None` for the place in a list that is ordered by time.
    #[must_use]
    pub fn id(self) -> Option<RecordId> {
        self.times.is_none().then_some(self.id)
    }

    /// Returns the place in the order of an embedded store: by when the operation was interrupted.
    #[must_use]
    pub fn since(self) -> Option<(Timestamp, RecordId)> {
        self.times.map(|(since, _)| (since, self.id))
    }

    /// Returns the place in the order of a shared store: by when the operation began.
    #[must_use]
    pub fn began(self) -> Option<(Timestamp, RecordId)> {
        self.times.map(|(_, began)| (began, self.id))
    }
}

/// A text is not a [`Cursor`]: begin with the first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in a list; begin with the first page")]
#[non_exhaustive]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.times {
            Some((since, began)) => write!(f, "t{}.{}.{}", since.as_millis(), began.as_millis(), self.id),
            None => write!(f, "i{}", self.id),
        }
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let id = |text: &str| text.parse::<RecordId>().map_err(|_| CursorError);
        let time = |text: &str| text.parse().map(Timestamp::from_millis).map_err(|_| CursorError);
        if let Some(text) = text.strip_prefix('i') {
            return id(text).map(Self::of_id);
        }
        let text = text.strip_prefix('t').ok_or(CursorError)?;
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(CursorError);
        Ok(Self::of_time(time(next()?)?, time(next()?)?, id(next()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_from_what_it_is_written_as() {
        let id = RecordId::from_bytes([0xab; 32]);
        let (since, began) = (Timestamp::from_millis(1_700_000_000_123), Timestamp::from_millis(u64::MAX));
        for cursor in [Cursor::of_id(id), Cursor::of_time(since, began, id)] {
            let text = cursor.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'), "{text}");
            assert_eq!(text.parse(), Ok(cursor));
            for cut in 0..text.len() {
                assert_eq!(text[..cut].parse::<Cursor>(), Err(CursorError), "{cut}");
            }
        }
    }
}
