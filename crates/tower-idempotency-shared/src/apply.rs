//! The contract of [`Backend`](super::Backend) as functions, for a database that reads a row and writes it in one step
//! of its own: in a transaction that excludes others, or under a lock. A database that compares and sets in its own
//! language does not need them.

use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};

use super::backend::{Clocks, Expect, GRACE, Kind, NewExpiry, NewFence, Row, Stamp, Write};

/// The time of a step of the database, by its own clock and those of the process that calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The database's time, which the answer has and which stamps [`Row::since`].
    pub now: Timestamp,
    /// The earliest time, which decides what has expired and stamps [`Row::began`].
    pub earliest: Timestamp,
    /// The latest time, from which [`Row::until`], [`Row::expires`] and new fences count.
    pub latest: Timestamp,
}

impl Clocks {
    /// Returns the time of a step at the database's time `now`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Moment {
        Moment { now, earliest: self.earliest.min(now), latest: self.latest.max(now) }
    }
}

impl Write {
    /// Returns the row that this write makes of the `current` one, or `None` if it does not change that row.
    ///
    /// `current` is the row as the database has it, past its expiry or not; the time is read after the row was locked.
    #[must_use]
    pub fn apply_to(&self, current: Option<&Row>, moment: Moment) -> Option<Row> {
        let Moment { now, earliest, latest } = moment;
        // `live` is the row unless it has expired. `again` is the row if an earlier copy of this write has made it.
        let live = current.filter(|row| !row.is_absent(earliest));
        let again = live.filter(|row| row.token == self.token);
        let is_expected = match self.expect {
            Expect::Absent => live.is_none(),
            Expect::Token(token) => live.is_some_and(|row| row.token == token),
        };
        if !is_expected && again.is_none() {
            return None;
        }
        let fence = match (again, live, self.fence) {
            (Some(row), ..) | (None, Some(row), NewFence::Keep) => row.fence,
            (None, _, NewFence::Exactly(fence)) => current.map_or(fence, |row| fence.max(row.fence)),
            (None, None, NewFence::Keep) => new_fence(current, Fence(0), latest),
            (None, _, NewFence::Above(floor)) => new_fence(current, floor, latest),
        };
        let stamp = |stamp, now, kept: fn(&Row) -> Timestamp| match stamp {
            Stamp::Keep => live.map_or(now, kept),
            Stamp::Now => again.map_or(now, kept),
        };
        // The clocks may have been set back before a late copy of the write is stamped. The process relies on the
        // answer to an earlier copy.
        let counted = |duration, kept: Option<Timestamp>| {
            let counted = latest.plus(duration);
            kept.map_or(counted, |kept| counted.max(kept))
        };
        Some(Row {
            id: self.id,
            token: self.token,
            fence,
            kind: self.kind,
            session: self.session,
            until: self.until.map(|until| counted(until, again.and_then(|row| row.until))),
            began: stamp(self.began, earliest, |row| row.began),
            since: stamp(self.since, now, |row| row.since),
            expires: match self.expires {
                // There is always a live row to keep the expiry of, unless the write breaks the contract.
                NewExpiry::Keep => live.map_or(latest, |row| row.expires),
                NewExpiry::In(duration) => counted(duration, again.map(|row| row.expires)),
            },
            state: self.state.clone(),
        })
    }
}

/// Returns the fence of [`NewFence::Above`].
fn new_fence(current: Option<&Row>, floor: Fence, latest: Timestamp) -> Fence {
    let microseconds = latest.as_millis().saturating_mul(1_000);
    let last = current.map_or(0, |row| row.fence.0).max(floor.0);
    Fence(microseconds.max(last.saturating_add(1)))
}

impl Row {
    /// Returns when the record expires, if it is not running. The row itself is kept for longer, if that is soon.
    pub(super) fn record_expires(&self) -> Timestamp {
        self.until.filter(|_| self.session.is_none()).unwrap_or(self.expires)
    }

    /// Returns whether the row counts as absent.
    #[must_use]
    pub fn is_absent(&self, earliest: Timestamp) -> bool {
        self.expires <= earliest
    }

    /// Returns whether [`delete_expired`](super::Backend::delete_expired) may delete the row.
    #[must_use]
    pub fn is_past_grace(&self, earliest: Timestamp) -> bool {
        self.expires.plus(GRACE) <= earliest
    }

    /// Returns whether [`list`](super::Backend::list) lists the row. The row may not be absent.
    #[must_use]
    pub fn is_listed(&self, earliest: Timestamp, alive: &[RecordId]) -> bool {
        match self.kind {
            Kind::Interrupted | Kind::Disputed => true,
            Kind::Running => {
                self.session.is_none_or(|session| !alive.contains(&session))
                    || self.until.is_none_or(|until| until <= earliest)
            }
            Kind::Completed | Kind::Consumed | Kind::Released | Kind::Session | Kind::Other(_) => false,
        }
    }
}
