//! What is known of one operation, and the one place that says which state follows which.
//!
//! ```text
//!            Claim                         Complete
//! absent ───────────▶ Running ───────────────────────────▶ Completed, or Consumed: not storable, never runs again
//!   ▲    Release        │    ▲                                   ▲
//!   ├───────────────────┤    │ Reclaim (new fence)               │ Resolve(Outcome) (new fence);
//!   │         Interrupt ▼    │                                   │ Complete, by the run that was thought dead
//!   │                 Interrupted ───────────────────────────────┘
//!   │                   │    ↺ Inquire (new fence)
//!   └───────────────────┴── Resolve(Forget), or past its expiry
//! ```
//!
//! `next` takes what a store holds and a [`Transition`], and says what the store has to write (`Change`) and what it has
//! to answer ([`Reply`]). A store calls it inside its own atomic step; no store decides by itself. It is told no time and tells
//! none: what it writes lasts for durations, which the store counts from its own clock's now (`Draft::stamp`).
//!
//! Rules:
//! 1. A record past its expiry is absent, swept or not ([`Record::live`]). A run whose process is gone, or is too late, is
//!    presented as interrupted, under the fence it has ([`Record::lapse`]); nothing need be written for that.
//! 2. Every transition but `Claim` names a fence. One that names another fence than the record's is refused and changes nothing.
//! 3. A claim, a reclaim, a question and a resolution each take a new fence. So nobody is mistaken for somebody else who came
//!    later.
//! 4. The outcome of a run is never thrown away because its run was thought dead: its own fence completes it until somebody
//!    takes the operation over or settles it. It is recorded even where the claim was lost.
//! 5. What ends a run is answered alike when it is sent again. What takes an operation, asks about it or settles it is refused
//!    then: the record shows what the first one did.

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

/// What a store holds of one operation. `O` is how it holds an outcome.
///
/// The first four fields are columns of their own in a store that several processes share; the others are its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record<O = Bytes> {
    /// The latest fence that was given for it.
    pub fence: Fence,
    /// When the operation began: its first attempt.
    pub began: Timestamp,
    /// When it came to its state.
    pub since: Timestamp,
    /// When the record is forgotten; never, while it is running.
    pub expires: Option<Timestamp>,
    /// What the request was.
    pub fingerprint: Fingerprint,
    /// How often it was claimed and not released, from 1.
    pub attempt: u32,
    /// Where it came from, as far as that is recorded.
    pub origin: Option<Box<Origin>>,
    /// Where it stands.
    pub state: State<O>,
    /// Who sees to it, as the store judges it when it reads.
    #[serde(skip)]
    pub owner: Owner,
}

/// Where an operation came from: for operators who have to find out what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Origin {
    /// The digest of the scope its key belongs to.
    pub scope: Option<[u8; 32]>,
    /// What the request was, in words.
    pub request: Option<String>,
    /// The trace of its first run.
    pub trace: Option<[u8; 16]>,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State<O = Bytes> {
    /// Claimed; its handler may be running.
    Running {
        /// How long the record is kept if the run is interrupted.
        interrupted_retention: Duration,
    },
    /// Nobody knows whether the effect took place: the run was cut short, or its handler's answer says so.
    Interrupted {
        /// The fence of the run, by which it may still say how it ended.
        run: Fence,
        /// The status that its client was answered, where the handler's answer was that nobody knows.
        status: Option<u16>,
    },
    /// Done, and its outcome recorded.
    Completed {
        /// What the run produced.
        outcome: O,
    },
    /// Done, but its outcome could not be stored: it neither runs again nor is it replayed.
    Consumed {
        /// What remains of the outcome: the status.
        status: u16,
    },
}

/// Who sees to an operation: runs it, or has been asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Owner {
    /// Nobody who is alive.
    #[default]
    Nobody,
    /// This process.
    Here,
    /// Another process, which is alive as far as the store knows.
    Elsewhere,
}

impl<O> Record<O> {
    /// The record, unless it is past its expiry.
    #[must_use]
    pub fn live(self, now: Timestamp) -> Option<Self> {
        if self.expires.is_some_and(|expires| expires <= now) { None } else { Some(self) }
    }

    /// This record of a run that ended without a word at `since`.
    #[must_use]
    pub fn lapse(self, since: Timestamp) -> Self {
        let State::Running { interrupted_retention } = self.state else { return self };
        let state = State::Interrupted { run: self.fence, status: None };
        let expires = Some(since.plus(interrupted_retention));
        Self { state, since, expires, owner: Owner::Nobody, ..self }
    }

    /// Whether it is interrupted, under this fence, and nobody elsewhere sees to it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self.state, State::Interrupted { .. }) && self.owner != Owner::Elsewhere
    }

    /// The same record, with its outcome in the form that `outcome` gives it.
    pub(crate) fn form<P, E>(&self, outcome: impl FnOnce(&O) -> Result<P, E>) -> Result<Record<P>, E> {
        let state = match &self.state {
            State::Running { interrupted_retention } => {
                State::Running { interrupted_retention: *interrupted_retention }
            }
            State::Interrupted { run, status } => State::Interrupted { run: *run, status: *status },
            State::Completed { outcome: old } => State::Completed { outcome: outcome(old)? },
            State::Consumed { status } => State::Consumed { status: *status },
        };
        let Self { fence, began, since, expires, fingerprint, attempt, owner, .. } = *self;
        Ok(Record { fence, began, since, expires, fingerprint, attempt, origin: self.origin.clone(), state, owner })
    }

    /// The fence of the run that may say how it ended.
    fn run(&self) -> Option<Fence> {
        match self.state {
            State::Running { .. } => Some(self.fence),
            State::Interrupted { run, .. } => Some(run),
            State::Completed { .. } | State::Consumed { .. } => None,
        }
    }
}

/// A step that an operation is to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition<O = Bytes> {
    /// To run an operation that has no record.
    Claim(Claim),
    /// To run one that was interrupted, as its record says under this fence.
    Reclaim(Claim, Fence),
    /// To ask somebody about one that was interrupted, as its record says under this fence. The new fence is the asker's, for
    /// what it asks; the run that was interrupted may still end.
    Inquire {
        /// The record's fence.
        fence: Fence,
        /// How long the question may take; others are told for so long that the operation is in flight.
        bound: Duration,
    },
    /// To say how a run ended.
    Complete(Completion<O>),
    /// To say of a run that it had no effect: the key is free.
    Release(Fence),
    /// To say of a run that nobody knows how it ended.
    Interrupt {
        /// The run's.
        fence: Fence,
        /// What its client was answered, where the answer said so.
        status: Option<u16>,
    },
    /// To settle an operation that was interrupted, as its record says under this fence.
    Resolve(Fence, Resolution<O>),
}

/// A wish to run an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What its request is.
    pub fingerprint: Fingerprint,
    /// Where it comes from.
    pub origin: Option<Box<Origin>>,
    /// Whether the operation may run again if this process dies before it is completed. Then a store that this process has
    /// alone need keep no trace of the claim: the slot in this process is the claim.
    pub may_repeat: bool,
    /// How long the run may take. Where several processes share the store, it counts as interrupted afterwards.
    pub bound: Duration,
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
}

/// The end of a run, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What an operator, or the application, says of an interrupted operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution<O = Bytes> {
    /// It took place; this is its outcome, kept for `retention` from now.
    Outcome {
        /// What retries are answered.
        outcome: O,
        /// How long.
        retention: Duration,
    },
    /// It did not take place, or may take place again: the key is free, and the next run is told of no earlier one.
    Forget,
}

/// What a store holds under a record id when it comes to a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Current<'a, O> {
    /// Nothing, or what is past its expiry.
    Absent,
    /// The trace of a record that was released or forgotten. Only stores that several processes share keep one.
    Released,
    /// A record, as the store presents it: see rule 1.
    Held(&'a Record<O>),
}

impl<'a, O> Current<'a, O> {
    fn record(self) -> Option<&'a Record<O>> {
        if let Self::Held(record) = self { Some(record) } else { None }
    }
}

impl<'a, O> From<Option<&'a Record<O>>> for Current<'a, O> {
    fn from(record: Option<&'a Record<O>>) -> Self {
        record.map_or(Self::Absent, Self::Held)
    }
}

/// What a store has to write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub enum Change<O> {
    /// Nothing.
    Nothing,
    /// The record becomes this.
    Put(Draft<O>),
    /// The key is free. A store that this process has alone deletes the record; one that is shared keeps a trace of it.
    Release,
}

/// A record to be written, which the store stamps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct Draft<O> {
    /// Under which fence; `None`: under a new one.
    pub fence: Option<Fence>,
    /// How long it is kept.
    pub expiry: Expiry,
    /// For how long at most its owner is this process; `None`: nobody is.
    pub owned: Option<Duration>,
    /// As in [`Record`].
    pub fingerprint: Fingerprint,
    /// As in [`Record`].
    pub attempt: u32,
    /// As in [`Record`].
    pub origin: Option<Box<Origin>>,
    /// As in [`Record`].
    pub state: State<O>,
}

/// How long a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub enum Expiry {
    /// Until it comes to another state.
    Never,
    /// As long as it would have been without the change.
    Unchanged,
    /// For so long from now.
    In(Duration),
}

/// What a transition is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It was taken.
    Taken,
    /// There is a record already, it is in another state, or under another fence: nothing was changed.
    Refused,
}

/// What became of a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<O = Bytes> {
    /// Whether it was taken.
    pub reply: Reply,
    /// The record as it stands now; `None`: there is none. To a claim that leaves no trace: as it would stand.
    pub record: Option<Record<O>>,
}

/// Which state follows `current` by `transition`: what has to be written, and what is to be answered.
#[doc(hidden)]
pub fn next<O>(current: Current<'_, O>, transition: Transition<O>) -> (Change<O>, Reply) {
    match transition {
        Transition::Claim(claim) => match current {
            Current::Absent | Current::Released => put(Draft::running(claim, 1)),
            Current::Held(_) => refused(),
        },
        Transition::Reclaim(claim, fence) => match interrupted(current, fence) {
            Some(record) => put(Draft {
                fingerprint: record.fingerprint,
                origin: record.origin.clone(),
                ..Draft::running(claim, record.attempt.saturating_add(1))
            }),
            None => refused(),
        },
        Transition::Inquire { fence, bound } => match interrupted(current, fence) {
            Some(Record { state: State::Interrupted { run, status }, fingerprint, attempt, origin, .. }) => {
                let state = State::Interrupted { run: *run, status: *status };
                let (expiry, owned, origin) = (Expiry::Unchanged, Some(bound), origin.clone());
                put(Draft { fence: None, expiry, owned, fingerprint: *fingerprint, attempt: *attempt, origin, state })
            }
            _ => refused(),
        },
        Transition::Complete(completion) => complete(current, completion),
        Transition::Release(fence) => match current {
            Current::Absent | Current::Released => (Change::Nothing, Reply::Taken),
            Current::Held(record) if record.run() == Some(fence) => (Change::Release, Reply::Taken),
            Current::Held(_) => refused(),
        },
        Transition::Interrupt { fence, status } => match current {
            Current::Held(record) if record.run() == Some(fence) => match record.state {
                State::Running { interrupted_retention } if record.owner != Owner::Elsewhere => {
                    let state = State::Interrupted { run: fence, status };
                    put(Draft::ended(record, Some(fence), interrupted_retention, state))
                }
                State::Interrupted { .. } => (Change::Nothing, Reply::Taken),
                _ => refused(),
            },
            _ => refused(),
        },
        Transition::Resolve(fence, resolution) => {
            let is_meant =
                |record: &&Record<O>| record.fence == fence && matches!(record.state, State::Interrupted { .. });
            match (current.record().filter(is_meant), resolution) {
                (Some(record), Resolution::Outcome { outcome, retention }) => {
                    put(Draft::ended(record, None, retention, State::Completed { outcome }))
                }
                (Some(_), Resolution::Forget) => (Change::Release, Reply::Taken),
                (None, _) => refused(),
            }
        }
    }
}

fn complete<O>(current: Current<'_, O>, completion: Completion<O>) -> (Change<O>, Reply) {
    let Completion { hold, fingerprint, settlement, retention } = completion;
    let state = match settlement {
        Settlement::Outcome(outcome) => State::Completed { outcome },
        Settlement::Consumed { status } => State::Consumed { status },
    };
    match current {
        Current::Absent => {
            let (fence, expiry) = (Some(hold.fence), Expiry::In(retention));
            let Hold { attempt, .. } = hold;
            put(Draft { fence, expiry, owned: None, fingerprint, attempt, origin: None, state })
        }
        Current::Held(record) if record.run() == Some(hold.fence) => {
            put(Draft::ended(record, Some(record.fence), retention, state))
        }
        // It is sent again.
        Current::Held(record) if record.run().is_none() && record.fence == hold.fence => {
            (Change::Nothing, Reply::Taken)
        }
        Current::Held(_) | Current::Released => refused(),
    }
}

/// The record, if it is interrupted under this fence and nobody elsewhere sees to it.
fn interrupted<'a, O>(current: Current<'a, O>, fence: Fence) -> Option<&'a Record<O>> {
    current.record().filter(|record| record.fence == fence && record.is_interrupted())
}

fn put<O>(draft: Draft<O>) -> (Change<O>, Reply) {
    (Change::Put(draft), Reply::Taken)
}

fn refused<O>() -> (Change<O>, Reply) {
    (Change::Nothing, Reply::Refused)
}

impl<O> Draft<O> {
    fn running(claim: Claim, attempt: u32) -> Self {
        let Claim { fingerprint, origin, bound, interrupted_retention, .. } = claim;
        let state = State::Running { interrupted_retention };
        Self { fence: None, expiry: Expiry::Never, owned: Some(bound), fingerprint, attempt, origin, state }
    }

    fn ended(record: &Record<O>, fence: Option<Fence>, kept: Duration, state: State<O>) -> Self {
        let Record { fingerprint, attempt, ref origin, .. } = *record;
        Self { fence, expiry: Expiry::In(kept), owned: None, fingerprint, attempt, origin: origin.clone(), state }
    }

    /// The record that this makes of `current`, now. `fresh` is a fence that was never given before.
    #[must_use]
    pub fn stamp(self, current: Option<&Record<O>>, fresh: Fence, now: Timestamp) -> Record<O> {
        let Self { fence, expiry, owned, fingerprint, attempt, origin, state } = self;
        let is_question = matches!(state, State::Interrupted { .. }) && expiry == Expiry::Unchanged;
        let before = current.filter(|_| is_question);
        Record {
            fence: fence.unwrap_or(fresh),
            began: current.map_or(now, |current| current.began),
            since: before.map_or(now, |before| before.since),
            expires: match expiry {
                Expiry::Never => None,
                Expiry::Unchanged => current.and_then(|current| current.expires),
                Expiry::In(kept) => Some(now.plus(kept)),
            },
            fingerprint,
            attempt,
            origin,
            state,
            owner: if owned.is_some() { Owner::Here } else { Owner::Nobody },
        }
    }
}

impl<O> Transition<O> {
    /// Whether it takes an operation for somebody who waits: what a store may refuse for its limits, or because it is late.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Claim(claim) | Self::Reclaim(claim, _) => Some(claim),
            _ => None,
        }
    }

    /// The same, with the outcome in another form.
    pub(crate) fn map<P>(self, form: impl FnOnce(O) -> P) -> Transition<P> {
        match self {
            Self::Claim(claim) => Transition::Claim(claim),
            Self::Reclaim(claim, fence) => Transition::Reclaim(claim, fence),
            Self::Inquire { fence, bound } => Transition::Inquire { fence, bound },
            Self::Complete(Completion { hold, fingerprint, settlement, retention }) => {
                let settlement = match settlement {
                    Settlement::Outcome(outcome) => Settlement::Outcome(form(outcome)),
                    Settlement::Consumed { status } => Settlement::Consumed { status },
                };
                Transition::Complete(Completion { hold, fingerprint, settlement, retention })
            }
            Self::Release(fence) => Transition::Release(fence),
            Self::Interrupt { fence, status } => Transition::Interrupt { fence, status },
            Self::Resolve(fence, Resolution::Forget) => Transition::Resolve(fence, Resolution::Forget),
            Self::Resolve(fence, Resolution::Outcome { outcome, retention }) => {
                Transition::Resolve(fence, Resolution::Outcome { outcome: form(outcome), retention })
            }
        }
    }

    /// The outcome that it records.
    pub(crate) fn outcome(&self) -> Option<&O> {
        match self {
            Self::Complete(Completion { settlement: Settlement::Outcome(outcome), .. })
            | Self::Resolve(_, Resolution::Outcome { outcome, .. }) => Some(outcome),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
