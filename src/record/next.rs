//! The function that decides which state follows which, for each transition: a claim, an end, an operator's, and the
//! interruption of what an opening finds running. It returns what is to be written ([`Edit`]) and the reply; what a
//! store makes of both is a [`Stepped`].

use std::time::Duration;

use bytes::Bytes;

use super::operation::Operation;
use super::state::{Fence, Origin, Owner, Record, State};
use super::transition::{Claim, Completion, Hold, Lost, ReclaimReason, Resolution, RunResult, Transition};
use crate::clock::Timestamp;
use crate::fingerprint::Fingerprint;

/// The content of a store under a record id, when it applies a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Current<'a, O> {
    /// There is no record, or only one that is past its expiry.
    Absent,
    /// There is the tombstone of a record that was released or forgotten, under this fence. Only stores that several
    /// processes share keep one.
    Released(Fence),
    /// There is a record, which the store presents as rule 1 of [`record`](super) says.
    Held(&'a Record<O>),
}

impl<'a, O> Current<'a, O> {
    /// Returns the record. The tombstone of an earlier one does not count.
    fn record(self) -> Option<&'a Record<O>> {
        if let Self::Held(record) = self { Some(record) } else { None }
    }

    /// Returns whether the claim that took `fence` was lost by a failover: there is nothing, or the tombstone of
    /// something older.
    fn has_lost(&self, fence: Fence) -> bool {
        match self {
            Self::Absent => true,
            Self::Released(tombstone) => *tombstone < fence,
            Self::Held(_) => false,
        }
    }
}

impl<'a, O> From<Option<&'a Record<O>>> for Current<'a, O> {
    fn from(record: Option<&'a Record<O>>) -> Self {
        record.map_or(Self::Absent, Self::Held)
    }
}

/// The change that a store has to write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
#[allow(clippy::large_enum_variant, reason = "nearly each is a record, and a box would cost each request a block")]
pub enum Edit<O> {
    /// The store writes nothing.
    Nothing,
    /// The store writes this record.
    Put(Draft<O>),
    /// The key is free. An exclusive store deletes the record; a shared store keeps a tombstone of it.
    Release,
}

/// A record to be written, before the store has stamped it with its time and a fence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct Draft<O> {
    /// The fence of the record; `None` for a new one.
    pub fence: Option<Fence>,
    /// The time for which the record is kept.
    pub expiry: Expiry,
    /// The longest time for which this process is the owner; `None` if no process is.
    pub owned: Option<Duration>,
    /// As in [`Record`].
    pub fingerprint: Fingerprint,
    /// As in [`Record`].
    pub attempt: u32,
    /// As in [`Record`].
    pub origin: Origin,
    /// As in [`Record`].
    pub state: State<O>,
    /// The times at which the operation began and entered its state, if the record was made by another store.
    pub times: Option<(Timestamp, Timestamp)>,
}

/// The time for which a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub enum Expiry {
    /// Until the record enters another state.
    Never,
    /// For as long as without the change, and at least for this long from now. What is known of the operation stays,
    /// so the record also keeps the time of its state.
    AtLeast(Duration),
    /// For this long from now.
    In(Duration),
    /// Until this time.
    At(Timestamp),
}

/// The reply to a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The transition was taken.
    Taken,
    /// Nothing was changed, because of the record: there is one already, or none, or it is in another state, under
    /// another fence, or another process's.
    Refused,
}

/// The result of a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped<O = Bytes> {
    /// The answer: whether the transition was taken.
    pub reply: Reply,
    /// The record as it is now, or `None` if there is none. For a claim that leaves no trace, the record that it would
    /// write.
    pub record: Option<Record<O>>,
}

/// Decides which state follows `current` by `transition`: returns what the store has to write and what it has to
/// answer.
#[doc(hidden)]
pub fn next<O>(current: Current<'_, O>, transition: Transition<O>) -> (Edit<O>, Reply) {
    match transition {
        Transition::Claim(claim) => match current {
            Current::Absent | Current::Released(_) => put(Draft::running(claim, 1)),
            Current::Held(_) => refused(),
        },
        Transition::Reclaim(claim, fence, reason) => match interrupted(current, fence) {
            Some(record) if reason == ReclaimReason::Verdict || record.may_run_again() => put(Draft {
                fingerprint: record.fingerprint,
                origin: record.origin.clone(),
                ..Draft::running(claim, record.attempt.saturating_add(1))
            }),
            // It is not interrupted under this fence, or the policy is not reason enough.
            _ => refused(),
        },
        Transition::Inquire { fence, bound } => match interrupted(current, fence) {
            Some(record @ &Record { state: State::Interrupted { policy, run, cause }, .. }) => {
                let ended = Draft::ended(record, None, bound, State::Interrupted { policy, run, cause });
                // A question that is over at once has no owner.
                let owned = (!bound.is_zero()).then_some(bound);
                // The reply to the question must still find the record.
                put(Draft { expiry: Expiry::AtLeast(bound), owned, ..ended })
            }
            // It is not interrupted under this fence, or another process asks about it.
            _ => refused(),
        },
        Transition::Complete(completion) => complete(current, completion),
        Transition::Release(fence) => match current {
            // The key is free already, for example because the release is sent again.
            Current::Absent | Current::Released(_) => (Edit::Nothing, Reply::Taken),
            Current::Held(record) if record.run() == Some(fence) => (Edit::Release, Reply::Taken),
            // Another run has the operation, or it is done.
            Current::Held(_) => refused(),
        },
        Transition::Interrupt { fence, cause, lost } => match current {
            Current::Held(record) if record.run() == Some(fence) => match record.state {
                State::Running { policy, interrupted_retention } if record.owner != Owner::Elsewhere => {
                    let state = State::Interrupted { policy, run: fence, cause };
                    put(Draft::ended(record, Some(fence), interrupted_retention, state))
                }
                // The interruption is sent again.
                State::Interrupted { .. } => (Edit::Nothing, Reply::Taken),
                // The run is another process's: a record that is done names no run.
                _ => refused(),
            },
            // The record is of another run, done, or gone. If a failover has lost the claim, the end is written anew.
            _ => match lost.filter(|_| current.has_lost(fence)) {
                Some(Lost { operation, attempt, policy, retention }) => {
                    let state = State::Interrupted { policy, run: fence, cause };
                    put(Draft::anew(operation, Hold { fence, attempt }, retention, state))
                }
                None => refused(),
            },
        },
        Transition::Resolve(fence, resolution, retention) => {
            let Some(record) = current.record().filter(|record| record.fence == fence) else { return refused() };
            match (&record.state, resolution) {
                (State::Interrupted { .. }, Resolution::Outcome(outcome)) => {
                    put(Draft::ended(record, None, retention, State::Completed { outcome }))
                }
                (State::Interrupted { .. }, Resolution::Release)
                | (State::Completed { .. } | State::Consumed { .. }, Resolution::Forget) => {
                    (Edit::Release, Reply::Taken)
                }
                (State::Completed { .. }, Resolution::ForgetAnswer { status }) => {
                    // The fence stays: a late copy of the run's end must still find it taken. Refused, a shared store
                    // would keep the deleted outcome as disputed.
                    let ended = Draft::ended(record, Some(fence), Duration::ZERO, State::Consumed { status });
                    put(Draft { expiry: Expiry::AtLeast(Duration::ZERO), ..ended })
                }
                // It was settled, has run again, or was asked about since; or the resolution is for another state.
                _ => refused(),
            }
        }
        Transition::Adopt(record) => match current {
            // A run that is under way belongs to its own store.
            Current::Absent if !matches!(record.state, State::Running { .. }) => put(Draft::adopted(*record)),
            // What was released here has run here.
            _ => refused(),
        },
    }
}

/// Decides what follows when a run ends with an outcome, or with one that cannot be stored.
fn complete<O>(current: Current<'_, O>, completion: Completion<O>) -> (Edit<O>, Reply) {
    let Completion { operation, hold, result, retention, began } = completion;
    let state = match result {
        RunResult::Outcome(outcome) => State::Completed { outcome },
        RunResult::Consumed { status } => State::Consumed { status },
    };
    match current {
        _ if current.has_lost(hold.fence) => put(Draft::anew(operation, hold, retention, state)),
        // A failover has brought back what was there before the operation was taken over or settled. The fence alone
        // does not say so: with a clock that was ahead, a later run of the key has a smaller one.
        Current::Held(it)
            if it.run().is_some() && it.fence < hold.fence && it.attempt <= hold.attempt && Some(it.began) == began =>
        {
            put(Draft::anew(operation, hold, retention, state))
        }
        Current::Held(record) if record.run() == Some(hold.fence) => {
            put(Draft::ended(record, Some(record.fence), retention, state))
        }
        // The completion is sent again.
        Current::Held(record) if record.run().is_none() && record.fence == hold.fence => (Edit::Nothing, Reply::Taken),
        // The operation was taken over, settled or freed since, or is done. An absent record counts as lost above.
        Current::Held(_) | Current::Released(_) | Current::Absent => refused(),
    }
}

/// Returns the record, if it is interrupted under this fence and no other process sees to it.
fn interrupted<'a, O>(current: Current<'a, O>, fence: Fence) -> Option<&'a Record<O>> {
    current.record().filter(|record| record.fence == fence && record.is_interrupted())
}

/// Takes the transition: the store writes `draft`.
fn put<O>(draft: Draft<O>) -> (Edit<O>, Reply) {
    (Edit::Put(draft), Reply::Taken)
}

/// Refuses the transition: the store writes nothing.
fn refused<O>() -> (Edit<O>, Reply) {
    (Edit::Nothing, Reply::Refused)
}

impl<O> Draft<O> {
    /// The record of a run that begins. It gets a new fence, and this process owns it.
    fn running(claim: Claim, attempt: u32) -> Self {
        let Claim { operation, policy, bound, interrupted_retention, .. } = claim;
        let Operation { fingerprint, origin, .. } = operation;
        let state = State::Running { policy, interrupted_retention };
        let (expiry, owned) = (Expiry::Never, Some(bound));
        Self { fence: None, expiry, owned, fingerprint, attempt, origin, state, times: None }
    }

    /// The end of a run whose claim was lost.
    fn anew(operation: Operation, hold: Hold, kept: Duration, state: State<O>) -> Self {
        let (Operation { fingerprint, origin, .. }, Hold { fence, attempt }) = (operation, hold);
        let (fence, expiry) = (Some(fence), Expiry::In(kept));
        Self { fence, expiry, owned: None, fingerprint, attempt, origin, state, times: None }
    }

    /// The record after the end of a run or a settlement. No process owns it. Without `fence` it gets a new one.
    fn ended(record: &Record<O>, fence: Option<Fence>, kept: Duration, state: State<O>) -> Self {
        let Record { fingerprint, attempt, ref origin, .. } = *record;
        let (expiry, origin) = (Expiry::In(kept), origin.clone());
        Self { fence, expiry, owned: None, fingerprint, attempt, origin, state, times: None }
    }

    /// The record of another store, as it is.
    fn adopted(record: Record<O>) -> Self {
        let Record { fence, began, since, expires, fingerprint, attempt, origin, state, .. } = record;
        let (fence, times) = (Some(fence), Some((began, since)));
        let expiry = expires.map_or(Expiry::Never, Expiry::At);
        Self { fence, expiry, owned: None, fingerprint, attempt, origin, state, times }
    }

    /// Returns the record that this draft makes of `current`, as the store presented it. `fresh` is a fence that was
    /// never given before, `now` is the store's time, and a new operation began at `began`.
    #[must_use]
    pub fn stamp(self, current: Option<&Record<O>>, fresh: Fence, began: Timestamp, now: Timestamp) -> Record<O> {
        let Self { fence, expiry, owned, fingerprint, attempt, origin, state, times } = self;
        // A question asks for `AtLeast`, and so does an answer that is forgotten. What is known of the operation stays,
        // so `since` stays too.
        let stays = matches!(expiry, Expiry::AtLeast(_));
        let before = current.filter(|_| stays);
        let stamped = || (current.map_or(began, |current| current.began), before.map_or(now, |before| before.since));
        let (began, since) = times.unwrap_or_else(stamped);
        Record {
            fence: fence.unwrap_or(fresh),
            began,
            since,
            expires: match expiry {
                Expiry::Never => None,
                Expiry::AtLeast(least) => {
                    current.and_then(|current| current.expires).map(|expires| expires.max(now.plus(least)))
                }
                Expiry::In(kept) => Some(now.plus(kept)),
                Expiry::At(expires) => Some(expires),
            },
            fingerprint,
            attempt,
            origin,
            state,
            owner: if owned.is_some() { Owner::Here } else { Owner::None },
        }
    }
}
