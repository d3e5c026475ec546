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
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::engine::{Ask, Engine, STORE_TIMEOUT};
use super::operations::Settling;
use super::policy::OnInterrupted;
use super::reconciler::{InterruptedRun, Reconciled, Reconciler};
use super::run::{Run, Work};
use super::settle::Later;
use super::verdict::Verdict;
use crate::fingerprint::Match;
use crate::key::RecordId;
use crate::record::{Applied, Fence, Record, Reply, Resolution, Transition};
use crate::slots::{End, Entered, Phase, Refusal, Slot};
use crate::store::{InterruptedRecord, Page, Store, StoreError};

/// How many operations are asked about at a time, and listed.
const AT_A_TIME: usize = 16;
const PAGE: usize = 1_024;

/// What became of the interrupted operations that the application was asked about.
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

/// What came of a question.
enum Consulted {
    /// It took place. To be recorded under this fence.
    Outcome(Fence, Bytes),
    /// It may run, in place of what this fence stands for.
    RunAgain(Fence),
    /// Somebody else settled it meanwhile, or it expired: whoever asks for it asks again.
    Gone,
    /// Nothing that could be done; this is what is to be said.
    Over(End),
}

impl<St: Store> Engine<St> {
    /// Who is to be asked about `record`, for this request.
    pub(super) fn reconciler(&self, ask: &Ask, record: &Record) -> Option<Reconciler> {
        let OnInterrupted::Reconcile(reconciler) = &self.policy.on_interrupted else { return None };
        let is_asked = record.is_interrupted() && record.fingerprint.compare(&ask.fingerprint) == Match::Same;
        is_asked.then(|| reconciler.clone())
    }

    /// Takes a new fence and asks.
    async fn consult(&self, reconciler: &Reconciler, ask: &Ask, record: &InterruptedRecord) -> Consulted {
        // To ask, and to record what is said.
        let bound = reconciler.patience().saturating_add(2 * STORE_TIMEOUT);
        let taking = self.store.apply(record.id, Transition::Inquire { fence: record.fence, bound });
        let fence = match timeout(STORE_TIMEOUT, taking).await {
            Ok(Ok(Applied { reply: Reply::Taken, record: Some(record) })) => record.fence,
            Ok(Ok(_)) => return Consulted::Gone,
            Ok(Err(error)) => return Consulted::Over(End::Refused(self.refusal(ask, &error))),
            Err(_) => {
                let error = StoreError::uncertain("the store has not answered in time");
                return Consulted::Over(End::Refused(self.refusal(ask, &error)));
            }
        };
        match reconciler.ask(InterruptedRun::new(record, fence)).await {
            Reconciled::Outcome(outcome) => Consulted::Outcome(fence, outcome),
            Reconciled::RunAgain => Consulted::RunAgain(fence),
            Reconciled::Unknown => Consulted::Over(End::Interrupted(ask.fingerprint)),
        }
    }

    /// Records what the application knew, and frees the slot.
    async fn settle_reconciled(&self, slot: Slot, fence: Fence, outcome: Bytes) -> Settling {
        let resolution = Resolution::Outcome { outcome, retention: self.policy.retention };
        let settling = self.settle_interrupted(slot, fence, resolution).await;
        if let Ok(Reply::Taken) = settling.settled {
            self.count(|tally| &tally.reconciled);
        }
        settling
    }

    /// Asks about all interrupted operations, and settles those whose outcome the application knows.
    pub(crate) async fn reconcile_all(self: &Arc<Self>) -> Result<Reconciliation, StoreError> {
        let mut sum = Reconciliation::default();
        let OnInterrupted::Reconcile(reconciler) = &self.policy.on_interrupted else { return Ok(sum) };
        // What takes longer goes on by itself, and counts as unknown: to look, to take a fence, to ask, to record.
        let patience = reconciler.patience().saturating_add(3 * STORE_TIMEOUT);
        let one = |record: InterruptedRecord| {
            let (reply, reconciled) = oneshot::channel();
            let (engine, reconciler) = (Arc::clone(self), reconciler.clone());
            self.spawn(Box::pin(async move {
                let (reconciled, later) = engine.reconcile_one(&reconciler, record.id).await;
                let _ = reply.send(reconciled);
                engine.see_through(later).await;
            }));
            async move { timeout(patience, reconciled).await }
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

    /// Asks about one operation. `None`: a retry came before and sees to it, or it is no longer interrupted. Says also what the
    /// store is still to be told.
    async fn reconcile_one(
        &self,
        reconciler: &Reconciler,
        id: RecordId,
    ) -> (Option<Reconciled<()>>, Option<(Transition, Later)>) {
        let Entered::Mine(slot) = self.store.slots().take(id, usize::MAX) else { return (None, None) };
        // Looked at under the slot: drain waits for slots taken before it said so.
        if self.store.slots().is_draining() {
            slot.end(End::Refused(Refusal::ShuttingDown));
            return (Some(Reconciled::Unknown), None);
        }
        let record = match timeout(STORE_TIMEOUT, self.store.load(id)).await {
            Ok(Ok(Some(record))) => record,
            // It has expired since it was listed.
            Ok(Ok(None)) => return (None, None),
            Ok(Err(_)) | Err(_) => return (Some(Reconciled::Unknown), None),
        };
        let Some(listed) = InterruptedRecord::of(id, &record) else {
            slot.end(End::Found(record));
            return (None, None);
        };
        let ask = Ask { id, fingerprint: record.fingerprint, is_within: false };
        slot.enter(Phase::Running(ask.fingerprint));
        let (end, reconciled) = match self.consult(reconciler, &ask, &listed).await {
            Consulted::Outcome(fence, outcome) => {
                let Settling { settled, later, .. } = self.settle_reconciled(slot, fence, outcome).await;
                let is_settled = matches!(settled, Ok(Reply::Taken));
                return (Some(if is_settled { Reconciled::Outcome(()) } else { Reconciled::Unknown }), later);
            }
            // There is no request to run. The record stays, and with it what a retry is told of this run.
            Consulted::RunAgain(_) => (End::Released(ask.fingerprint), Some(Reconciled::RunAgain)),
            Consulted::Gone => (End::Released(ask.fingerprint), None),
            Consulted::Over(end) => (end, Some(Reconciled::Unknown)),
        };
        slot.end(end);
        (reconciled, None)
    }
}

impl<St: Store> Run<St> {
    /// Asks the application about the run before this one, and answers, runs, or refuses.
    pub(super) async fn reconcile<W: Work<T>, T: Send>(
        self: Box<Self>,
        reconciler: Reconciler,
        record: Box<Record>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        let (engine, ask, known) = (Arc::clone(&self.engine), self.ask, Arc::clone(&self.known));
        let Some(listed) = InterruptedRecord::of(ask.id, &record) else { return };
        self.slot.enter(Phase::Running(ask.fingerprint));
        match engine.consult(&reconciler, &ask, &listed).await {
            Consulted::RunAgain(fence) => {
                let deadline = Instant::now() + STORE_TIMEOUT;
                let acquiring = engine.take_over(&ask, fence, &known, deadline);
                tokio::pin!(acquiring);
                match timeout_at(deadline, acquiring.as_mut()).await {
                    Ok(acquired) => self.proceed(acquired, work, reply).await,
                    Err(_) => self.stalled(work, reply, acquiring).await,
                }
            }
            Consulted::Outcome(fence, outcome) => {
                drop(work);
                let settling = engine.settle_reconciled(self.slot, fence, outcome);
                tokio::pin!(settling);
                let Settling { later, .. } = match timeout(STORE_TIMEOUT, settling.as_mut()).await {
                    Ok(settling) => {
                        let _ = reply.send(Verdict::of_end(settling.end.clone(), &ask.fingerprint));
                        settling
                    }
                    Err(_) => {
                        let _ = reply.send(Verdict::Refused(Refusal::Unavailable));
                        settling.await
                    }
                };
                engine.see_through(later).await;
            }
            Consulted::Gone => {
                drop(work);
                self.over(End::Released(ask.fingerprint), reply);
            }
            Consulted::Over(end) => {
                drop(work);
                self.over(end, reply);
            }
        }
    }

    /// Ends without a run, and says so.
    fn over<T>(self: Box<Self>, end: End, reply: oneshot::Sender<Verdict<T>>) {
        let verdict = Verdict::of_end(end.clone(), &self.ask.fingerprint);
        self.slot.end(end);
        let _ = reply.send(verdict);
    }
}
