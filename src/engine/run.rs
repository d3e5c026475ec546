//! One run, detached from whoever asked for it: claim, work, record.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use super::claim::Acquired;
use super::commitment::{Commitment, Committed};
use super::context::{Rerun, RunContext};
use super::engine::{Ask, Engine, STORE_TIMEOUT, millis};
use super::verdict::{Ended, Finished, Verdict};
use crate::record::{Applied, Hold, Reply, Transition};
use crate::slots::{End, Phase, Refusal, Slot};
use crate::store::Store;
use crate::within::within;

/// What a run does: called once, and only for the request that runs.
pub(crate) trait Work<T>: Send + 'static {
    /// Begins it. Boxed: it comes in all sizes.
    fn start(self, context: RunContext) -> BoxFuture<'static, Finished<T>>;
}

impl<W, F, T> Work<T> for W
where
    W: FnOnce(RunContext) -> F + Send + 'static,
    F: Future<Output = Finished<T>> + Send + 'static,
    T: Send,
{
    fn start(self, context: RunContext) -> BoxFuture<'static, Finished<T>> {
        // It may panic itself, before there is a future.
        Box::pin(async move { self(context).await })
    }
}

/// A run, from the moment its slot was taken.
pub(super) struct Run<St: Store> {
    pub(super) engine: Arc<Engine<St>>,
    pub(super) slot: Slot,
    pub(super) ask: Ask,
    /// Whether a record was seen for it: then it is not run unprotected.
    pub(super) known: Arc<AtomicBool>,
    /// Until when the store has to answer.
    pub(super) deadline: Instant,
    /// What is told of it.
    pub(super) span: Span,
}

impl<St: Store> Run<St> {
    /// Does everything. What goes to `reply` is said only after it is durable.
    ///
    /// Its future is allocated for each run, and moved. So it is kept small: the run is boxed, as an `async fn` keeps its
    /// arguments twice, and so is what rarely happens.
    pub(super) async fn drive<W: Work<T>, T: Send>(self: Box<Self>, work: W, reply: oneshot::Sender<Verdict<T>>) {
        let Some((run, acquired, work, reply)) = self.acquire(work, reply).await else { return };
        if let Acquired::Found(record) = &acquired
            && let Some(reconciler) = run.engine.reconciler(&run.ask, record)
        {
            return Box::pin(run.reconcile(reconciler, record.clone(), work, reply)).await;
        }
        run.proceed(acquired, work, reply).await;
    }

    /// Asks for the operation. `None`: that took too long, and all was said and done.
    async fn acquire<W: Work<T>, T: Send>(
        self: Box<Self>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) -> Option<(Box<Self>, Acquired, W, oneshot::Sender<Verdict<T>>)> {
        let (engine, ask, known) = (Arc::clone(&self.engine), self.ask, Arc::clone(&self.known));
        let acquiring = engine.acquire(&ask, &known, self.deadline);
        tokio::pin!(acquiring);
        match within(Some(self.deadline), acquiring.as_mut()).await {
            Some(acquired) => Some((self, acquired, work, reply)),
            None => {
                Box::pin(self.stalled(work, reply, acquiring)).await;
                None
            }
        }
    }

    /// Runs, or answers from what was found.
    pub(super) async fn proceed<W: Work<T>, T: Send>(
        self: Box<Self>,
        acquired: Acquired,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        match acquired {
            Acquired::Run(hold, rerun) => self.run(hold, rerun, work, reply).await,
            Acquired::Found(record) => {
                // First the slot, so that who is answered doesn't meet it again.
                drop(work);
                let verdict = Verdict::of_record((*record).clone(), &self.ask.fingerprint);
                self.slot.end(End::Found(*record));
                let _ = reply.send(verdict);
            }
            Acquired::Refused(Refusal::Unavailable) if self.fails_open() => {
                Box::pin(self.unprotected(work, reply)).await.end();
            }
            Acquired::Refused(refusal) => {
                drop(work);
                self.slot.end(End::Refused(refusal));
                let _ = reply.send(Verdict::Refused(refusal));
            }
        }
    }

    /// Works, and settles what came of it.
    async fn run<W: Work<T>, T: Send>(
        mut self: Box<Self>,
        hold: Hold,
        rerun: Rerun,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        let slots = Arc::clone(self.engine.store.slots());
        let retention = self.engine.policy.retention;
        let turn = self.slot.turn();
        let commitment = Arc::new(Commitment::new(hold, self.ask.fingerprint, retention, slots, turn));
        let context = RunContext::new(rerun, Arc::clone(&commitment));
        let cut = Cut { run: &self, commitment: &commitment, over: false };
        let (ended, verdict) = self.work(work, context).await;
        match commitment.close().await {
            Committed::Nothing => {
                cut.over();
                let ended = self.engine.judged(&self.ask, ended);
                let told = self.settle(&commitment.hold, &ended).await;
                if let (Ok(Applied { reply: Reply::Refused, record }), Ended::Outcome(_) | Ended::Consumed { .. }) =
                    (&told, &ended)
                {
                    return self.superseded(record.clone(), reply);
                }
                self.says(&verdict);
                if let Err(error) = told {
                    return Box::pin(self.unrecorded(commitment.hold, ended, error, verdict, reply)).await;
                }
                // The waiters are told, the slot is freed, and then the requester is answered.
                let Self { slot, ask, .. } = *self;
                slot.end(end_of(ended, &ask));
                let _ = reply.send(verdict);
            }
            Committed::Outcome(outcome) => {
                let verdict = Verdict::Committed(outcome.clone());
                self.says(&verdict);
                cut.over();
                self.slot.end(End::Completed(self.ask.fingerprint, outcome));
                let _ = reply.send(verdict);
            }
            Committed::InDoubt => {
                self.engine.count(|tally| &tally.interrupted);
                cut.over();
                // Until its time is over, or a restart, when the store knows, nothing runs for it, whatever `fail_open` says.
                self.slot.remember(End::InDoubt(self.ask.fingerprint), retention);
                commitment.remembered();
                let _ = reply.send(Verdict::InDoubt);
            }
        }
    }

    /// The claim takes too long. The requester is told so now; the slot is kept until the store has answered, so that
    /// what it answers can be undone.
    pub(super) async fn stalled<W: Work<T>, T: Send>(
        self: Box<Self>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
        acquiring: impl Future<Output = Acquired> + Send,
    ) {
        let fail_open = self.fails_open();
        tracing::error!(
            target: "tower_idempotency", record_id = self.ask.id.short(), fail_open,
            "the store has not answered in {STORE_TIMEOUT:?}"
        );
        if fail_open {
            let unprotected = self.unprotected(work, reply).await;
            if let Acquired::Run(hold, _) = acquiring.await {
                // It ran, though not under this claim.
                let interrupt = Transition::Interrupt { fence: hold.fence, status: None };
                let _ = unprotected.run.engine.store.apply(hold.id, interrupt).await;
            }
            unprotected.end();
            return;
        }
        drop(work);
        self.slot.enter(Phase::Stalled);
        let _ = reply.send(Verdict::Refused(Refusal::Unavailable));
        if let Acquired::Run(hold, rerun) = acquiring.await {
            self.give_back(&hold, rerun).await;
        }
        self.slot.end(End::Refused(Refusal::Unavailable));
    }

    /// Whether it may go ahead without the store.
    fn fails_open(&self) -> bool {
        self.engine.fails_open() && !self.known.load(Ordering::Relaxed)
    }

    /// Calls the work and says how it ended, whatever it does, and what its requester is told.
    async fn work<W: Work<T>, T: Send>(&self, work: W, context: RunContext) -> (Ended, Verdict<T>) {
        self.engine.count(|tally| &tally.runs);
        self.slot.enter(Phase::Running(self.ask.fingerprint));
        let began = Instant::now();
        let working = AssertUnwindSafe(work.start(context)).catch_unwind();
        let result = within(began.checked_add(self.engine.policy.max_run), working).await;
        self.span.record("ran_ms", millis(began.elapsed()));
        match result {
            Some(Ok(Finished { answer, ended })) => (ended, Verdict::Answered(answer)),
            Some(Err(_)) => self.cut_short("the handler panicked"),
            None => self.cut_short("the handler exceeded max_run"),
        }
    }

    pub(super) fn says<T>(&self, verdict: &Verdict<T>) {
        self.span.record("outcome", verdict.name());
    }

    fn cut_short<T>(&self, why: &str) -> (Ended, Verdict<T>) {
        tracing::error!(target: "tower_idempotency", record_id = self.ask.id.short(), "{why}");
        (Ended::Unknown { status: None }, Verdict::CutShort)
    }

    /// Runs without a store, as `fail_open` says. Whoever is there meanwhile shares the outcome; it is not remembered.
    async fn unprotected<W: Work<T>, T: Send>(
        self: Box<Self>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) -> Unprotected<St> {
        self.engine.count(|tally| &tally.unprotected);
        tracing::warn!(
            target: "tower_idempotency", record_id = self.ask.id.short(),
            "the store is away and fail_open is set: the handler runs unprotected"
        );
        let (context, over) = RunContext::unprotected(self.ask.id);
        let (ended, verdict) = self.work(work, context).await;
        drop(over);
        self.says(&verdict);
        let _ = reply.send(verdict);
        Unprotected { run: self, ended }
    }
}

/// A run without a store that is over and has still its slot.
struct Unprotected<St: Store> {
    run: Box<Run<St>>,
    ended: Ended,
}

impl<St: Store> Unprotected<St> {
    fn end(self) {
        let Run { slot, ask, .. } = *self.run;
        slot.end(end_of(self.ended, &ask));
    }
}

/// What the waiters of a run are told that ended so.
pub(super) fn end_of(ended: Ended, ask: &Ask) -> End {
    match ended {
        Ended::Outcome(outcome) => End::Completed(ask.fingerprint, outcome),
        Ended::Consumed { status } => End::Consumed(ask.fingerprint, status),
        Ended::Released => End::Released(ask.fingerprint),
        Ended::Unknown { .. } => End::Interrupted(ask.fingerprint),
    }
}

/// Says that a run was cut short if it is dropped: its task was aborted, or its runtime is gone.
struct Cut<'a, St: Store> {
    run: &'a Run<St>,
    commitment: &'a Commitment,
    over: bool,
}

impl<St: Store> Cut<'_, St> {
    fn over(mut self) {
        self.over = true;
    }
}

impl<St: Store> Drop for Cut<'_, St> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let Run { engine, slot, .. } = self.run;
        engine.count(|tally| &tally.interrupted);
        self.commitment.abandon(slot);
        let Hold { id, fence, .. } = self.commitment.hold;
        // Takes effect when it is called; there is nobody left to wait for it.
        drop(engine.store.apply(id, Transition::Interrupt { fence, status: None }));
    }
}
