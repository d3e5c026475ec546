//! Asking the application about interrupted operations, and doing what it says.
//!
//! Rules:
//! 1. Whoever asks has the operation's slot: concurrent retries share one question.
//! 2. Before the question a new fence is taken, durably: what an earlier question is answered late counts for nothing.
//! 3. The record stays interrupted meanwhile, so that a process that dies while it asks changes nothing.
//! 4. Whoever asks is detached from its requester: a run, or a task of its own.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::context::RunContext;
use super::engine::{Ask, Engine, STORE_TIMEOUT};
use super::policy::OnInterrupted;
use super::reconciler::{InterruptedRun, Reconciled, Reconciler};
use super::resolve::{self, Settling, Unsure};
use super::run::Run;
use super::verdict::{Finished, Verdict};
use crate::fingerprint::Match;
use crate::key::RecordId;
use crate::record::{Fence, Record, Resolution, Settled, State};
use crate::slots::{End, Entered, Phase, Refusal, Slot};
use crate::store::{InterruptedRecord, Store, StoreError};

/// How many operations are asked about at a time.
const AT_A_TIME: usize = 16;

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

/// What one question has come to, for the sum.
enum Answer {
    Settled,
    RunAgain,
    Unknown,
}

/// What became of an operation that nobody retried.
enum Asked {
    /// Its outcome is to be recorded under this fence.
    Outcome(Slot, Fence, Bytes),
    /// There is nothing more to be done.
    Over(Option<Answer>),
}

impl<St: Store> Engine<St> {
    /// Who is to be asked about `record`, for this request.
    pub(super) fn reconciler(&self, ask: &Ask, record: &Record) -> Option<Reconciler> {
        let OnInterrupted::Reconcile(reconciler) = &self.policy.on_interrupted else { return None };
        let is_asked = matches!(record.state, State::Interrupted { .. })
            && record.fingerprint.compare(&ask.fingerprint) == Match::Same;
        is_asked.then(|| reconciler.clone())
    }

    /// Takes a new fence and asks.
    async fn consult(&self, reconciler: &Reconciler, ask: &Ask, record: &InterruptedRecord) -> Consulted {
        let taking = timeout(STORE_TIMEOUT, self.store.inquire(record.id, record.fence));
        let taken = taking.await.unwrap_or_else(|_| Err(StoreError::uncertain("the store has not answered in time")));
        let fence = match taken {
            Ok(Some(fence)) => fence,
            Ok(None) => return Consulted::Gone,
            Err(error) => return Consulted::Over(End::Refused(self.refusal(ask, &error))),
        };
        match reconciler.ask(InterruptedRun::new(record, fence)).await {
            Reconciled::Outcome(outcome) => Consulted::Outcome(fence, outcome),
            Reconciled::RunAgain => Consulted::RunAgain(fence),
            Reconciled::Unknown => Consulted::Over(End::Interrupted(ask.fingerprint)),
        }
    }

    /// Records what the application knew, and frees the slot.
    async fn settle_reconciled(&self, slot: Slot, fence: Fence, outcome: Bytes) -> Settling<St> {
        let resolution = Resolution::Outcome { outcome, retention: self.policy.retention };
        let settling = resolve::settle(Arc::clone(&self.store), slot, fence, resolution, self.policy.retention).await;
        if let Ok(Settled::Done) = settling.settled {
            self.count(|tally| &tally.reconciled);
        }
        settling
    }

    /// Asks about all interrupted operations, and settles those whose outcome the application knows.
    pub(crate) async fn reconcile_all(self: &Arc<Self>) -> Result<Reconciliation, StoreError> {
        let mut sum = Reconciliation::default();
        let OnInterrupted::Reconcile(reconciler) = &self.policy.on_interrupted else { return Ok(sum) };
        let records = self.store.interrupted(usize::MAX, None).await?;
        // What takes longer goes on by itself, and counts as unknown: to look, to take a fence, to ask, to record.
        let patience = reconciler.patience().saturating_add(3 * STORE_TIMEOUT);
        let one = |record: InterruptedRecord| {
            let (reply, reconciled) = oneshot::channel();
            let (engine, reconciler) = (Arc::clone(self), reconciler.clone());
            self.spawn(Box::pin(async move {
                let (answer, unsure) = engine.reconcile_one(&reconciler, record.id).await;
                let _ = reply.send(answer);
                Unsure::ends(unsure).await;
            }));
            async move { timeout(patience, reconciled).await }
        };
        let mut all = futures_util::stream::iter(records).map(one).buffer_unordered(AT_A_TIME);
        while let Some(reconciled) = all.next().await {
            match reconciled {
                Ok(Ok(Some(Answer::Settled))) => sum.settled += 1,
                Ok(Ok(Some(Answer::RunAgain))) => sum.run_again += 1,
                // A task that says nothing was dropped with its runtime.
                Ok(Ok(Some(Answer::Unknown)) | Err(_)) | Err(_) => sum.unknown += 1,
                Ok(Ok(None)) => {}
            }
        }
        Ok(sum)
    }

    /// Asks about one operation. `None`: a retry came before and sees to it, or it is no longer interrupted.
    async fn reconcile_one(&self, reconciler: &Reconciler, id: RecordId) -> (Option<Answer>, Option<Unsure<St>>) {
        let Entered::Mine(slot) = self.store.slots().take(id, usize::MAX) else { return (None, None) };
        match self.ask_about(reconciler, slot).await {
            Asked::Over(answer) => (answer, None),
            Asked::Outcome(slot, fence, outcome) => {
                let Settling { settled, unsure, .. } = self.settle_reconciled(slot, fence, outcome).await;
                let done = matches!(settled, Ok(Settled::Done));
                (Some(if done { Answer::Settled } else { Answer::Unknown }), unsure)
            }
        }
    }

    /// Looks at an operation and asks, under its slot.
    async fn ask_about(&self, reconciler: &Reconciler, slot: Slot) -> Asked {
        let id = slot.id();
        // Looked at under the slot: drain waits for slots taken before it said so.
        if self.store.slots().is_draining() {
            slot.end(End::Refused(Refusal::ShuttingDown));
            return Asked::Over(Some(Answer::Unknown));
        }
        let record = match timeout(STORE_TIMEOUT, self.store.load(id)).await {
            Ok(Ok(Some(record))) => record,
            // It has expired since it was listed.
            Ok(Ok(None)) => return Asked::Over(None),
            Ok(Err(_)) | Err(_) => return Asked::Over(Some(Answer::Unknown)),
        };
        let Some(listed) = InterruptedRecord::of(id, &record) else {
            slot.end(End::Found(record));
            return Asked::Over(None);
        };
        let ask = Ask { id, fingerprint: record.fingerprint, is_within: false };
        slot.enter(Phase::Running(ask.fingerprint));
        match self.consult(reconciler, &ask, &listed).await {
            Consulted::Outcome(fence, outcome) => Asked::Outcome(slot, fence, outcome),
            // There is no request to run. The record stays, and with it what a retry is told of this run.
            Consulted::RunAgain(_) => {
                slot.end(End::Released(ask.fingerprint));
                Asked::Over(Some(Answer::RunAgain))
            }
            Consulted::Gone => {
                slot.end(End::Released(ask.fingerprint));
                Asked::Over(None)
            }
            Consulted::Over(end) => {
                slot.end(end);
                Asked::Over(Some(Answer::Unknown))
            }
        }
    }
}

impl<St: Store> Run<St> {
    /// Asks the application about the run before this one, and answers, runs, or refuses.
    pub(super) async fn reconcile<W, F, T>(
        self: Box<Self>,
        reconciler: Reconciler,
        record: Box<Record>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) where
        W: FnOnce(RunContext) -> F + Send,
        F: Future<Output = Finished<T>> + Send,
        T: Send,
    {
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
                let settling = match timeout(STORE_TIMEOUT, settling.as_mut()).await {
                    Ok(settling) => {
                        let _ = reply.send(Verdict::of_end(settling.end.clone(), &ask.fingerprint));
                        settling
                    }
                    Err(_) => {
                        let _ = reply.send(Verdict::Refused(Refusal::Unavailable));
                        settling.await
                    }
                };
                Unsure::ends(settling.unsure).await;
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
