//! The session of this process: the row by which other processes know that it is alive, and what this process may
//! believe of their leases.
//!
//! Rules:
//! 1. A lease counts from the moment at which the request for it was sent, and only once the database has answered.
//! 2. A claim begins only while at least half of the lease is left.
//! 3. The leases of others are trusted only while at least half of the own lease is left. They are not trusted for a
//!    whole lease after the database was reached for the first time, or after an outage, nor after it was started again
//!    or replaced, or its clock jumped: none of these must make the runs of living processes look dead, and every
//!    living process has renewed its lease by then. A renewal period would be too short: when the database is back, a
//!    renewal may be under way that has to time out, then comes a pause, and then a call that takes its time.
//! 4. A session that was marked dead is never renewed. This process goes on under a new one; the runs of the old one
//!    may still end.
//! 5. What was read is durable if a write that began later was answered as durable by the same server. So one write
//!    is needed for each server, the barrier, before completed records that others wrote are told.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::backend::{Expect, GRACE, Kind, NewExpiry, NewFence, Row, ServerId, Stamp, Token, Write};
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::record::Fence;

/// How long the row of a session is kept that nobody renews, ends or marks dead. An absent session is a dead one.
const KEPT: Duration = Duration::from_secs(86_400);
/// How long the row of a session is kept that has ended.
const KEPT_DEAD: Duration = Duration::from_secs(3_600);
/// How far the database's clock may be from where it should be before its leases are not trusted for a while.
const JUMP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Session {
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: RecordId,
    token: Option<Token>,
    /// Until when the lease is certainly held.
    until: Instant,
    /// The sessions of this process, past ones included.
    own: Arc<HashSet<RecordId>>,
    server: Option<ServerId>,
    /// The server behind whose barrier this process is.
    barrier: Option<ServerId>,
    trusted_from: Instant,
    /// The last answer's time.
    read: Option<Read>,
}

/// A time of the database, and between which moments here it was read.
#[derive(Debug, Clone, Copy)]
struct Read {
    now: Timestamp,
    sent: Instant,
    received: Instant,
}

/// What became of a renewal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Yes,
    /// The row has another token of this process: of a renewal whose answer nobody waited for, or one from before a
    /// failover. The renewal is made anew.
    Again,
    /// The session was marked dead, or is gone. There is a new one, which has no row yet.
    Dead,
}

impl Session {
    pub(super) fn new(lease: Duration) -> Self {
        let now = Instant::now();
        let (token, server, barrier, read) = (None, None, None, None);
        let state = State {
            current: super::random_id(),
            token,
            until: now,
            own: Arc::default(),
            server,
            barrier,
            trusted_from: now + lease,
            read,
        };
        Self { lease, state: Mutex::new(state) }
    }

    /// How long a session lives without a renewal.
    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    /// The time between two renewals.
    pub(super) fn period(&self) -> Duration {
        self.lease / 3
    }

    /// The session under which runs are claimed.
    pub(super) fn id(&self) -> RecordId {
        self.state().current
    }

    /// The sessions of this process, past ones included.
    pub(super) fn own(&self) -> Arc<HashSet<RecordId>> {
        Arc::clone(&self.state().own)
    }

    /// Whether a claim may begin.
    pub(super) fn may_claim(&self) -> bool {
        self.state().holds_half(self.lease)
    }

    /// Whether the leases of other processes may be trusted.
    pub(super) fn trusts_leases(&self) -> bool {
        let state = self.state();
        state.holds_half(self.lease) && state.trusted_from <= Instant::now()
    }

    /// Whether what `server` shows may be told as done.
    pub(super) fn is_behind_barrier(&self, server: ServerId) -> bool {
        self.state().barrier == Some(server)
    }

    /// The write that begins the session, or renews it. It is sent again, as it is, until its answer is known.
    pub(super) fn renewal(&self) -> Write {
        let state = self.state();
        Write {
            id: state.current,
            expect: state.token.map_or(Expect::Absent, Expect::Token),
            token: super::random_token(),
            fence: NewFence::Keep,
            kind: Kind::Session,
            session: None,
            until: Some(self.lease),
            began: Stamp::Keep,
            since: Stamp::Keep,
            expires: NewExpiry::In(KEPT),
            state: Bytes::new(),
        }
    }

    /// Takes note of what became of `renewal`, which was sent at `sent`.
    pub(super) fn renewed(&self, renewal: &Write, row: Option<&Row>, sent: Instant) -> Renewed {
        let mut state = self.state();
        if row.is_some_and(|row| row.token == renewal.token) {
            if !state.holds_half(self.lease) {
                // The database was away, for others too.
                state.trusted_from = Instant::now() + self.lease;
            }
            state.token = Some(renewal.token);
            state.until = sent + self.lease;
            if !state.own.contains(&renewal.id) {
                Arc::make_mut(&mut state.own).insert(renewal.id);
            }
            return Renewed::Yes;
        }
        // Only this process writes a session under this id.
        if let Some(row) = row.filter(|row| row.kind == Kind::Session) {
            state.token = Some(row.token);
            return Renewed::Again;
        }
        state.current = super::random_id();
        state.token = None;
        state.until = Instant::now();
        Renewed::Dead
    }

    /// Takes note of an answer: from which server it came, at which time of its clock, and whether a write in it was
    /// done. Returns whether the server took the place of another one.
    pub(super) fn answered(&self, server: ServerId, now: Timestamp, sent: Instant, was_written: bool) -> bool {
        let mut state = self.state();
        let received = Instant::now();
        let read = Read { now, sent, received };
        let has_jumped = state.read.is_some_and(|before| read.has_jumped_since(&before));
        let before = state.server.replace(server);
        let is_other = before.is_some_and(|before| before != server);
        if is_other || has_jumped {
            // A renewal may be lost with a server, and what is left of a lease may be wrong by as much as the clock was
            // set. A living process has renewed it by the end of a whole lease, even if a call takes its time.
            state.trusted_from = received + self.lease;
        }
        state.read = Some(read);
        if was_written {
            state.barrier = Some(server);
        }
        is_other
    }

    /// The database's time, as far as it is known.
    pub(super) fn now(&self) -> Timestamp {
        let read = self.state().read;
        read.map_or(Timestamp::from_millis(0), |read| read.now.plus(read.received.elapsed()))
    }

    /// The write that ends this process's session.
    pub(super) fn end(&self) -> Option<Write> {
        let state = self.state();
        state.token.map(|token| dead(state.current, token))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn holds_half(&self, lease: Duration) -> bool {
        self.until.saturating_duration_since(Instant::now()) >= lease / 2
    }
}

impl Read {
    /// Whether the database's clock was set between two answers. Each says how far that clock is ahead of this
    /// process's: the time was read at some moment between sending and receiving. Answers may overtake each other.
    fn has_jumped_since(&self, before: &Self) -> bool {
        let ((least, most), (before_least, before_most)) = (self.ahead(before), before.ahead(before));
        let jump = JUMP.as_millis() as i128;
        least > before_most + jump || most + jump < before_least
    }

    /// How many milliseconds the database's clock is ahead of one that began when `origin` was sent, at least and at
    /// most.
    fn ahead(&self, origin: &Self) -> (i128, i128) {
        let since = |moment: Instant| match moment.checked_duration_since(origin.sent) {
            Some(later) => later.as_millis() as i128,
            None => -(origin.sent.saturating_duration_since(moment).as_millis() as i128),
        };
        let now = i128::from(self.now.as_millis());
        (now - since(self.received), now - since(self.sent))
    }
}

/// The write that marks the session `id`, whose row has `token`, as dead. Its lease ends now.
pub(super) fn dead(id: RecordId, token: Token) -> Write {
    Write {
        id,
        expect: Expect::Token(token),
        token: super::random_token(),
        fence: NewFence::Keep,
        kind: Kind::Released,
        session: None,
        until: Some(Duration::ZERO),
        began: Stamp::Keep,
        since: Stamp::Now,
        expires: NewExpiry::In(KEPT_DEAD.max(GRACE)),
        state: Bytes::new(),
    }
}

/// The greatest fence that was seen, so that the fences of a database whose clock was set back go on growing.
#[derive(Debug, Default)]
pub(super) struct Floor(std::sync::atomic::AtomicU64);

impl Floor {
    pub(super) fn get(&self) -> Fence {
        Fence(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }

    pub(super) fn raise(&self, fence: Fence) {
        self.0.fetch_max(fence.0, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_that_overtake_each_other_are_no_jump_of_the_clock_and_a_clock_that_is_set_is() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let read = |now, sent, received| Read {
            now: Timestamp::from_millis(1_000_000 + now),
            sent: at(sent),
            received: at(received),
        };
        // A slow put was read before a quick get, and is answered after it.
        let (get, put) = (read(3, 2, 3), read(1, 0, 5_000));
        assert!(!put.has_jumped_since(&get) && !get.has_jumped_since(&put));
        // A commit took its time.
        assert!(!read(5_002, 5_001, 5_002).has_jumped_since(&put));
        for set in [60_000_i64, -60_000] {
            let after = read(4_u64.saturating_add_signed(set + 100_000), 4, 5);
            let before = read(100_003, 3, 4);
            assert!(after.has_jumped_since(&before) && before.has_jumped_since(&after), "{set}");
        }
    }
}
