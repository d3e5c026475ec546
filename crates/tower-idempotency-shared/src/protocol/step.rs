//! One transition: read the row, let the protocol decide, compare and set. A claim and an end both go through here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::Retryable as _;
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tower_idempotency::RecordId;
use tower_idempotency::internals;
use tower_idempotency::internals::{
    Cause, Completion, Current, Draft, Edit, Fence, Owner, Record, Reply, Resolution, RunResult, State, Stepped,
    Transition, next, once_a_minute, pauses,
};
use tower_idempotency::store::StoreError;

use super::Protocol;
use super::large::is_left_out;
use super::write::{release, unchanged};
use crate::backend::{Backend, BackendError, Expect, Kind, Row, Token, Write};
use crate::database::errors::{late, not_written};
use crate::database::snapshot::RowSnapshot;
use crate::database::writes::{WriteError, WriteResult};

/// The number of times that a step begins again because another process has changed the row.
const ROUNDS: u32 = 16;
/// The first and the longest pause before a step is taken once more because the database did not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// What a transition makes of a row.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and a box would be another block")]
enum Planned {
    /// The row stays as it is. The record is the one that was found.
    Nothing(Reply, Option<Record>),
    Write(PlannedWrite),
}

struct PlannedWrite {
    write: Write,
    /// What the record becomes. `None` if it is released.
    draft: Option<Draft<Bytes>>,
    reply: Reply,
    /// `true` if there was no record, or an older one than the transition names: a failover has lost it.
    is_new: bool,
}

impl<B: Backend> Protocol<B> {
    /// Takes one step on the record of `id`, or refuses it.
    ///
    /// A claim that met a row and can't be decided is refused as overloaded, so that it does not run without
    /// protection.
    pub(crate) async fn step(&self, id: RecordId, transition: &Transition) -> Result<Stepped, StoreError> {
        let is_claim = transition.claim().is_some();
        let mut has_met = false;
        let applied = self.decide(id, transition, &mut has_met).await;
        match applied {
            Err(StoreError::Unavailable { .. }) if is_claim && has_met => {
                Err(StoreError::Overloaded { reason: "the database did not answer the claim of a known key" })
            }
            applied => applied,
        }
    }

    /// Takes the step of [`step`](Self::step), in rounds: a round ends without a result if the row has changed
    /// meanwhile. Sets `has_met` once a row was met.
    ///
    /// What a first request and its outcome do not need is boxed: see section 12 of `docs/design.md`.
    async fn decide(&self, id: RecordId, transition: &Transition, has_met: &mut bool) -> Result<Stepped, StoreError> {
        let deadline = transition.claim().map(|claim| Instant::now() + claim.timeout);
        // The row that a claim has met is returned before its requester gives up: the requester must not run as if
        // there were no row.
        let answer_by = transition.claim().and_then(|claim| deadline.map(|deadline| deadline - claim.timeout / 10));
        let mut known = self.known_before(id, transition).await?;
        for _ in 0..ROUNDS {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(late());
            }
            *has_met |= known.row.is_some();
            if known.row.as_ref().is_some_and(is_left_out) {
                known = Box::pin(in_time(answer_by, self.filled(known))).await?;
            }
            let planned = match self.planned(id, transition, &known)? {
                Planned::Nothing(Reply::Refused, _) if known.row.is_some() && known.server.is_none() => {
                    // This process remembers an older row.
                    self.forget_run(known.row.as_ref());
                    known = Box::pin(self.read(id)).await?;
                    continue;
                }
                Planned::Nothing(reply, record) => {
                    return Box::pin(in_time(answer_by, self.unchanged(id, transition, known, reply, record))).await;
                }
                Planned::Write(planned) => planned,
            };
            let PlannedWrite { write, draft, reply, is_new } = planned;
            if transition.claim().is_some() {
                self.may_claim()?;
            }
            // A takeover first marks the session as dead: its process may be about to renew it.
            let takes_over =
                matches!(transition, Transition::Reclaim(..) | Transition::Inquire { .. } | Transition::Resolve(..));
            if takes_over && !Box::pin(self.mark_session_dead(known.row.as_ref())).await? {
                known = Box::pin(self.read(id)).await?;
                continue;
            }
            let is_end = matches!(transition, Transition::Complete(_) | Transition::Interrupt { .. });
            let was_lost = is_end && is_new;
            let (token, expected) = (write.token, write.expect);
            let WriteResult { row, server, earliest, .. } = match self.database.writes.put(write, deadline).await {
                Ok(result) => result,
                // Only a write with a deadline is ever in doubt: a claim.
                Err(WriteError::InDoubt) => Box::pin(self.invalidate_claim(id, token, known.row.as_ref())).await?,
                Err(WriteError::Never(error)) => {
                    // If the database never takes the outcome, the operation is recorded as consumed. The end of a run
                    // is never refused for good.
                    let applied = Box::pin(async {
                        let consumed = consumed(transition);
                        let refused = || not_written(WriteError::Never(Arc::clone(&error)));
                        self.step(id, &consumed.ok_or_else(refused)?).await
                    });
                    let applied = applied.await?;
                    if applied.reply == Reply::Taken {
                        self.report_consumed(id, &error);
                    }
                    return Ok(applied);
                }
                // There is no room for a new row. A key with a row needs none.
                Err(WriteError::Away(error)) if known.row.is_none() && matches!(*error, BackendError::Full(_)) => {
                    known = Box::pin(in_time(answer_by, self.read(id))).await?;
                    if known.row.is_none() {
                        return Err(not_written(WriteError::Away(error)));
                    }
                    continue;
                }
                Err(error) => return Err(not_written(error)),
            };
            // If an earlier answer was lost, another process may have written the row since.
            match transition {
                // What was read before must not bring the answer back. Of a forgotten answer, what is left takes its
                // place in the cache, for a failover may lose that, too: see `done`.
                Transition::Resolve(fence, Resolution::Forget, _) => self.forget(id, *fence),
                // A damaged outcome, of which this process may have a copy.
                Transition::Resolve(fence, Resolution::Release, _) => self.cache.remove_record(&id, *fence),
                _ => {}
            }
            if let Some(done) = row.as_ref().filter(|row| row.token == token) {
                let applied = self.written(id, transition, done, draft, reply).await?;
                if was_lost {
                    self.report_lost(id);
                }
                return Ok(applied);
            }
            // The row has the token that was expected, and still was not written.
            if matches!((&row, expected), (Some(row), Expect::Token(token)) if row.token == token) {
                return Err(internals::unavailable("something else has the row locked"));
            }
            self.forget_run(row.as_ref());
            known = RowSnapshot { row, earliest, server: Some(server) };
        }
        Err(internals::unavailable("the row changes all the time"))
    }

    /// Decides what a transition makes of the row that is known.
    fn planned(&self, id: RecordId, transition: &Transition, known: &RowSnapshot) -> Result<Planned, StoreError> {
        // A transition that takes an operation or asks about it needs the whole record.
        let needs_all = transition.claim().is_some() || matches!(transition, Transition::Inquire { .. });
        let row = known.row.as_ref();
        let record = match row {
            Some(row) if needs_all => self.whole(row, known.earliest).transpose()?,
            Some(row) => self.view(known.earliest).of(row).map(|held| held.columns(id)).transpose()?,
            None => None,
        };
        let current = match row {
            Some(Row { kind: Kind::Released, fence, .. }) => Current::Released(*fence),
            _ => Current::from(record.as_ref()),
        };
        let (change, reply) = next(current, transition.clone());
        let (write, draft) = match change {
            Edit::Nothing => return Ok(Planned::Nothing(reply, record)),
            Edit::Release => (release(id, row, self.clocks().now()), None),
            Edit::Put(draft) => {
                let write = self.write(id, &draft, row, record.as_ref());
                (write.ok_or_else(|| internals::unavailable("the record can't be encoded"))?, Some(draft))
            }
        };
        let is_new = record.is_none_or(|record| draft.as_ref().and_then(|draft| draft.fence) > Some(record.fence));
        Ok(Planned::Write(PlannedWrite { write, draft, reply, is_new }))
    }

    /// Returns what this process knows of the row before it sends anything. A claim expects no row, and finds out by
    /// being sent whether there is one. This process has written the rows that it holds.
    async fn known_before(&self, id: RecordId, transition: &Transition) -> Result<RowSnapshot, StoreError> {
        let earliest = || self.clocks().earliest();
        match transition {
            // No claim is granted now, but the key's record is still returned.
            Transition::Claim(_) if self.clocks().are_apart() => Box::pin(self.read(id)).await,
            Transition::Claim(_) => Ok(RowSnapshot { row: None, earliest: earliest(), server: None }),
            _ => match self.sessions.held.get(&id).map(|row| row.clone()) {
                held @ Some(_) => Ok(RowSnapshot { row: held, earliest: earliest(), server: None }),
                None => Box::pin(self.read(id)).await,
            },
        }
    }

    /// Refuses claims that this process could not keep, or judge.
    fn may_claim(&self) -> Result<(), StoreError> {
        if self.clocks().are_apart() {
            return Err(StoreError::Overloaded { reason: "the database's clock and this process's are too far apart" });
        }
        if !self.sessions.own.holds_half() {
            return Err(internals::unavailable("this process does not hold its session"));
        }
        Ok(())
    }

    /// Returns the result of a transition whose row was written. Gives a claim back that came too late, or whose
    /// session is not held any more.
    async fn written(
        &self,
        id: RecordId,
        transition: &Transition,
        row: &Row,
        draft: Option<Draft<Bytes>>,
        reply: Reply,
    ) -> Result<Stepped, StoreError> {
        // From now on the session does not say that this bound is over. It may have said so before, if this task was
        // paused with the answer for longer than the bound.
        let applied = self.done(id, row, draft, reply);
        let session = &self.sessions.own;
        let is_held = row.session == Some(session.id()) && session.holds_half();
        let is_late = transition.claim().is_some() && row.until.is_some_and(|until| until < self.clocks().latest());
        if let Some(taken_back) = taken_back(transition)
            && (!is_held || is_late)
        {
            Box::pin(self.give_back(id, taken_back(row.fence))).await;
            let lost = "this process does not hold its session any more";
            return Err(if is_held { late() } else { internals::unavailable(lost) });
        }
        Ok(applied)
    }

    /// Overwrites the row of a claim whose answer was lost and whose requester was refused, so that the claim can't
    /// take effect any more: with the tombstone of a release, or with the row that was there `before`, under another
    /// token. Returns the claim's row if the claim had been done.
    async fn invalidate_claim(
        &self,
        id: RecordId,
        token: Token,
        before: Option<&Row>,
    ) -> Result<WriteResult, StoreError> {
        let write = match before.filter(|row| row.kind != Kind::Released) {
            None => release(id, before, self.clocks().now()),
            Some(row) => unchanged(row, self.clocks().earliest()),
        };
        let found = self.database.writes.insist(write).await.map_err(not_written)?;
        if found.row.as_ref().is_some_and(|row| row.token == token) { Ok(found) } else { Err(late()) }
    }

    /// Gives back a claim under which nothing ran. Tries again for as long as the database does not answer.
    pub(crate) async fn give_back(&self, id: RecordId, taken_back: Transition) {
        let _ = until_answered(usize::MAX, || self.step(id, &taken_back)).await;
    }

    fn report_consumed(&self, id: RecordId, error: &BackendError) {
        self.slots.telemetry.counters.consumed.fetch_add(1, Ordering::Relaxed);
        once_a_minute!(
            self.slots.telemetry.lines.of("consumed"), error, record_id = id.short(), %error,
            "the database never takes the outcome: the operation is consumed, and retries can't replay it"
        );
    }

    /// Counts a record that was written anew.
    fn report_lost(&self, id: RecordId) {
        self.slots.telemetry.counters.lost.fetch_add(1, Ordering::Relaxed);
        once_a_minute!(
            self.slots.telemetry.lines.of("lost"),
            error,
            record_id = id.short(),
            "a failover has lost a record, or it had expired, and it is written anew; until then a retry could have run"
        );
    }

    /// Forgets the run of this process that has this row, or an earlier one. A later run of the key stays: while this
    /// process keeps it, no other process considers it over.
    fn forget_run(&self, row: Option<&Row>) {
        let Some(row) = row else { return };
        let is_own_run =
            row.kind == Kind::Running && row.session.is_some_and(|id| self.sessions.own.own().contains(&id));
        if is_own_run && self.sessions.held.get(&row.id).is_some_and(|held| held.fence <= row.fence) {
            // The row now has another token.
            self.sessions.held.insert(row.id, row.clone());
        } else {
            self.sessions.held.remove_if(&row.id, |_, held| held.fence <= row.fence);
        }
    }

    /// Answers a transition that changes nothing.
    async fn unchanged(
        &self,
        id: RecordId,
        transition: &Transition,
        known: RowSnapshot,
        reply: Reply,
        record: Option<Record>,
    ) -> Result<Stepped, StoreError> {
        self.forget_run(known.row.as_ref());
        if let (Reply::Refused, Transition::Complete(completion)) = (reply, transition) {
            self.dispute(completion).await;
        }
        let record = self.durable(id, &known, record).await?;
        Ok(Stepped { reply, record })
    }

    /// Notes that the row was written, and returns the result of the transition.
    fn done(&self, id: RecordId, row: &Row, draft: Option<Draft<Bytes>>, reply: Reply) -> Stepped {
        let Some(draft) = draft else {
            self.forget_run(Some(row));
            return Stepped { reply, record: None };
        };
        let Draft { owned, fingerprint, attempt, origin, state, .. } = draft;
        let owner = if owned.is_some() { Owner::Here } else { Owner::None };
        if owner == Owner::Here {
            self.sessions.held.insert(id, row.clone());
        } else {
            self.forget_run(Some(row));
        }
        let expires = if matches!(state, State::Running { .. }) { None } else { Some(row.record_expires()) };
        let Row { fence, began, since, .. } = *row;
        let record = Record { fence, began, since, expires, fingerprint, attempt, origin, state, owner };
        if record.state.is_done() {
            self.cache.put_unless_forgotten(id, record.clone(), false);
        }
        Stepped { reply, record: Some(record) }
    }
}

/// Takes a step, which reads its row anew each time, until the database answers, or again so many times.
pub(super) async fn until_answered<T, F>(times: usize, step: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let is_away = |error: &StoreError| matches!(error, StoreError::Unavailable { .. });
    step.retry(pauses(FIRST_PAUSE, MAX_PAUSE).with_max_times(times)).sleep(tokio::time::sleep).when(is_away).await
}

/// Waits for `found` until `end`, if there is an end.
async fn in_time<T>(end: Option<Instant>, found: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match end {
        Some(end) => timeout_at(end, found).await.unwrap_or_else(|_| Err(late())),
        None => found.await,
    }
}

/// Returns the same end of a run without its outcome, or `None` if the transition does not end a run with one.
fn consumed(transition: &Transition) -> Option<Transition> {
    let Transition::Complete(completion @ Completion { result: RunResult::Outcome(_), .. }) = transition else {
        return None;
    };
    // The status is inside the outcome, whose bytes the store does not read. 0 means that it is unknown.
    let result = RunResult::Consumed { status: 0 };
    Some(Transition::Complete(Completion { result, ..completion.clone() }))
}

/// Returns the transition that gives back, by its fence, a claim under which nothing ran or a question that was not
/// asked. Returns `None` if `transition` is neither a claim nor such a question.
pub(crate) fn taken_back(transition: &Transition) -> Option<fn(Fence) -> Transition> {
    match transition {
        Transition::Claim(_) => Some(Transition::Release),
        // The effects of the earlier run are as unknown as before.
        Transition::Reclaim(..) => Some(|fence| Transition::Interrupt { fence, cause: Cause::Unknown, lost: None }),
        // Other processes may ask.
        Transition::Inquire { bound, .. } if !bound.is_zero() => {
            Some(|fence| Transition::Inquire { fence, bound: Duration::ZERO })
        }
        // Ends, settlements and questions that are over leave nothing to give back.
        _ => None,
    }
}
