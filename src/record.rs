//! What is known of one operation, and the one place that says which state follows which.
//!
//! ```text
//!            claim                         complete
//! absent ───────────▶ Running{fp,fence} ───────────▶ Completed{fp,outcome,expires}
//!   ▲    release        │    │    ▲                  or Consumed{fp,status,expires}: not storable, never runs again
//!   ├───────────────────┘    │    │ reclaim (new fence)
//!   │              interrupt ▼    │                   resolve(outcome)
//!   │                     Interrupted{fp,fence,status,expires} ───────────▶ Completed
//!   │                             ↺ inquire (new fence)
//!   └──── resolve(forget), or past `expires`
//! ```
//!
//! Each function here is one arrow. It looks at what the store holds and says what the store has to write
//! (`Change`) and what it has to answer. A store calls it inside its own atomic step; no store decides by itself.
//! Rules, kept by every arrow:
//! 1. A record past its expiry is absent, swept or not ([`Record::live`]).
//! 2. All but `claim` compare the fence. Who holds an older one changes nothing and is told so ([`Settled::Superseded`]).
//! 3. A verb that is sent again because its answer was lost answers as it did the first time: a claim is known by its
//!    nonce, the others by the fence they left behind.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;

/// A number that grows with each claim of one record id and never repeats, whatever was released, swept or expired.
/// It fits a signed 64-bit column, so that a database downstream can refuse a writer with an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence(pub u64);

/// A number that the claimer drew, by which a claim sent again is known for its own.
pub type Nonce = [u8; 16];

/// What a store holds of one operation. `O` is how it holds an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<O = Bytes> {
    /// What the request was.
    pub fingerprint: Fingerprint,
    /// The fence of its latest claim.
    pub fence: Fence,
    /// How often it was claimed and not released, from 1.
    pub attempt: u32,
    /// When the first of these claims was made.
    pub began: Timestamp,
    /// Where it stands.
    pub state: State<O>,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State<O = Bytes> {
    /// Claimed; its handler may be running.
    Running {
        /// Its claimer's.
        nonce: Nonce,
        /// How long the record is kept if the run is interrupted, in milliseconds.
        interrupted_retention: u64,
    },
    /// Nobody knows whether the effect took place: the run was cut short, or its handler's answer says so.
    Interrupted {
        /// When it was first seen so.
        since: Timestamp,
        /// When the record is forgotten.
        expires: Timestamp,
        /// The status that its client was answered, where the handler's answer was that nobody knows.
        status: Option<u16>,
    },
    /// Done, and its outcome recorded.
    Completed {
        /// What the run produced.
        outcome: O,
        /// When the record is forgotten.
        expires: Timestamp,
    },
    /// Done, but its outcome could not be stored: it neither runs again nor is it replayed.
    Consumed {
        /// What remains of the outcome: the status.
        status: u16,
        /// When the record is forgotten.
        expires: Timestamp,
    },
}

impl<O> Record<O> {
    /// When the record is forgotten; never, while it is running.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        match self.state {
            State::Running { .. } => None,
            State::Interrupted { expires, .. } | State::Completed { expires, .. } | State::Consumed { expires, .. } => {
                Some(expires)
            }
        }
    }

    /// The record, unless it is past its expiry.
    #[must_use]
    pub fn live(self, now: Timestamp) -> Option<Self> {
        if self.expires().is_some_and(|expires| expires <= now) { None } else { Some(self) }
    }

    fn is_running(&self, fence: Fence) -> bool {
        self.fence == fence && matches!(self.state, State::Running { .. })
    }

    fn is_interrupted(&self, fence: Fence) -> bool {
        self.fence == fence && matches!(self.state, State::Interrupted { .. })
    }

    /// This record of a run, interrupted, whose client was answered with `status`, if it was.
    pub(crate) fn interrupted(self, status: Option<u16>, now: Timestamp) -> Self {
        let State::Running { interrupted_retention, .. } = self.state else { return self };
        let expires = now.plus(Duration::from_millis(interrupted_retention));
        Self { state: State::Interrupted { since: now, expires, status }, ..self }
    }
}

/// A wish to run an operation.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Which operation.
    pub id: RecordId,
    /// What its request is.
    pub fingerprint: Fingerprint,
    /// Another one for each run, and the same when one run's claim is sent again.
    pub nonce: Nonce,
    /// Whether the claim must survive a power cut before the handler starts. Where not, an embedded store may keep no
    /// trace of it: the slot in this process is the claim.
    pub durable: bool,
    /// How long the record is kept if the run is interrupted.
    pub interrupted_retention: Duration,
    /// How long the claimer waits. A store that comes to the claim later refuses it: nothing is claimed for somebody who was
    /// told no.
    pub patience: Duration,
}

/// The right to run an operation and to say how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Which operation.
    pub id: RecordId,
    /// Its fence.
    pub fence: Fence,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// When the operation began: its first attempt.
    pub began: Timestamp,
    /// Whether the store has a record of it.
    pub recorded: bool,
}

/// What a claim is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed<O = Bytes> {
    /// The operation is the claimer's to run.
    Fresh(Hold),
    /// There is a record already.
    Held(Record<O>),
}

/// How a run ended that has to be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement<O = Bytes> {
    /// With an outcome that is replayed from now on.
    Outcome(O),
    /// With an outcome that can't be stored.
    Consumed {
        /// What remains of it.
        status: u16,
    },
}

/// The end of a run, to be recorded.
#[derive(Debug, Clone)]
pub struct Completion<O = Bytes> {
    /// Whose run.
    pub hold: Hold,
    /// What its request was.
    pub fingerprint: Fingerprint,
    /// How it ended.
    pub settlement: Settlement<O>,
    /// How long that is remembered, from now.
    pub retention: Duration,
}

/// What the verbs that end or move a run are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done.
    Done,
    /// The record is in another state or under another fence: nothing was changed.
    Superseded,
}

/// What an operator, or the application, says of an interrupted operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It took place; this is its outcome, kept for `retention` from now.
    Outcome {
        /// What retries are answered.
        outcome: Bytes,
        /// How long.
        retention: Duration,
    },
    /// It did not take place, or may take place again: the key is free, and the next run is told of no earlier one.
    Forget,
}

/// What a store has to write so that an arrow is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change<O> {
    Nothing,
    Put(Record<O>),
    Delete,
}

/// `claim`: absent → running.
pub(crate) fn claim<O>(
    current: Option<Record<O>>,
    claim: &Claim,
    fence: Fence,
    now: Timestamp,
) -> (Change<O>, Claimed<O>) {
    match current {
        None => {
            let record = Record {
                fingerprint: claim.fingerprint,
                fence,
                attempt: 1,
                began: now,
                state: running(claim.nonce, claim.interrupted_retention),
            };
            let hold = hold(claim.id, &record);
            (Change::Put(record), Claimed::Fresh(hold))
        }
        Some(record) if has_nonce(&record, &claim.nonce) => (Change::Nothing, Claimed::Fresh(hold(claim.id, &record))),
        Some(record) => (Change::Nothing, Claimed::Held(record)),
    }
}

/// Whether the run that has `hold` is the one to say how it ended.
pub(crate) fn is_open<O>(current: Option<&Record<O>>, hold: &Hold) -> bool {
    match current {
        None => !hold.recorded,
        Some(record) => hold.recorded && record.is_running(hold.fence),
    }
}

/// `complete`: running → completed or consumed. A run without a record of its own needs none to be there.
pub(crate) fn complete<O>(
    current: Option<Record<O>>,
    completion: Completion<O>,
    now: Timestamp,
) -> (Change<O>, Settled) {
    let Completion { hold, fingerprint, settlement, retention } = completion;
    match &current {
        current if is_open(current.as_ref(), &hold) => {}
        Some(Record { fence, state: State::Completed { .. } | State::Consumed { .. }, .. }) if *fence == hold.fence => {
            return (Change::Nothing, Settled::Done);
        }
        _ => return (Change::Nothing, Settled::Superseded),
    }
    let expires = now.plus(retention);
    let state = match settlement {
        Settlement::Outcome(outcome) => State::Completed { outcome, expires },
        Settlement::Consumed { status } => State::Consumed { status, expires },
    };
    let record = Record { fingerprint, fence: hold.fence, attempt: hold.attempt, began: hold.began, state };
    (Change::Put(record), Settled::Done)
}

/// `release`: running → absent.
pub(crate) fn release<O>(current: Option<Record<O>>, fence: Fence) -> (Change<O>, Settled) {
    match current {
        None => (Change::Nothing, Settled::Done),
        Some(record) if record.is_running(fence) => (Change::Delete, Settled::Done),
        Some(_) => (Change::Nothing, Settled::Superseded),
    }
}

/// `interrupt`: running → interrupted.
pub(crate) fn interrupt<O>(
    current: Option<Record<O>>,
    fence: Fence,
    status: Option<u16>,
    now: Timestamp,
) -> (Change<O>, Settled) {
    match current {
        Some(record) if record.is_running(fence) => (Change::Put(record.interrupted(status, now)), Settled::Done),
        Some(record) if record.is_interrupted(fence) => (Change::Nothing, Settled::Done),
        _ => (Change::Nothing, Settled::Superseded),
    }
}

/// `reclaim`: interrupted → running, under a new fence.
pub(crate) fn reclaim<O>(
    current: Option<Record<O>>,
    claim: &Claim,
    interrupted: Fence,
    fence: Fence,
) -> (Change<O>, Option<Hold>) {
    match current {
        Some(record) if record.is_interrupted(interrupted) => {
            let record = Record {
                fence,
                attempt: record.attempt.saturating_add(1),
                state: running(claim.nonce, claim.interrupted_retention),
                ..record
            };
            let hold = hold(claim.id, &record);
            (Change::Put(record), Some(hold))
        }
        Some(record) if has_nonce(&record, &claim.nonce) => (Change::Nothing, Some(hold(claim.id, &record))),
        _ => (Change::Nothing, None),
    }
}

/// `inquire`: interrupted, under a new fence. What was said under the old one counts for nothing from here on.
pub(crate) fn inquire<O>(current: Option<Record<O>>, interrupted: Fence, fence: Fence) -> (Change<O>, Option<Fence>) {
    match current {
        Some(record) if record.is_interrupted(interrupted) => (Change::Put(Record { fence, ..record }), Some(fence)),
        _ => (Change::Nothing, None),
    }
}

/// `resolve`: interrupted → completed under a new fence, or absent. `outcome` is `None` for [`Resolution::Forget`].
pub(crate) fn resolve<O>(
    current: Option<Record<O>>,
    interrupted: Fence,
    fence: Fence,
    outcome: Option<(O, Duration)>,
    now: Timestamp,
) -> (Change<O>, Settled) {
    match (current, outcome) {
        (Some(record), Some((outcome, retention))) if record.is_interrupted(interrupted) => {
            let state = State::Completed { outcome, expires: now.plus(retention) };
            (Change::Put(Record { state, fence, ..record }), Settled::Done)
        }
        (Some(record), None) if record.is_interrupted(interrupted) => (Change::Delete, Settled::Done),
        _ => (Change::Nothing, Settled::Superseded),
    }
}

fn running<O>(nonce: Nonce, interrupted_retention: Duration) -> State<O> {
    let interrupted_retention = u64::try_from(interrupted_retention.as_millis()).unwrap_or(u64::MAX);
    State::Running { nonce, interrupted_retention }
}

fn has_nonce<O>(record: &Record<O>, nonce: &Nonce) -> bool {
    matches!(&record.state, State::Running { nonce: held, .. } if held == nonce)
}

fn hold<O>(id: RecordId, record: &Record<O>) -> Hold {
    Hold { id, fence: record.fence, attempt: record.attempt, began: record.began, recorded: true }
}

#[cfg(test)]
mod tests;
