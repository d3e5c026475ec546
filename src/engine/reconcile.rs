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
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::engine::{Engine, Presented};
use super::reconciler::{Reconciled, Reconciler};
use super::run::{Run, Work};
use super::verdict::Verdict;
use crate::fingerprint::Match;
use crate::key::RecordId;
use crate::observer::SettledBy;
use crate::record::{Applied, Fence, Record, Reply, Resolution, Transition};
use crate::slots::{Attempt, End, Ended, Entered, Phase, Refusal, Slot};
use crate::store::{InterruptedRun, Store, StoreError};
use crate::within::STORE_TIMEOUT;

impl<St: Store> Engine<St> {
    /// Returns the reconciler that is to be asked about `record` for this request, if there is one.
    pub(super) fn reconciler(
        &self,
        presented: &Presented,
        record: &Record,
    ) -> Option<(Reconciler<Bytes>, InterruptedRun)> {
        let reconciler = self.policy.reconciler.as_ref()?;
        if !record.is_interrupted() || record.fingerprint.compare(&presented.fingerprint) != Match::Same {
            return None;
        }
        Some((reconciler.clone(), InterruptedRun::of(presented.id, record)?))
    }

    /// Takes a new fence and asks. An error means that the application was not asked, and is the requester's answer.
    async fn consult(
        &self,
        reconciler: &Reconciler<Bytes>,
        presented: &Presented,
        record: &InterruptedRun,
    ) -> Result<(Fence, Reconciled<Bytes>), End> {
        // The bound covers the answer to this step, the question, and the recording of its reply.
        let bound = reconciler.limit().saturating_add(2 * STORE_TIMEOUT);
        let taking = self.store.apply(record.id, Transition::Inquire { fence: record.fence, bound });
        let taken = timeout(STORE_TIMEOUT, taking).await;
        let taken = taken.unwrap_or_else(|_| Err(StoreError::uncertain("the store has not answered in time")));
        match taken.map_err(|error| End::Refused(self.log_and_refuse(presented, &error)))? {
            Applied { reply: Reply::Taken, record: Some(Record { fence, .. }) } => {
                let asking = Asking { engine: self, id: record.id, fence, is_over: false };
                let said = reconciler.ask(InterruptedRun { fence, ..record.clone() }, self.lines()).await;
                asking.over();
                if matches!(said, Reconciled::StillUnknown) {
                    self.ask_no_more(record.id, fence).await;
                }
                Ok((fence, said))
            }
            // The operation was settled meanwhile, or its record expired: the requester asks again.
            _ => Err(End::Released),
        }
    }

    /// Lets other processes ask: their application may know more. Otherwise they would wait for the question's bound.
    pub(super) async fn ask_no_more(&self, id: RecordId, fence: Fence) {
        if !self.store.is_exclusive() {
            // If the store does not answer, the other processes wait.
            let _ = timeout(STORE_TIMEOUT, self.store.apply(id, no_more(fence))).await;
        }
    }

    /// Records the outcome that the application knew, and frees the slot.
    async fn settle_reconciled(
        self: &Arc<Self>,
        slot: Slot,
        fence: Fence,
        outcome: Bytes,
    ) -> (Result<Reply, StoreError>, Ended) {
        let (settled, ended) = self.settle_interrupted(slot, fence, Resolution::Outcome(outcome)).await;
        if let Ok(Reply::Taken) = settled {
            self.count(|tally| &tally.reconciled);
            self.count_settled(SettledBy::Reconciler);
        }
        (settled, ended)
    }

    /// Asks about one operation. Returns `None` if a retry came first and handles it, or if it is no longer
    /// interrupted, or not under this fence, if one is given.
    pub(crate) async fn reconcile_one(
        self: &Arc<Self>,
        reconciler: &Reconciler<Bytes>,
        id: RecordId,
        fence: Option<Fence>,
    ) -> Result<Option<Reconciled<()>>, StoreError> {
        // A question starts no handler, so no `max_runs` bounds it.
        let Entered::Mine(slot) = self.store.slots().take(id, usize::MAX, None) else { return Ok(None) };
        // This is read under the slot, because drain waits for slots that were taken before it began.
        if self.store.slots().is_draining() {
            slot.end(Refusal::ShuttingDown);
            return Err(StoreError::unavailable("the process is shutting down"));
        }
        let loaded = timeout(STORE_TIMEOUT, self.store.load(id)).await;
        // After an error, the drop of the slot refuses the requests that have met it.
        let loaded = loaded.map_err(|_| StoreError::unavailable("the store has not answered in time"))?;
        // Without a record, it has expired since it was listed.
        let Some(record) = loaded? else { return Ok(None) };
        let is_meant = fence.is_none_or(|fence| fence == record.fence);
        let Some(listed) = InterruptedRun::of(id, &record).filter(|_| is_meant) else {
            // Requests that have met the slot are answered from the record.
            slot.end(record);
            return Ok(None);
        };
        let presented =
            Presented { attempt: record.attempt, ..Presented::new(id, record.fingerprint, record.origin.clone()) };
        // Retries wait for the answer as they wait for a run.
        slot.show_phase(Phase::Running(presented.fingerprint));
        let (end, reconciled) = match self.consult(reconciler, &presented, &listed).await {
            Ok((fence, Reconciled::Outcome(outcome))) => {
                let (settled, _) = self.settle_reconciled(slot, fence, outcome).await;
                return settled.map(|reply| (reply == Reply::Taken).then_some(Reconciled::Outcome(())));
            }
            // There is no request to run. The record stays, so that the retry's run learns of the interrupted one.
            Ok((fence, Reconciled::RunAgain)) => {
                self.ask_no_more(id, fence).await;
                (End::Released, Ok(Some(Reconciled::RunAgain)))
            }
            Ok((_, Reconciled::StillUnknown)) => {
                (End::Interrupted { status: listed.status }, Ok(Some(Reconciled::StillUnknown)))
            }
            Err(End::Released) => (End::Released, Ok(None)),
            Err(end) => (end, Err(StoreError::uncertain("the store has taken no question about the operation"))),
        };
        slot.end(presented.ended(end));
        reconciled
    }
}

/// Lets other processes ask if the asker is dropped before it has an answer.
struct Asking<'a, St: Store> {
    engine: &'a Engine<St>,
    id: RecordId,
    /// The fence that was taken for the question.
    fence: Fence,
    /// Set once the application has answered.
    is_over: bool,
}

impl<St: Store> Asking<'_, St> {
    fn over(mut self) {
        self.is_over = true;
    }
}

impl<St: Store> Drop for Asking<'_, St> {
    fn drop(&mut self) {
        let store = &self.engine.store;
        if !self.is_over && !store.is_exclusive() {
            // The transition takes effect when it is called; no caller is left to wait for it.
            drop(store.apply(self.id, no_more(self.fence)));
        }
    }
}

/// Ends the question with this fence: with a bound of zero, no process sees to the operation. It stays interrupted,
/// under a new fence.
fn no_more(fence: Fence) -> Transition {
    Transition::Inquire { fence, bound: Duration::ZERO }
}

impl<St: Store> Run<St> {
    /// Asks the application about the run before this one; then answers, runs, or refuses.
    pub(super) fn reconcile<W: Work<T>, T: Send + 'static>(
        mut self: Box<Self>,
        reconciler: Reconciler<Bytes>,
        record: InterruptedRun,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (engine, presented) = (Arc::clone(&self.engine), self.presented.clone());
            self.slot.show_phase(Phase::Running(presented.fingerprint));
            let end = match engine.consult(&reconciler, &presented, &record).await {
                Ok((fence, Reconciled::RunAgain)) => {
                    // The question has used up the time that the first claim had.
                    self.deadline = Instant::now() + STORE_TIMEOUT;
                    return self.drive(Some(fence), work, reply).await;
                }
                Ok((fence, Reconciled::Outcome(outcome))) => {
                    drop(work);
                    let settling = engine.settle_reconciled(self.slot, fence, outcome);
                    tokio::pin!(settling);
                    match timeout(STORE_TIMEOUT, settling.as_mut()).await {
                        Ok((_, ended)) => drop(reply.send(ended.result_for(&presented.fingerprint).into())),
                        Err(_) => {
                            // Only the requester stops waiting. The slot is freed when the store has answered.
                            let _ = reply.send(Refusal::Unavailable.into());
                            let _ = settling.await;
                        }
                    }
                    return;
                }
                Ok((_, Reconciled::StillUnknown)) => End::Interrupted { status: record.status },
                Err(end) => end,
            };
            drop(work);
            let attempt = Attempt { number: record.attempt, origin: record.origin };
            self.over(Ended::new(presented.fingerprint, end).of(attempt), reply);
        })
    }
}
