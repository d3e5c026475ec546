//! Changes that a fault makes to a transition, to its answer, and to the records that are read.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{
    Cause, ClaimPolicy, Completion, Cursor, Fence, Hold, ListedRecord, Origin, Owner, Page, Record, Reply, Resolution,
    State, Stepped, Transition,
};

use super::fault::Fault;

/// The memory of a fault between calls.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) is_full: bool,
    /// The runs that were granted.
    pub(super) runs: HashMap<RecordId, Fence>,
    /// The record as it was loaded first; `saw_last` has it as it was loaded last.
    saw_first: HashMap<RecordId, Option<Record>>,
    pub(super) saw_last: HashMap<RecordId, Record>,
    /// The last record that was written.
    made: HashMap<RecordId, Record>,
    /// False values that the fault has given to a record.
    false_since: HashMap<RecordId, Timestamp>,
    false_expiry: HashMap<RecordId, Option<Timestamp>>,
    false_outcome: HashMap<RecordId, Bytes>,
    false_fence: HashMap<RecordId, Fence>,
    bounds: HashMap<RecordId, Duration>,
    /// The fence below the first of a record.
    base: HashMap<RecordId, u64>,
}

/// Returns whether the fault refuses a correct step.
pub(super) fn is_refused(fault: Fault, transition: &Transition, before: Option<&Record>) -> bool {
    let state = before.map(|before| &before.state);
    let is_done = matches!(state, Some(State::Completed { .. } | State::Consumed { .. }));
    match (fault, transition) {
        (Fault::RefusesEndingsSentAgain, Transition::Complete(_)) => is_done,
        (Fault::RefusesEndingsSentAgain, Transition::Release(_)) => before.is_none(),
        (Fault::ThrowsLateOutcomesAway, Transition::Complete(_)) => {
            matches!(state, Some(State::Interrupted { .. }))
        }
        (Fault::DisarmsTheRunByAQuestion, Transition::Complete(_)) => {
            matches!((state, before), (Some(State::Interrupted { run, .. }), Some(before)) if *run != before.fence)
        }
        (Fault::NeedsAClaimToComplete, Transition::Complete(_)) => before.is_none(),
        (Fault::RefusesToForgetAnswers, Transition::Resolve(_, Resolution::ForgetAnswer { .. }, _)) => true,
        _ => false,
    }
}

impl Memory {
    /// The transition as the store below gets it.
    pub(super) fn sent(
        &self,
        fault: Fault,
        id: RecordId,
        transition: Transition,
        before: Option<&Record>,
        now: Timestamp,
    ) -> Transition {
        let run = before.and_then(|before| match before.state {
            State::Running { .. } => Some(before.fence),
            State::Interrupted { run, .. } => Some(run),
            State::Completed { .. } | State::Consumed { .. } => None,
        });
        match (fault, transition, run) {
            (Fault::CompletesUnderAnyFence, Transition::Complete(completion), Some(fence)) => {
                Transition::Complete(Completion { hold: Hold { fence, ..completion.hold }, ..completion })
            }
            (Fault::ReleasesUnderAnyFence, Transition::Release(_), Some(fence)) => Transition::Release(fence),
            (Fault::CutsOutcomesAtOneMebibyte, transition, _) => {
                transition.map(|outcome| outcome.slice(..outcome.len().min(1 << 20)))
            }
            (Fault::KeepsOutcomesAsText, transition, _) => {
                transition.map(|outcome| String::from_utf8_lossy(outcome).into_owned().into())
            }
            (Fault::CountsRetentionFromTheClaim, Transition::Complete(completion), _) => {
                let took = before.map_or(0, |before| now.as_millis() - before.began.as_millis());
                let retention = completion.retention.saturating_sub(Duration::from_millis(took));
                Transition::Complete(Completion { retention, ..completion })
            }
            (Fault::OwnsQuestionsThatAreOver, Transition::Inquire { fence, bound: Duration::ZERO }, _) => {
                Transition::Inquire { fence, bound: Duration::from_secs(3_600) }
            }
            (Fault::StampsWhatItAdopts, Transition::Adopt(record), _) => {
                Transition::Adopt(Box::new(Record { began: now, since: now, ..*record }))
            }
            (Fault::CountsFencesPerRecord, transition, _) => {
                let base = self.base.get(&id).copied().unwrap_or(0);
                with_fence(transition, |fence| Fence(fence.0 + base))
            }
            (Fault::ResolvesUnderTheOldFence, transition, _) => {
                let (shown, is) = (self.false_fence.get(&id).copied(), before.map(|before| before.fence));
                with_fence(transition, |fence| is.filter(|_| shown == Some(fence)).unwrap_or(fence))
            }
            (_, transition, _) => transition,
        }
    }

    /// The answer of the broken store, if `applied` is the right one.
    pub(super) fn made(
        &mut self,
        fault: Fault,
        id: RecordId,
        transition: &Transition,
        before: Option<&Record>,
        applied: Stepped,
        now: Timestamp,
    ) -> Stepped {
        let Stepped { mut reply, record } = applied;
        let is_taken = reply == Reply::Taken;
        if let (true, Some(claim), Some(record)) = (is_taken, transition.claim(), &record) {
            self.runs.insert(id, record.fence);
            self.bounds.insert(id, claim.bound);
            if let Transition::Claim(_) = transition {
                self.base.insert(id, record.fence.0 - 1);
            }
        }
        match (fault, transition) {
            (Fault::StampsWhatItRefuses, _) if !is_taken && record.is_some() => {
                self.false_since.insert(id, now);
            }
            (Fault::StampsAtAQuestion, Transition::Inquire { .. }) if is_taken => {
                self.false_since.insert(id, now);
            }
            (Fault::StampsWhatIsLeftOfAnswers, Transition::Resolve(_, Resolution::ForgetAnswer { .. }, _))
                if is_taken =>
            {
                self.false_since.insert(id, now);
            }
            (Fault::LetsAQuestionOutliveItsRecord, Transition::Inquire { .. }) if is_taken => {
                self.false_expiry.insert(id, before.and_then(|before| before.expires));
            }
            (Fault::ResolvesUnderTheOldFence, Transition::Resolve(fence, ..)) if is_taken => {
                self.false_fence.insert(id, *fence);
            }
            (Fault::ReplacesOutcomes, Transition::Complete(_)) if is_taken => {
                self.false_outcome.extend(transition.outcome().map(|outcome| (id, outcome.clone())));
            }
            (Fault::SettlesAgain, Transition::Resolve(..)) if record.is_some() => reply = Reply::Taken,
            _ => {}
        }
        match record.as_ref().filter(|record| record.expires.is_some()) {
            Some(record) => drop(self.made.insert(id, record.clone())),
            None => drop(self.made.remove(&id)),
        }
        Stepped { reply, record }
    }

    /// The record that is loaded where `there` is.
    pub(super) fn loaded(
        &mut self,
        fault: Fault,
        id: RecordId,
        there: Option<Record>,
        now: Timestamp,
    ) -> Option<Record> {
        let there =
            if fault == Fault::AnswersPastExpiry { there.or_else(|| self.made.get(&id).cloned()) } else { there };
        let seen = there.and_then(|there| self.seen(fault, id, there, now));
        self.saw_last.extend(seen.clone().map(|seen| (id, seen)));
        let first = self.saw_first.entry(id).or_insert_with(|| seen.clone());
        if fault == Fault::RemembersWhatItSaw { first.clone() } else { seen }
    }

    /// The record as it is shown.
    pub(super) fn seen(&self, fault: Fault, id: RecordId, record: Record, now: Timestamp) -> Option<Record> {
        let mut record = record;
        match fault {
            Fault::ForgetsAttempts => record.attempt = 1,
            Fault::ForgetsOrigins => record.origin = Origin::default(),
            Fault::ForgetsPolicies => match &mut record.state {
                State::Running { policy, .. } | State::Interrupted { policy, .. } => *policy = ClaimPolicy::Rerun,
                _ => {}
            },
            Fault::BeginsAnewAtEachAttempt if record.attempt > 1 => record.began = record.since,
            Fault::StampsWhatItRefuses | Fault::StampsAtAQuestion | Fault::StampsWhatIsLeftOfAnswers => {
                record.since = self.false_since.get(&id).copied().unwrap_or(record.since);
            }
            Fault::LetsAQuestionOutliveItsRecord if record.expires.is_some() => {
                record.expires = self.false_expiry.get(&id).copied().unwrap_or(record.expires);
            }
            Fault::KeepsStatusesInAByte => match &mut record.state {
                State::Interrupted { cause: Cause::Answered(status), .. } | State::Consumed { status } => {
                    *status &= 0xff;
                }
                _ => {}
            },
            Fault::ReplacesOutcomes => {
                if let (State::Completed { outcome }, Some(other)) = (&mut record.state, self.false_outcome.get(&id)) {
                    *outcome = other.clone();
                }
            }
            Fault::ResolvesUnderTheOldFence => {
                if let (State::Completed { .. }, Some(fence)) = (&record.state, self.false_fence.get(&id)) {
                    record.fence = *fence;
                }
            }
            Fault::CountsFencesPerRecord => {
                let base = self.base.get(&id).copied().unwrap_or(0);
                record.fence = Fence(record.fence.0 - base);
                if let State::Interrupted { run, .. } = &mut record.state {
                    *run = Fence(run.0 - base);
                }
            }
            Fault::TakesOthersForDead if record.owner == Owner::Elsewhere => record = record.lapse(now, Cause::Lease),
            Fault::InterruptsItsOwnSlowRuns => {
                let until = self.bounds.get(&id).map(|bound| record.since.plus(*bound));
                if let Some(until) = until.filter(|until| *until <= now) {
                    record = record.lapse(until, Cause::MaxRun);
                }
            }
            _ => {}
        }
        if fault == Fault::AnswersPastExpiry { Some(record) } else { record.live(now) }
    }
}

fn with_fence(transition: Transition, to: impl Fn(Fence) -> Fence) -> Transition {
    match transition {
        Transition::Claim(claim) => Transition::Claim(claim),
        Transition::Reclaim(claim, fence, reason) => Transition::Reclaim(claim, to(fence), reason),
        Transition::Inquire { fence, bound } => Transition::Inquire { fence: to(fence), bound },
        Transition::Complete(completion) => {
            let hold = Hold { fence: to(completion.hold.fence), ..completion.hold };
            Transition::Complete(Completion { hold, ..completion })
        }
        Transition::Release(fence) => Transition::Release(to(fence)),
        Transition::Interrupt { fence, cause, lost } => Transition::Interrupt { fence: to(fence), cause, lost },
        Transition::Resolve(fence, resolution, retention) => Transition::Resolve(to(fence), resolution, retention),
        Transition::Adopt(record) => Transition::Adopt(record),
    }
}

/// The page of a list that is right.
pub(super) fn page(fault: Fault, mut runs: Vec<ListedRecord>, after: Option<Cursor>, limit: usize) -> Page {
    if fault == Fault::ListsTheNewestFirst {
        runs.reverse();
    }
    let since = |run: &ListedRecord| run.record.as_ref().map_or(0, |record| record.since.as_millis());
    // The last 64 digits of the place are the operation's id.
    if let Some(after) = after.map(|after| after.to_string()) {
        let place = runs.iter().position(|run| after.ends_with(&run.id.to_string()));
        let begin = match fault {
            Fault::BeginsThePageAtThePlace => place,
            Fault::LeavesOutTies => place.and_then(|place| {
                let of_place = since(&runs[place]);
                runs.iter().position(|run| of_place < since(run))
            }),
            _ => place.map(|place| place + 1),
        };
        runs.drain(..begin.unwrap_or(runs.len()));
    }
    let limit = if fault == Fault::ListsAllAtOnce { usize::MAX } else { limit };
    let has_more = runs.len() > limit;
    runs.truncate(limit);
    let place = |last: &ListedRecord| format!("t{}.0.{}", since(last), last.id).parse().unwrap();
    let next = runs.last().filter(|_| has_more).map(place);
    Page { records: runs, next }
}
