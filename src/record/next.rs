//! Which state follows which.

use std::time::Duration;

use bytes::Bytes;

use super::state::{Fence, Origin, Owner, Record, State};
use super::transition::{Claim, Completion, Hold, Resolution, Settlement, Transition};
use crate::clock::Timestamp;
use crate::fingerprint::Fingerprint;

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
    /// As long as it would have been without the change, and at least for so long from now.
    AtLeast(Duration),
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
                // What is said to the question must find the record.
                let (expiry, owned, origin) = (Expiry::AtLeast(bound), Some(bound), origin.clone());
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
        Transition::Resolve(fence, resolution, retention) => {
            let is_meant =
                |record: &&Record<O>| record.fence == fence && matches!(record.state, State::Interrupted { .. });
            match (current.record().filter(is_meant), resolution) {
                (Some(record), Resolution::Outcome(outcome)) => {
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

    /// The record that this makes of `current`, as the store presented it, now. `fresh` is a fence that was never given before.
    #[must_use]
    pub fn stamp(self, current: Option<&Record<O>>, fresh: Fence, now: Timestamp) -> Record<O> {
        let Self { fence, expiry, owned, fingerprint, attempt, origin, state } = self;
        let is_question = matches!(expiry, Expiry::AtLeast(_));
        let before = current.filter(|_| is_question);
        Record {
            fence: fence.unwrap_or(fresh),
            began: current.map_or(now, |current| current.began),
            since: before.map_or(now, |before| before.since),
            expires: match expiry {
                Expiry::Never => None,
                Expiry::AtLeast(least) => {
                    current.and_then(|current| current.expires).map(|expires| expires.max(now.plus(least)))
                }
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
