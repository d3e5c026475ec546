//! Rows as the model keeps them: what counts of them, small. What a write makes of a row is judged by the crate's own
//! function, in the crate's own words.

use std::sync::LazyLock;
use std::time::Duration;

use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{ClaimPolicy, Origin, Owner, Record, State};
use tower_idempotency::store::shared::{self, Expect, Kind, Moment, NewExpiry, NewFence, Stamp};
use tower_idempotency::{Fence, Fingerprint, RecordId};

/// A run's number stands for its outcome.
pub(crate) type Run = u8;
/// What an operator says it came to.
pub(crate) const TOLD_BY_HAND: Run = 99;

/// Time passes in units of five minutes: half of the grace. A write is late by one of them at most.
pub(crate) const UNIT: Duration = Duration::from_secs(300);
/// How long outcomes, runs and interrupted operations are kept, and questions may take.
pub(crate) const RETENTION: Duration = Duration::from_secs(600);
pub(crate) const BOUND: Duration = Duration::from_secs(900);
pub(crate) const INTERRUPTED_RETENTION: Duration = Duration::from_secs(3_000);

/// For how many units of time a claim may be without an answer: its bound. One that is answered later is given back.
pub(crate) const PATIENCE: u8 = 3;

/// The policy under which a row was claimed that no run has.
pub(crate) const UNKNOWN: ClaimPolicy = ClaimPolicy::Unreadable;

pub(crate) static FINGERPRINT: LazyLock<Fingerprint> = LazyLock::new(|| Fingerprint::of(b"m"));

/// Drawn for each write, and never again.
pub(crate) type Token = u8;
/// A session: the process, and how many it had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Session {
    pub(crate) process: u8,
    pub(crate) number: u8,
}

/// What a row says of its operation.
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

/// What is to be written, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) expect: Option<Token>,
    pub(crate) token: Token,
    pub(crate) fence: Given,
    pub(crate) kept: Kept,
    pub(crate) session: Option<Session>,
    /// How long from now, in milliseconds; nothing: as it is.
    pub(crate) expires: Option<u64>,
    pub(crate) policy: ClaimPolicy,
}

/// [`NewFence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Given {
    Keep,
    Exactly(u64),
    Above(u64),
}

impl Write {
    /// What this makes of what is there.
    pub(crate) fn over(&self, there: Option<&Row>, moment: Moment) -> Option<Row> {
        let write = shared::Write {
            id: RecordId::from_bytes([0; 32]),
            expect: self.expect.map_or(Expect::Absent, |token| Expect::Token(shared::Token([token; 16]))),
            token: shared::Token([self.token; 16]),
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
        let row = write.over(there.map(Row::real).as_ref(), moment)?;
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
    /// Its row, stamped anew, whatever it was.
    pub(crate) fn stamped_anew(&self, row: Row, moment: Moment) -> Row {
        let first = Self { expect: None, ..*self };
        let Some(Row { until, expires, .. }) = first.over(None, moment) else { return row };
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
    /// The same in the crate's words.
    fn real(&self) -> shared::Row {
        let at = Timestamp::from_millis;
        shared::Row {
            id: RecordId::from_bytes([0; 32]),
            token: shared::Token([self.token; 16]),
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

    /// The record, as a process sees it for which `owner` sees to it: as `store/shared/protocol/rows.rs` has it.
    pub(crate) fn record(&self, owner: Owner, now: Timestamp) -> Option<Record<Run>> {
        let state = match self.kept {
            Kept::Running => State::Running { policy: self.policy, interrupted_retention: INTERRUPTED_RETENTION },
            Kept::Interrupted { run } => State::Interrupted { policy: self.policy, run: Fence(run), status: None },
            Kept::Completed(outcome) => State::Completed { outcome },
            Kept::Released => return None,
        };
        let is_running = self.kept == Kept::Running;
        let (began, since) = (now, now);
        let expires = if is_running { None } else { Some(Timestamp::from_millis(self.expires)) };
        let (fence, fingerprint, attempt, origin) = (Fence(self.fence), *FINGERPRINT, 1, Origin::default());
        let record = Record { fence, began, since, expires, fingerprint, attempt, origin, state, owner };
        // It is kept for as long as its row says, whenever its process died.
        let lapsed = |record: Record<Run>| Record { expires: Some(Timestamp::from_millis(self.expires)), ..record };
        let record = if is_running && owner == Owner::None { lapsed(record.lapse(now)) } else { record };
        record.live(now)
    }
}
