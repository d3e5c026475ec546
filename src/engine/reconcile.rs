//! Asking the application about interrupted operations, and doing what it says.
//!
//! Rules:
//! 1. Whoever asks has the operation's slot: concurrent retries share one question.
//! 2. Before the question a new fence is taken, durably: what an earlier question is answered late counts for nothing.
//! 3. The record stays interrupted meanwhile, so that a process that dies while it asks changes nothing.
//! 4. Whoever asks is detached from its requester: a run, or a task of its own.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::engine::{Engine, Presented, STORE_TIMEOUT};
use super::reconciler::{Reconciled, Reconciler};
use super::run::{Run, Work};
use super::verdict::Verdict;
use crate::fingerprint::Match;
use crate::key::RecordId;
use crate::record::{Applied, Fence, Record, Reply, Resolution, Transition};
use crate::slots::{End, Ended, Entered, Phase, Refusal, Slot};
use crate::store::{InterruptedRun, Page, Store, StoreError};

/// How many operations are asked about at a time, and listed.
const AT_A_TIME: usize = 16;
const PAGE: usize = 1_024;

/// What became of the interrupted operations that the application was asked about.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reconciliation {
    /// They have an outcome now.
    pub settled: usize,
    /// They may run again, and will for whoever retries them. They stay interrupted until then.
    pub run_again: usize,
    /// Nobody knows yet, or the store failed, or the process is shutting down. They stay interrupted.
    pub unknown: usize,
}

impl<St: Store> Engine<St> {
    /// Who is to be asked about `record`, for this request.
    pub(super) fn reconciler(&self, presented: &Presented, record: &Record) -> Option<(Reconciler, InterruptedRun)> {
        let reconciler = self.policy.reconciler.as_ref()?;
        if !record.is_interrupted() || record.fingerprint.compare(&presented.fingerprint) != Match::Same {
            return None;
        }
        Some((reconciler.clone(), InterruptedRun::of(presented.id, record)?))
    }

    /// Takes a new fence and asks. An error: nobody was asked, and this is what is to be said.
    async fn consult(
        &self,
        reconciler: &Reconciler,
        presented: &Presented,
        record: &InterruptedRun,
    ) -> Result<(Fence, Reconciled), End> {
        // To ask, and to record what is said.
        let bound = reconciler.limit().saturating_add(2 * STORE_TIMEOUT);
        let taking = self.store.apply(record.id, Transition::Inquire { fence: record.fence, bound });
        let taken = timeout(STORE_TIMEOUT, taking).await;
        let taken = taken.unwrap_or_else(|_| Err(StoreError::uncertain("the store has not answered in time")));
        match taken.map_err(|error| End::Refused(self.refusal(presented, &error)))? {
            Applied { reply: Reply::Taken, record: Some(Record { fence, .. }) } => {
                Ok((fence, reconciler.ask(InterruptedRun { fence, ..*record }).await))
            }
            // Somebody else settled it meanwhile, or it expired: whoever asks for it asks again.
            _ => Err(End::Released),
        }
    }

    /// Records what the application knew, and frees the slot.
    async fn settle_reconciled(
        self: &Arc<Self>,
        slot: Slot,
        fence: Fence,
        outcome: Bytes,
    ) -> (Result<Reply, StoreError>, Ended) {
        let (settled, ended) = self.settle_interrupted(slot, fence, Resolution::Outcome(outcome)).await;
        if let Ok(Reply::Taken) = settled {
            self.count(|tally| &tally.reconciled);
        }
        (settled, ended)
    }

    /// Asks about all interrupted operations, and settles those whose outcome the application knows.
    pub(crate) async fn reconcile_all(self: &Arc<Self>) -> Result<Reconciliation, StoreError> {
        let mut sum = Reconciliation::default();
        let Some(reconciler) = &self.policy.reconciler else { return Ok(sum) };
        // What takes longer goes on by itself, and counts as unknown: to look, to take a fence, to ask, to record.
        let limit = reconciler.limit().saturating_add(3 * STORE_TIMEOUT);
        let one = |record: InterruptedRun| {
            let (reply, reconciled) = oneshot::channel();
            let (engine, reconciler) = (Arc::clone(self), reconciler.clone());
            self.spawn(Box::pin(async move {
                let _ = reply.send(engine.reconcile_one(&reconciler, record.id).await);
            }));
            async move { timeout(limit, reconciled).await }
        };
        let mut page = Page::first(PAGE);
        loop {
            let records = self.store.interrupted(page).await?;
            let Some(last) = records.last() else { return Ok(sum) };
            page.after = Some((last.since, last.id));
            let mut asked = futures_util::stream::iter(records).map(one).buffer_unordered(AT_A_TIME);
            while let Some(reconciled) = asked.next().await {
                match reconciled {
                    Ok(Ok(Some(Reconciled::Outcome(())))) => sum.settled += 1,
                    Ok(Ok(Some(Reconciled::RunAgain))) => sum.run_again += 1,
                    // A task that says nothing was dropped with its runtime.
                    Ok(Ok(Some(Reconciled::Unknown)) | Err(_)) | Err(_) => sum.unknown += 1,
                    Ok(Ok(None)) => {}
                }
            }
        }
    }

    /// Asks about one operation. `None`: a retry came before and sees to it, or it is no longer interrupted.
    async fn reconcile_one(self: &Arc<Self>, reconciler: &Reconciler, id: RecordId) -> Option<Reconciled<()>> {
        let Entered::Mine(slot) = self.store.slots().take(id, usize::MAX) else { return None };
        // Looked at under the slot: drain waits for slots taken before it said so.
        if self.store.slots().is_draining() {
            slot.end(Refusal::ShuttingDown);
            return Some(Reconciled::Unknown);
        }
        let record = match timeout(STORE_TIMEOUT, self.store.load(id)).await {
            Ok(Ok(Some(record))) => record,
            // It has expired since it was listed.
            Ok(Ok(None)) => return None,
            Ok(Err(_)) | Err(_) => return Some(Reconciled::Unknown),
        };
        let Some(listed) = InterruptedRun::of(id, &record) else {
            slot.end(record);
            return None;
        };
        let presented = Presented { id, fingerprint: record.fingerprint, is_within: false };
        slot.enter(Phase::Running(presented.fingerprint));
        let (end, reconciled) = match self.consult(reconciler, &presented, &listed).await {
            Ok((fence, Reconciled::Outcome(outcome))) => {
                let (settled, _) = self.settle_reconciled(slot, fence, outcome).await;
                return Some(match settled {
                    Ok(Reply::Taken) => Reconciled::Outcome(()),
                    Ok(Reply::Refused) | Err(_) => Reconciled::Unknown,
                });
            }
            // There is no request to run. The record stays, and with it what a retry is told of this run.
            Ok((_, Reconciled::RunAgain)) => (End::Released, Some(Reconciled::RunAgain)),
            Ok((_, Reconciled::Unknown)) => (End::Unknown { status: listed.status }, Some(Reconciled::Unknown)),
            Err(End::Released) => (End::Released, None),
            Err(end) => (end, Some(Reconciled::Unknown)),
        };
        slot.end(Ended::new(presented.fingerprint, end));
        reconciled
    }
}

impl<St: Store> Run<St> {
    /// Asks the application about the run before this one, and answers, runs, or refuses.
    pub(super) fn reconcile<W: Work<T>, T: Send + 'static>(
        mut self: Box<Self>,
        reconciler: Reconciler,
        record: InterruptedRun,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (engine, presented) = (Arc::clone(&self.engine), self.presented);
            self.slot.enter(Phase::Running(presented.fingerprint));
            let end = match engine.consult(&reconciler, &presented, &record).await {
                Ok((fence, Reconciled::RunAgain)) => {
                    self.deadline = Instant::now() + STORE_TIMEOUT;
                    return self.drive(Some(fence), work, reply).await;
                }
                Ok((fence, Reconciled::Outcome(outcome))) => {
                    drop(work);
                    let settling = engine.settle_reconciled(self.slot, fence, outcome);
                    tokio::pin!(settling);
                    match timeout(STORE_TIMEOUT, settling.as_mut()).await {
                        Ok((_, ended)) => drop(reply.send(ended.told(&presented.fingerprint).into())),
                        Err(_) => {
                            let _ = reply.send(Refusal::Unavailable.into());
                            let _ = settling.await;
                        }
                    }
                    return;
                }
                Ok((_, Reconciled::Unknown)) => End::Unknown { status: record.status },
                Err(end) => end,
            };
            drop(work);
            self.over(Ended::new(presented.fingerprint, end), reply);
        })
    }
}
