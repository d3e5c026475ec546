//! The contract of [`Backend`](super::Backend) as functions, for a database that reads a row and writes it in one step
//! of its own: in a transaction that excludes others, or under a lock. One that compares and sets in its own language
//! does without.

use super::backend::{Expect, GRACE, Kind, NewExpiry, NewFence, Row, Stamp, Write};
use crate::clock::Timestamp;
use crate::record::Fence;

impl Write {
    /// The row that this write makes, at `now`, of the one that is `there`; `None` if it leaves it alone.
    ///
    /// `there` is the row as the database has it, past its expiry or not; the time is read after the row was locked.
    /// The [`lease`](Row::lease) of what is made is `None`: [`Row::read`] finds it.
    #[must_use]
    pub fn over(&self, there: Option<&Row>, now: Timestamp) -> Option<Row> {
        let live = there.filter(|row| !row.is_absent(now));
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
            (None, _, NewFence::Exactly(fence)) => there.map_or(fence, |row| fence.max(row.fence)),
            (None, None, NewFence::Keep) => new_fence(there, Fence(0), now),
            (None, _, NewFence::Above(floor)) => new_fence(there, floor, now),
        };
        let stamp = |stamp, kept: fn(&Row) -> Timestamp| match stamp {
            Stamp::Keep => live.map_or(now, kept),
            Stamp::Now => again.map_or(now, kept),
        };
        Some(Row {
            id: self.id,
            token: self.token,
            fence,
            kind: self.kind,
            session: self.session,
            lease: None,
            until: self.until.map(|until| now.plus(until)),
            began: stamp(self.began, |row| row.began),
            since: stamp(self.since, |row| row.since),
            expires: match self.expires {
                NewExpiry::Keep => live.map_or(now, |row| row.expires),
                NewExpiry::In(duration) => now.plus(duration),
            },
            state: self.state.clone(),
        })
    }
}

/// [`NewFence::Above`].
fn new_fence(there: Option<&Row>, floor: Fence, now: Timestamp) -> Fence {
    let microseconds = now.as_millis().saturating_mul(1_000);
    let last = there.map_or(0, |row| row.fence.0).max(floor.0);
    Fence(microseconds.max(last.saturating_add(1)))
}

impl Row {
    /// Whether it counts as absent.
    #[must_use]
    pub fn is_absent(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    /// Whether [`delete_expired`](super::Backend::delete_expired) may delete it.
    #[must_use]
    pub fn is_past_grace(&self, now: Timestamp) -> bool {
        self.expires.plus(GRACE) <= now
    }

    /// This row as it is read: `None` if it counts as absent; with the lease that `session` says, the row of
    /// [`Row::session`] as the database has it.
    #[must_use]
    pub fn read(self, session: Option<&Self>, now: Timestamp) -> Option<Self> {
        let session = session.filter(|row| row.kind == Kind::Session && !row.is_absent(now));
        let lease = session.filter(|row| Some(row.id) == self.session).and_then(|row| row.until);
        if self.is_absent(now) { None } else { Some(Self { lease, ..self }) }
    }

    /// Whether [`list`](super::Backend::list) lists it, once it was [`read`](Self::read).
    #[must_use]
    pub fn is_listed(&self, now: Timestamp) -> bool {
        let is_over = |end: Option<Timestamp>| end.is_none_or(|end| end <= now);
        match self.kind {
            Kind::Interrupted | Kind::Disputed => true,
            Kind::Running => is_over(self.lease) || is_over(self.until),
            Kind::Completed | Kind::Consumed | Kind::Released | Kind::Session | Kind::Unknown(_) => false,
        }
    }
}
