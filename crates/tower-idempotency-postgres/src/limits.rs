//! The fill level of the table: what clients send must not fill the disk of a database that others use too.
//!
//! Rows and bytes are estimates, which cost the database nothing: it counts the rows that statements have inserted and
//! deleted. The files do not shrink when rows are deleted, so their size alone would refuse new keys for ever. What
//! counts is what the rows take that are there, and no more than the size of the files.

use tokio::sync::watch;
use tokio_postgres::{Error, Row};

/// The bytes that a row takes in the heap in addition to its columns, and in the indexes.
const OVERHEAD: u64 = 28;
const INDEXES: u64 = 150;
/// The bytes that the columns of a row take, if that was never counted.
const UNKNOWN_WIDTH: u64 = 1_000;
/// The bytes that a chunk of a long answer takes, with its place in an index.
const CHUNK: u64 = 2_080;

/// The limits of the table, and which of them is reached.
#[derive(Debug)]
pub(super) struct Limits {
    /// The name of each limit, as the builder's method has it, and the limit.
    most: [(&'static str, u64); 2],
    /// The name of the limit that is reached, if one is. `Backend::full` reads it.
    reached: watch::Sender<Option<&'static str>>,
    /// The last estimates of the records and the bytes. `None` before the first count.
    last: watch::Sender<Option<(u64, u64)>>,
}

impl Limits {
    pub(super) fn new(max_records: u64, max_bytes: u64) -> Self {
        Self {
            most: [("max_records", max_records), ("max_bytes", max_bytes)],
            reached: watch::Sender::default(),
            last: watch::Sender::default(),
        }
    }

    /// The last estimates of the records and the bytes.
    pub(super) fn last(&self) -> Option<(u64, u64)> {
        *self.last.borrow()
    }

    /// The limit that is reached, as far as is known.
    pub(super) fn reached(&self) -> Option<&'static str> {
        *self.reached.borrow()
    }

    /// Takes note of how full the table is. Says it in the log, if a limit is reached that was not, or not any more.
    pub(super) fn note(&self, counted: &Counted) {
        let (records, bytes) = (counted.records(), counted.bytes());
        self.last.send_replace(Some((records, bytes)));
        let mut limits = self.most.into_iter().zip([records, bytes]);
        let reached = limits.find(|((_, most), estimate)| estimate >= most).map(|(limit, _)| limit);
        let name = reached.map(|(name, _)| name);
        match reached {
            _ if self.reached.send_replace(name) == name => {}
            Some((limit, most)) => tracing::error!(
                target: "tower_idempotency", limit, most, records, bytes,
                "the database's table is full: new keys are refused"
            ),
            None => tracing::info!(
                target: "tower_idempotency", records, bytes, "the database's table has room again"
            ),
        }
    }
}

/// The database's counts of the table, and of the table in which it keeps the chunks of long answers.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counted {
    rows: Tuples,
    chunks: Tuples,
    /// Of the files, all indexes included.
    size: u64,
    /// Of a row's columns, the chunks left out.
    width: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tuples {
    live: u64,
    /// Deleted, and still there.
    dead: u64,
    /// The number that were there when the table was last looked through.
    then: u64,
    /// It was looked through since the counting began, which begins anew after a crash.
    is_counted: bool,
}

impl Tuples {
    /// Returns how many there are. If the counting has begun anew, there are as many as there were before, or more.
    fn live(&self) -> u64 {
        if self.is_counted { self.live } else { self.live.max(self.then) }
    }

    /// Returns how many take space: the deleted ones do until a `VACUUM`.
    fn all(&self) -> u64 {
        self.live().saturating_add(self.dead)
    }
}

impl Counted {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        // The indexes are those of `COUNTED` in `queries.rs`. A negative number means that the server has not counted.
        let number = |index| row.try_get::<_, Option<i64>>(index).map(|n| n.and_then(|n| u64::try_from(n).ok()));
        let tuples = |index| {
            let (live, dead, then) = (number(index)?, number(index + 1)?, number(index + 2)?);
            let is_counted = row.try_get::<_, Option<bool>>(index + 3)?.unwrap_or(false);
            let [live, dead, then] = [live, dead, then].map(Option::unwrap_or_default);
            Ok::<_, Error>(Tuples { live, dead, then, is_counted })
        };
        Ok(Self { rows: tuples(0)?, chunks: tuples(4)?, size: number(8)?.unwrap_or_default(), width: number(9)? })
    }

    fn records(&self) -> u64 {
        self.rows.live()
    }

    /// Returns an estimate of the bytes on the disk that rows take, and not free space.
    fn bytes(&self) -> u64 {
        // A fifth of each page of the heap is left free for updates.
        let row = (self.width.unwrap_or(UNKNOWN_WIDTH) + OVERHEAD) * 5 / 4 + INDEXES;
        let rows = self.rows.all().saturating_mul(row);
        // An estimate above the size of the files is wrong.
        self.size.min(rows.saturating_add(self.chunks.all().saturating_mul(CHUNK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 1_000_000;

    #[test]
    fn a_count_that_a_crash_has_lost_is_that_of_the_time_before() {
        let lost = Tuples { live: 3, then: MANY, ..Tuples::default() };
        assert_eq!(Counted { rows: lost, ..Counted::default() }.records(), MANY);
        let counted = Tuples { is_counted: true, ..lost };
        assert_eq!(Counted { rows: counted, ..Counted::default() }.records(), 3);
        // Never looked through.
        let new = Tuples { live: MANY, ..Tuples::default() };
        assert_eq!(Counted { rows: new, ..Counted::default() }.records(), MANY);
    }

    #[test]
    fn deleted_rows_take_no_bytes_once_their_space_is_free_though_the_files_are_as_large() {
        let rows = Tuples { live: MANY, is_counted: true, ..Tuples::default() };
        let full = Counted { rows, chunks: rows, size: 4_000 * MANY, width: Some(500) };
        let bytes = full.bytes();
        assert!((2_500 * MANY..3_500 * MANY).contains(&bytes), "{bytes}");
        let deleted = Tuples { live: 0, dead: MANY, ..rows };
        assert_eq!(Counted { rows: deleted, chunks: deleted, ..full }.bytes(), bytes, "not free yet");
        let free = Tuples { live: 0, ..rows };
        assert_eq!(Counted { rows: free, chunks: free, ..full }.bytes(), 0);
        assert_eq!(Counted { size: 7, ..full }.bytes(), 7, "no more than there is");
    }

    #[test]
    fn a_limit_is_reached_and_left() {
        let limits = Limits::new(10, 1 << 20);
        assert_eq!(limits.reached(), None);
        let of = |live| Tuples { live, is_counted: true, ..Tuples::default() };
        for (rows, chunks, reached) in [
            (9, 0, None),
            (10, 0, Some("max_records")),
            (2, 1_000, Some("max_bytes")),
            (10, 1_000, Some("max_records")),
            (0, 0, None),
        ] {
            limits.note(&Counted { rows: of(rows), chunks: of(chunks), size: u64::MAX, width: None });
            assert_eq!(limits.reached(), reached);
        }
    }
}
