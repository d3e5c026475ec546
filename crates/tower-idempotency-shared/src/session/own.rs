//! The session of this process: the row by which other processes know that it is alive.
//!
//! Rules:
//! 1. A lease counts from the moment at which its token was sent first, and only once the database has answered. A
//!    renewal that is sent again keeps its token, and the other processes count from the first copy that was carried
//!    out.
//! 2. A claim begins only while at least half of the lease is left. With less, this process considers no other process
//!    dead.
//! 3. A session that was declared dead is never renewed. This process goes on under a new one; the runs of the old one
//!    may still end.
//! 4. Sessions do not expire by a clock. A row is kept until its session is ended or declared dead.
//! 5. The bound of a run ends it only once its session says so: each renewal has a time, and all runs with an earlier
//!    bound are over. The end of a run may not be recorded yet, however long ago the run's bound was over. A claim
//!    whose answer is taken after its bound is given back: the session may have said already that the bound is over.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;

use crate::backend::{Expect, GRACE, Kind, Row, Stamp, Token, Write};

/// The longest time between two renewals.
const MAX_PERIOD: Duration = Duration::from_secs(10);
/// The time for which the row of a session is kept that is neither ended nor declared dead: in practice, for ever.
const SESSION_KEPT: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The time for which the row of a session is kept that was ended or declared dead.
const DEAD_SESSION_KEPT: Duration = Duration::from_secs(3_600);
/// The version of the state of a session's row. The state is this byte, the lease in milliseconds, and the time before
/// which all bounds are over, in milliseconds since 1970. Each number has eight bytes, the lowest first.
const VERSION: u8 = 1;

/// The content of a session's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) lease: Duration,
    /// A run of its process whose bound ends before this time is over: neither the run nor its end is under way.
    pub(crate) over_before: Timestamp,
}

/// This process's session, and how long the lease of it is held. The row itself is written by `Sessions`.
#[derive(Debug)]
pub(crate) struct Session {
    /// The time that the session lives without a renewal.
    pub(crate) lease: Duration,
    /// What the renewals change.
    state: Mutex<SessionState>,
}

#[derive(Debug)]
struct SessionState {
    /// The id of the row under which runs are claimed now: a random one, which no other process has.
    current: RecordId,
    /// The token of that row, as far as it is known. `None` before its first write was answered.
    token: Option<Token>,
    /// The time until which the lease is certainly held.
    until: Instant,
    /// The sessions of this process, past ones included.
    own: Arc<HashSet<RecordId>>,
}

/// The result of a renewal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// The row was written, and the lease counts from the time at which it was sent.
    Yes,
    /// The row has another token of this process: from a renewal whose caller went away before the answer, or from
    /// before a failover. The renewal is made anew.
    Again,
    /// The session was marked dead, or is gone. A new session replaces it, which has no row yet.
    Dead,
}

impl Session {
    pub(crate) fn new(lease: Duration) -> Self {
        let (current, own) = (RecordId::from_bytes(crate::random()), Arc::default());
        let state = SessionState { current, token: None, until: Instant::now(), own };
        Self { lease, state: Mutex::new(state) }
    }

    /// Returns the time between two renewals. Processes that do not know this session's lease wait longer than this, so
    /// this process notices first if the row of its session was deleted.
    pub(crate) fn period(&self) -> Duration {
        (self.lease / 3).min(MAX_PERIOD)
    }

    /// Returns the session under which runs are claimed.
    pub(crate) fn id(&self) -> RecordId {
        self.state.lock().current
    }

    /// Returns the sessions of this process, past ones included.
    pub(crate) fn own(&self) -> Arc<HashSet<RecordId>> {
        Arc::clone(&self.state.lock().own)
    }

    /// Returns whether at least half of the lease is left.
    pub(crate) fn holds_half(&self) -> bool {
        self.state.lock().until.saturating_duration_since(Instant::now()) >= self.lease / 2
    }

    /// Returns the write that begins the session, or renews it. The write is sent again unchanged until its answer is
    /// known. A run of this process whose bound ends before `over_before` is over.
    pub(crate) fn renewal(&self, over_before: Timestamp) -> Write {
        let mut state = self.state.lock();
        let current = state.current;
        // This happens before the write is sent: a read of the sessions may find the row before the answer arrives.
        if !state.own.contains(&current) {
            Arc::make_mut(&mut state.own).insert(current);
        }
        Write {
            kind: Kind::Session,
            until: Some(self.lease),
            since: Stamp::Keep,
            state: Said { lease: self.lease, over_before }.bytes(),
            ..Write::without_record(current, state.token.map_or(Expect::Absent, Expect::Token), SESSION_KEPT)
        }
    }

    /// Notes the result of `renewal`, whose first copy was sent at `sent`.
    pub(crate) fn renewed(&self, renewal: &Write, row: Option<&Row>, sent: Instant) -> Renewed {
        let mut state = self.state.lock();
        if row.is_some_and(|row| row.token == renewal.token) {
            state.token = Some(renewal.token);
            state.until = sent + self.lease;
            return Renewed::Yes;
        }
        // Only this process writes a session under this id.
        if let Some(row) = row.filter(|row| row.kind == Kind::Session) {
            state.token = Some(row.token);
            return Renewed::Again;
        }
        // The row was marked as dead, or is gone. The old session stays in `own`, so its runs may still end.
        state.current = RecordId::from_bytes(crate::random());
        state.token = None;
        state.until = Instant::now();
        Renewed::Dead
    }

    /// Returns the write that ends this process's session. `None` if its row was never written.
    pub(crate) fn end(&self) -> Option<Write> {
        let state = self.state.lock();
        state.token.map(|token| dead(state.current, Expect::Token(token)))
    }
}

impl Said {
    fn bytes(self) -> Bytes {
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        [&[VERSION], lease.to_le_bytes().as_slice(), &self.over_before.as_millis().to_le_bytes()].concat().into()
    }

    /// Returns the content of the row of a session, or `None` if its bytes can't be read.
    pub(crate) fn by(row: &Row) -> Option<Self> {
        let (version, numbers) = row.state.split_first()?;
        let ([lease, over_before], []) = numbers.as_chunks() else { return None };
        let [lease, over_before] = [lease, over_before].map(|number| u64::from_le_bytes(*number));
        let (lease, over_before) = (Duration::from_millis(lease), Timestamp::from_millis(over_before));
        (*version == VERSION).then_some(Self { lease, over_before })
    }
}

/// Returns the write that marks the session `id` as dead, if its row is as expected.
pub(crate) fn dead(id: RecordId, expect: Expect) -> Write {
    // The bound lets people distinguish it from a released operation.
    Write { until: Some(Duration::ZERO), ..Write::without_record(id, expect, DEAD_SESSION_KEPT.max(GRACE)) }
}
