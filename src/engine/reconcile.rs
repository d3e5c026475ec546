//! Asks the application about interrupted operations, and acts on its answer.
//!
//! Rules:
//! 1. The asker holds the operation's slot, so concurrent retries share one question.
//! 2. A new fence is taken, durably, before the question, so a late reply to an earlier question counts for nothing.
//! 3. The record stays interrupted during the question, so that a process that dies while it asks changes nothing.
//! 4. The asker is detached from its requester: it is a run, or a task of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scopeguard::{ScopeGuard, guard};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::engine::Engine;
use super::reconciler::{Reconciled, Reconciler};
use super::resolve::resolve_in;
use super::verdict::Verdict;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::observer::SettledBy;
use crate::record::{Fence, Record, Reply, Resolution, Stepped, Transition};
use crate::slots::{Attempt, End, Ended, Entered, Event, Phase, Refusal, Slot};
use crate::store::{InterruptedRun, Store, StoreError};
use crate::timeouts::STORE_TIMEOUT;

/// A question to the application about an interrupted run.
pub(super) struct Question {
    pub(super) reconciler: Reconciler<Bytes>,
    pub(super) interrupted: InterruptedRun,
    /// The fingerprint of the operation.
    pub(super) fingerprint: Fingerprint,
}

impl Question {
    /// Takes a new fence and asks. An error means that the application was not asked, and is the requester's answer.
    pub(super) async fn ask<St: Store>(&self, engine: &Engine<St>) -> Result<(Fence, Reconciled<Bytes>), End> {
        let Self { reconciler, interrupted: run, .. } = self;
        // The bound covers the answer to this step, the question, and the recording of its reply.
        let bound = reconciler.limit().saturating_add(2 * STORE_TIMEOUT);
        let taking = engine.store.apply(run.id, Transition::Inquire { fence: run.fence, bound });
        let taken = timeout(STORE_TIMEOUT, taking).await;
        let taken = taken.unwrap_or_else(|_| Err(StoreError::uncertain("the store has not answered in time")));
        match taken.map_err(|error| End::Refused(engine.log_and_refuse(&run.id, &error)))? {
            Stepped { reply: Reply::Taken, record: Some(Record { fence, .. }) } => {
                // Other processes ask if this asker is dropped before it has an answer.
                let asking = guard(&engine.store, |store| {
                    if !store.is_exclusive() {
                        // The transition takes effect when it is called; no caller is left to wait for it.
                        drop(store.apply(run.id, no_more(fence)));
                    }
                });
                let said = reconciler.ask(InterruptedRun { fence, ..run.clone() }, engine.lines()).await;
                ScopeGuard::into_inner(asking);
                if matches!(said, Reconciled::StillUnknown) {
                    ask_no_more(engine, run.id, fence).await;
                }
                Ok((fence, said))
            }
            // The operation was settled meanwhile, or its record expired: the requester asks again.
            _ => Err(End::Released),
        }
    }

    /// Returns this end of the interrupted run.
    pub(super) fn ended(&self, end: End) -> Ended {
        let InterruptedRun { attempt, origin, .. } = &self.interrupted;
        Ended::new(self.fingerprint, end).of(Attempt { number: *attempt, origin: origin.clone() })
    }

    /// Returns the end of a run of which the application does not know how it ended.
    pub(super) fn still_unknown(&self) -> Ended {
        self.ended(End::Interrupted { cause: self.interrupted.cause })
    }

    /// Records the outcome that the application knew, frees the slot, and answers.
    pub(super) async fn settle<St: Store, T>(
        &self,
        engine: Arc<Engine<St>>,
        slot: Slot,
        fence: Fence,
        outcome: Bytes,
        requester: oneshot::Sender<Verdict<T>>,
    ) {
        let settling = settle(&engine, slot, fence, outcome);
        tokio::pin!(settling);
        match timeout(STORE_TIMEOUT, settling.as_mut()).await {
            Ok((_, ended)) => drop(requester.send(ended.result_for(&self.fingerprint).into())),
            Err(_) => {
                // Only the requester stops waiting. The slot is freed when the store has answered.
                let _ = requester.send(Refusal::Unavailable.into());
                let _ = settling.await;
            }
        }
    }
}

/// Lets other processes ask: their application may know more. Otherwise they would wait for the question's bound.
pub(super) async fn ask_no_more<St: Store>(engine: &Engine<St>, id: RecordId, fence: Fence) {
    if !engine.store.is_exclusive() {
        // If the store does not answer, the other processes wait.
        let _ = timeout(STORE_TIMEOUT, engine.store.apply(id, no_more(fence))).await;
    }
}

/// Records the outcome that the application knew, and frees the slot.
async fn settle<St: Store>(
    engine: &Arc<Engine<St>>,
    slot: Slot,
    fence: Fence,
    outcome: Bytes,
) -> (Result<Reply, StoreError>, Ended) {
    let (settled, ended) = resolve_in(engine, slot, fence, Resolution::Outcome(outcome)).await;
    if let Ok(Reply::Taken) = settled {
        engine.count(|counters| &counters.reconciled);
        engine.telemetry().happened(Event::Settled(SettledBy::Reconciler));
    }
    (settled, ended)
}

/// Asks about one operation. Returns `None` if a retry came first and handles it, or if it is no longer interrupted, or
/// not under this fence, if one is given.
pub(crate) async fn reconcile_one<St: Store>(
    engine: &Arc<Engine<St>>,
    reconciler: &Reconciler<Bytes>,
    id: RecordId,
    fence: Option<Fence>,
) -> Result<Option<Reconciled<()>>, StoreError> {
    // A question starts no handler, so no `max_runs` bounds it.
    let Entered::Mine(slot) = engine.store.slots().take(id, usize::MAX, None) else { return Ok(None) };
    // This is read under the slot, because drain waits for slots that were taken before it began.
    if engine.store.slots().is_draining() {
        slot.end(Refusal::ShuttingDown);
        return Err(StoreError::unavailable("the process is shutting down"));
    }
    let loaded = timeout(STORE_TIMEOUT, engine.store.load(id)).await;
    // After an error, the drop of the slot refuses the requests that have met it.
    let loaded = loaded.map_err(|_| StoreError::unavailable("the store has not answered in time"))?;
    // Without a record, it has expired since it was listed.
    let Some(record) = loaded? else { return Ok(None) };
    let is_meant = fence.is_none_or(|fence| fence == record.fence);
    let Some(interrupted) = InterruptedRun::of(id, &record).filter(|_| is_meant) else {
        // Requests that have met the slot are answered from the record.
        slot.end(engine.presented(record));
        return Ok(None);
    };
    let question = Question { reconciler: reconciler.clone(), interrupted, fingerprint: record.fingerprint };
    // Retries wait for the answer as they wait for a run.
    slot.show_phase(Phase::Running(question.fingerprint));
    let (ended, reconciled) = match question.ask(engine).await {
        Ok((fence, Reconciled::Outcome(outcome))) => {
            let (settled, _) = settle(engine, slot, fence, outcome).await;
            return settled.map(|reply| (reply == Reply::Taken).then_some(Reconciled::Outcome(())));
        }
        // There is no request to run. The record stays, so that the retry's run learns of the interrupted one.
        Ok((fence, Reconciled::RunAgain)) => {
            ask_no_more(engine, id, fence).await;
            (question.ended(End::Released), Ok(Some(Reconciled::RunAgain)))
        }
        Ok((_, Reconciled::StillUnknown)) => (question.still_unknown(), Ok(Some(Reconciled::StillUnknown))),
        Err(End::Released) => (question.ended(End::Released), Ok(None)),
        Err(end) => {
            let error = StoreError::uncertain("the store has taken no question about the operation");
            (question.ended(end), Err(error))
        }
    };
    slot.end(ended);
    reconciled
}

/// Ends the question with this fence: with a bound of zero, no process sees to the operation. It stays interrupted,
/// under a new fence.
fn no_more(fence: Fence) -> Transition {
    Transition::Inquire { fence, bound: Duration::ZERO }
}
