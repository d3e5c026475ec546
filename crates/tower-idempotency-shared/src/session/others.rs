//! Finds out whether the processes behind other sessions are alive: this process watches their rows.
//!
//! Rules:
//! 1. A session is over if its row (token, `until`, server) has not changed for 5/4 of that session's lease, by the
//!    monotonic clock of this process, and a read that was sent later still shows it. Wall clocks play no part in this.
//!    The rates of two monotonic clocks may differ by up to 5:4.
//! 2. A session that was ended or declared dead is over at once. A session that is absent is watched like any other.
//!    Its lease is unknown, so it counts as the longest of 30 seconds, this process's own lease, and the lease that its
//!    row had.
//! 3. Watching starts over when this process held less than half of its lease at a renewal, when another server
//!    answers, and when two reads of the sessions were more than half of the shortest lease apart. An outage must not
//!    make living processes look dead.
//! 4. A session that is over still has to be declared dead, by a write that expects the token that was watched. The
//!    write is the proof: tokens never repeat, so no renewal came between. See `session/mod.rs`.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;

use super::own::Said;
use crate::backend::{Expect, Kind, Row, ServerId, Token};

/// The lease of a session that is absent is at least this.
const UNKNOWN_LEASE: Duration = Duration::from_secs(30);
/// A lease below this one does not count for how often sessions are read.
const MIN_LEASE: Duration = Duration::from_secs(1);
/// A session that has not changed for this many waits is declared dead, even if no run of it is taken over.
const WAITS: u32 = 10;
/// The time for which this process remembers that a session is over, if no row names it.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// The other sessions, as this process watches them. All of this is memory: no row is written here.
#[derive(Debug)]
pub(crate) struct OtherSessions {
    lease: Duration,
    state: Mutex<Watched>,
    /// Notified when a row names a session that has not been read yet.
    unread: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    others: HashMap<RecordId, Other>,
    /// The time at which the last read was sent.
    read: Option<Instant>,
}

#[derive(Debug)]
struct Other {
    sight: Sight,
    /// The time at which the first answer with this sight arrived.
    since: Instant,
    /// `true` once the session counts as dead: its runs may be taken over once it is marked as dead, too.
    is_over: bool,
    /// The time at which a row last named the session, or a read last showed it.
    named: Instant,
}

/// The state of a session as the last read showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// A row names it, and no read has shown it yet.
    Unread,
    /// Its row. If its bytes can't be read, the session is never over.
    Row { token: Token, until: Option<Timestamp>, said: Option<Said>, server: ServerId },
    /// It has no row. The lease is assumed.
    Absent { lease: Duration, server: ServerId },
    /// It was ended, or declared dead.
    Ended,
}

impl Sight {
    /// Returns the lease by which the session is judged, or `None` if it is unknown.
    fn lease(self) -> Option<Duration> {
        match self {
            Self::Row { said, .. } => said.map(|said| said.lease),
            Self::Absent { lease, .. } => Some(lease),
            Self::Unread | Self::Ended => None,
        }
    }
}

impl OtherSessions {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, state: Mutex::default(), unread: Notify::new() }
    }

    /// Returns whether a session of another process is over. A session that is not known counts as alive, and is read
    /// soon.
    pub(crate) fn is_over(&self, session: RecordId) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        let unread = Other { sight: Sight::Unread, since: now, is_over: false, named: now };
        let other = state.others.entry(session).or_insert_with(|| {
            // This ends `due`, so the sessions are read now.
            self.unread.notify_one();
            unread
        });
        other.named = now;
        other.is_over
    }

    /// Returns whether the session has said that its run with this bound is over.
    pub(crate) fn has_ended(&self, session: RecordId, bound: Timestamp) -> bool {
        let sight = self.state.lock().others.get(&session).map(|other| other.sight);
        // A session that is unread, absent or ended says nothing now.
        matches!(sight, Some(Sight::Row { said: Some(said), .. }) if bound < said.over_before)
    }

    /// Returns what a write that declares the session dead has to expect of its row. Returns `None` if the session is
    /// not over, or has ended already.
    pub(crate) fn expected(&self, session: RecordId) -> Option<Expect> {
        let state = self.state.lock();
        let other = state.others.get(&session).filter(|other| other.is_over)?;
        match other.sight {
            Sight::Row { token, .. } => Some(Expect::Token(token)),
            Sight::Absent { .. } => Some(Expect::Absent),
            // An ended session needs no write, and an unread one is never over.
            Sight::Ended | Sight::Unread => None,
        }
    }

    /// Notes that a session was ended or declared dead.
    pub(crate) fn ended(&self, session: RecordId) {
        if let Some(other) = self.state.lock().others.get_mut(&session) {
            (other.sight, other.is_over) = (Sight::Ended, true);
        }
    }

    /// Returns the sessions of other processes that count as alive.
    pub(crate) fn alive(&self) -> Vec<RecordId> {
        self.state.lock().others.iter().filter(|(_, other)| !other.is_over).map(|(id, _)| *id).collect()
    }

    /// Forgets the results of all reads.
    pub(crate) fn start_over(&self) {
        self.state.lock().others.clear();
    }

    /// Returns the sessions that have to be read by their ids, because they are not among the `listed` ones.
    pub(crate) fn unlisted(&self, listed: &[Row]) -> Vec<RecordId> {
        let state = self.state.lock();
        let is_unlisted = |id: &RecordId| listed.iter().all(|row| row.id != *id);
        let open = state.others.iter().filter(|(_, other)| other.sight != Sight::Ended).map(|(id, _)| *id);
        open.filter(is_unlisted).collect()
    }

    /// Notes that a read of all sessions was answered, which was sent at `sent`; [`note`](Self::note) takes what it has
    /// found. Watching starts over if this is too late after the read before. Sessions that were over long ago are
    /// forgotten.
    pub(crate) fn read(&self, sent: Instant) {
        let mut state = self.state.lock();
        let most = self.shortest_lease(&state) / 2;
        if state.read.replace(sent).is_some_and(|before| sent.saturating_duration_since(before) > most) {
            state.others.clear();
        }
        state.others.retain(|_, other| !other.is_over || other.named.elapsed() < REMEMBERED);
    }

    /// Notes the answer to a read that was sent at `sent`: the sessions that were asked about, each with its row.
    pub(crate) fn note(
        &self,
        server: ServerId,
        sent: Instant,
        rows: impl IntoIterator<Item = (RecordId, Option<Row>)>,
    ) {
        let (mut state, received, mut died) = (self.state.lock(), Instant::now(), Vec::new());
        for (id, row) in rows {
            let sight = match &row {
                None => {
                    let lease = state.others.get(&id).and_then(|other| other.sight.lease()).unwrap_or_default();
                    Sight::Absent { lease: lease.max(self.lease).max(UNKNOWN_LEASE), server }
                }
                // One of another kind can't be read, and says nothing: it is never over.
                Some(row) if matches!(row.kind, Kind::Session | Kind::Other(_)) => {
                    let said = Said::by(row).filter(|_| row.kind == Kind::Session);
                    Sight::Row { token: row.token, until: row.until, said, server }
                }
                // The row is the tombstone that an end, or a mark as dead, has left.
                Some(_) => Sight::Ended,
            };
            let is_over = sight == Sight::Ended;
            let new = Other { sight, since: received, is_over, named: received };
            let other = state.others.entry(id).or_insert(new);
            if row.is_some() {
                other.named = received;
            }
            if other.sight != sight {
                *other = Other { sight, since: received, is_over, named: other.named };
            } else if let Some(wait) = Self::wait(sight)
                && !other.is_over
                && sent >= other.since + wait
            {
                other.is_over = true;
                // A session without a row may have been over for long.
                died.extend(row.is_some().then_some(id));
            }
        }
        drop(state);
        for session in died {
            tracing::warn!(
                target: "tower_idempotency",
                session = session.short(),
                "another process has died, or no longer renews its lease: its runs count as interrupted"
            );
        }
    }

    /// Returns the sessions that have not changed for so long that they are declared dead even if no row names them.
    pub(crate) fn long_over(&self) -> Vec<RecordId> {
        let is_long = |other: &Other| {
            let is_row = matches!(other.sight, Sight::Row { .. });
            let wait = Self::wait(other.sight).filter(|_| is_row && other.is_over);
            wait.is_some_and(|wait| other.since.elapsed() >= wait * WAITS)
        };
        self.state.lock().others.iter().filter(|(_, other)| is_long(other)).map(|(id, _)| *id).collect()
    }

    /// Waits until the sessions have to be read again: each sixth of the shortest lease, as soon as a wait is over, and
    /// when a row names a session that was not read yet.
    pub(crate) async fn due(&self) {
        let end = |other: &Other| Self::wait(other.sight).filter(|_| !other.is_over).map(|wait| other.since + wait);
        let next = {
            let state = self.state.lock();
            let soon = Instant::now() + self.shortest_lease(&state) / 6;
            state.others.values().filter_map(end).min().map_or(soon, |next| next.min(soon))
        };
        // The future is dropped at once. Otherwise a session that was read meanwhile would be read again.
        let _ = tokio::time::timeout_at(next, self.unread.notified()).await;
    }

    /// Returns the time for which a session must not change before it is over, or `None` if it is never over.
    fn wait(sight: Sight) -> Option<Duration> {
        sight.lease().map(|lease| lease.saturating_mul(5) / 4)
    }

    /// Returns the shortest lease of the sessions that are not over, this process's own included.
    fn shortest_lease(&self, state: &Watched) -> Duration {
        // The lease of an absent session is assumed. It is at least this process's own.
        let open = state.others.values().filter(|other| !other.is_over);
        open.filter_map(|other| other.sight.lease()).fold(self.lease, Duration::min).max(MIN_LEASE)
    }
}

#[cfg(test)]
mod tests;
