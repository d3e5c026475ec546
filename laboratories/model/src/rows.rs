//! Rows as the model keeps them: small, and with only the parts that matter. The crate's own function decides the
//! effect of a write on a row, with the crate's own types.

use std::sync::LazyLock;
use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Cause, ClaimPolicy, Origin, Owner, Record, State};
use tower_idempotency::{Fence, Fingerprint, RecordId};
use tower_idempotency_shared::{Expect, Kind, Moment, NewExpiry, NewFence, Stamp};

/// A run's number, which is also its outcome.
pub(crate) type Run = u8;
/// The outcome that an operator records.
pub(crate) const TOLD_BY_HAND: Run = 99;

/// Time passes in units of five minutes: half of the grace. A write is late by one of them at most.
pub(crate) const UNIT: Duration = Duration::from_secs(300);
/// The time for which outcomes, runs and interrupted operations are kept, and which a question may take.
pub(crate) const RETENTION: Duration = Duration::from_secs(600);
/// All operations of a key count as begun together, so that more outcomes are put back than by a store.
pub(crate) const BEGAN: Timestamp = Timestamp::from_millis(0);
pub(crate) const BOUND: Duration = Duration::from_secs(900);
pub(crate) const INTERRUPTED_RETENTION: Duration = Duration::from_secs(3_000);

/// The number of time units for which a claim may be without an answer: its bound. A later one is given back.
pub(crate) const TIMEOUT: u8 = 3;

/// A policy that no run has.
pub(crate) const UNKNOWN: ClaimPolicy = ClaimPolicy::Unreadable;

pub(crate) static FINGERPRINT: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of(b"m"));

/// The token of a write: it is drawn once and never again.
pub(crate) type Token = u8;
/// A session: the process, and the number of its earlier sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Session {
    pub(crate) process: u8,
    pub(crate) number: u8,
}

/// The state of the operation that a row records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kept {
    Running,
    Interrupted { run: u64 },
    Completed(Run),
    Released,
}

/// The current row. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) token: Token,
    pub(crate) fence: u64,
    pub(crate) kept: Kept,
    pub(crate) session: Option<Session>,
    pub(crate) until: u64,
    pub(crate) began: u64,
    pub(crate) expires: u64,
    /// The policy under which the run was claimed that is under way or was interrupted.
    pub(crate) policy: ClaimPolicy,
}

/// The row to write, and the row to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) expect: Option<Token>,
    pub(crate) token: Token,
    pub(crate) fence: Given,
    pub(crate) kept: Kept,
    pub(crate) session: Option<Session>,
    /// The time until the expiry, in milliseconds. `None`: the expiry stays as it is.
    pub(crate) expires: Option<u64>,
    pub(crate) policy: ClaimPolicy,
}

/// A write that changes no row: it expects a token that no row has. As a call it is a read.
pub(crate) const READ: Write = Write {
    expect: Some(0),
    token: 0,
    fence: Given::Keep,
    kept: Kept::Released,
    session: None,
    expires: None,
    policy: UNKNOWN,
};

/// [`NewFence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Given {
    Keep,
    Exactly(u64),
    Above(u64),
}

impl Write {
    /// The row that this write makes of the current one.
    pub(crate) fn apply_to(&self, current: Option<&Row>, moment: Moment) -> Option<Row> {
        let write = tower_idempotency_shared::Write {
            id: RecordId::from_bytes([0; 32]),
            expect: self
                .expect
                .map_or(Expect::Absent, |token| Expect::Token(tower_idempotency_shared::Token([token; 16]))),
            token: tower_idempotency_shared::Token([self.token; 16]),
            fence: match self.fence {
                Given::Keep => NewFence::Keep,
                Given::Exactly(fence) => NewFence::Exactly(Fence(fence)),
                Given::Above(fence) => NewFence::Above(Fence(fence)),
            },
            kind: self.kept.kind(),
            session: None,
            until: self.session.map(|_| BOUND),
            began: Stamp::Keep,
            since: Stamp::Keep,
            expires: self.expires.map_or(NewExpiry::Keep, |expires| NewExpiry::In(Duration::from_millis(expires))),
            state: Default::default(),
        };
        let row = write.apply_to(current.map(Row::real).as_ref(), moment)?;
        Some(Row {
            token: row.token.0[0],
            fence: row.fence.0,
            kept: self.kept,
            session: self.session,
            until: row.until.map_or(0, Timestamp::as_millis),
            began: row.began.as_millis(),
            expires: row.expires.as_millis(),
            policy: self.policy,
        })
    }
}

impl Write {
    /// The row of this write with new stamps, whatever the current row is.
    pub(crate) fn stamped_anew(&self, row: Row, moment: Moment) -> Row {
        let first = Self { expect: None, ..*self };
        let Some(Row { until, expires, .. }) = first.apply_to(None, moment) else { return row };
        Row { until, expires: if self.expires.is_none() { row.expires } else { expires }, ..row }
    }
}

impl Kept {
    fn kind(self) -> Kind {
        match self {
            Self::Running => Kind::Running,
            Self::Interrupted { .. } => Kind::Interrupted,
            Self::Completed(_) => Kind::Completed,
            Self::Released => Kind::Released,
        }
    }
}

impl Row {
    /// The same row as the crate's type.
    fn real(&self) -> tower_idempotency_shared::Row {
        let at = Timestamp::from_millis;
        tower_idempotency_shared::Row {
            id: RecordId::from_bytes([0; 32]),
            token: tower_idempotency_shared::Token([self.token; 16]),
            fence: Fence(self.fence),
            kind: self.kept.kind(),
            session: None,
            until: self.session.map(|_| at(self.until)),
            began: at(self.began),
            since: at(0),
            expires: at(self.expires),
            state: Default::default(),
        }
    }

    pub(crate) fn is_absent(&self, now: Timestamp) -> bool {
        self.real().is_absent(now)
    }

    pub(crate) fn is_past_grace(&self, now: Timestamp) -> bool {
        self.real().is_past_grace(now)
    }

    /// The fence of the run that may still say how it ended.
    pub(crate) fn run(&self) -> Option<u64> {
        match self.kept {
            Kept::Running => Some(self.fence),
            Kept::Interrupted { run } => Some(run),
            Kept::Completed(_) | Kept::Released => None,
        }
    }

    /// The record as seen by a process for which the operation has this `owner`, as in `protocol/rows.rs`.
    pub(crate) fn record(&self, owner: Owner, now: Timestamp) -> Option<Record<Run>> {
        let state = match self.kept {
            Kept::Running => State::Running { policy: self.policy, interrupted_retention: INTERRUPTED_RETENTION },
            Kept::Interrupted { run } => {
                State::Interrupted { policy: self.policy, run: Fence(run), cause: Cause::Unknown }
            }
            Kept::Completed(outcome) => State::Completed { outcome },
            Kept::Released => return None,
        };
        let is_running = self.kept == Kept::Running;
        let (began, since) = (BEGAN, now);
        let expires = if is_running { None } else { Some(Timestamp::from_millis(self.expires)) };
        let (fence, fingerprint, attempt, origin) = (Fence(self.fence), *FINGERPRINT, 1, Origin::default());
        let record = Record { fence, began, since, expires, fingerprint, attempt, origin, state, owner };
        // The record is kept until the row's expiry, whenever its process died.
        let lapsed = |record: Record<Run>| Record { expires: Some(Timestamp::from_millis(self.expires)), ..record };
        let record = if is_running && owner == Owner::None { lapsed(record.lapse(now, Cause::Lease)) } else { record };
        record.live(now)
    }
}
