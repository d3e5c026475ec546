//! One run, detached from its requester: claim, work, record.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, select};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use super::commitment::{CommitResult, Commitment};
use super::context::{Rerun, RunContext};
use super::engine::{Engine, Presented, millis};
use super::event::Facts;
use super::policy::{OnInterrupted, Policy};
use super::verdict::Verdict;
use crate::key::RecordId;
use crate::observer::RunEnd;
use crate::panics::panic_message;
use crate::record::{Applied, Fence, Origin, Reply};
use crate::slots::{End, Ended, Phase, Slot, once_a_minute};
use crate::store::Store;
use crate::within::{STORE_TIMEOUT, within};

/// The work of a run. It is called once, and only for the request that runs. It returns its product and its end.
pub(crate) trait Work<T>: Send + 'static {
    /// Returns the origin of the operation, unless the request has it already. It is asked for before the claim, and
    /// only if the request may run.
    fn origin(&self) -> Option<Origin> {
        None
    }

    /// Begins the work. The future is boxed, because the futures of different work have different sizes.
    fn start(self, context: RunContext) -> BoxFuture<'static, (T, End)>;
}

impl<W, F, T> Work<T> for W
where
    W: FnOnce(RunContext) -> F + Send + 'static,
    F: Future<Output = (T, End)> + Send + 'static,
    T: Send,
{
    fn start(self, context: RunContext) -> BoxFuture<'static, (T, End)> {
        // The function may panic before it returns a future.
        Box::pin(async move { self(context).await })
    }
}

/// The work of a run, once it is over.
pub(super) struct Worked<T> {
    pub(super) end: End,
    /// The answer of its requester.
    pub(super) verdict: Verdict<T>,
    /// The time that it took.
    pub(super) ran: Duration,
}

/// A run, from the moment its slot was taken.
pub(super) struct Run<St: Store> {
    pub(super) engine: Arc<Engine<St>>,
    /// The slot of the operation. Its drop notifies the duplicates, however the run ends.
    pub(super) slot: Slot,
    /// The request. Once it is claimed, the fingerprint is the record's.
    pub(super) presented: Presented,
    /// The time by which the store has to answer.
    pub(super) deadline: Instant,
    /// The span of the exchange.
    pub(super) span: Span,
}

impl<St: Store> Run<St> {
    /// Claims, runs and records the operation. An outcome is sent to `reply` once it is durable, except by `unrecorded`
    /// and `unprotected`. `again` is the fence of an interrupted run about which the application was asked and said
    /// that it may run again.
    ///
    /// This future is allocated for each run. To keep it small, its steps are futures one after the other, which share
    /// their place, and the paths that are rarely taken are boxed.
    pub(super) async fn drive<W: Work<T>, T: Send + 'static>(
        self: Box<Self>,
        again: Option<Fence>,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        // The session is read before the claim, so that the claim has this session or a later one.
        let session = self.engine.store.slots().lease.session();
        let Some((run, acquired, work, reply)) = self.acquire(session, again, work, reply).await else { return };
        match acquired {
            Ok((commitment, rerun)) => run.run(commitment, rerun, work, reply).await,
            Err(met) => Box::pin(run.not_granted(met, again, work, reply)).await,
        }
    }

    /// Does the work and settles its end.
    async fn run<W: Work<T>, T: Send>(
        mut self: Box<Self>,
        commitment: Arc<Commitment>,
        rerun: Rerun,
        work: W,
        reply: oneshot::Sender<Verdict<T>>,
    ) {
        let guard = InterruptOnDrop { run: &self, commitment: &commitment, over: false };
        let context = RunContext::new(rerun, Arc::clone(&commitment));
        // The claim was asked for this long before it would have been too late.
        let asked = Some(self.deadline - STORE_TIMEOUT);
        let Worked { end, verdict, ran } = self.work(work, context, commitment.session, asked).await;
        match commitment.close().await {
            CommitResult::Nothing => {
                guard.over();
                let end = self.engine.count_and_judge(&self.presented, end);
                let is_done = matches!(end, End::Outcome(_) | End::Consumed { .. });
                let sent = self.engine.tally().start();
                let pending = match self.settle(&commitment.hold, &end).await {
                    // Another process took the operation over, or it was settled. `superseded` in `settle.rs` answers
                    // the requester that the outcome is unknown, and its duplicates by the record.
                    Ok(Applied { reply: Reply::Refused, record }) if is_done => {
                        return self.superseded(record, ran, reply);
                    }
                    // A release or an interruption may be refused: the record that is there counts, and the answer
                    // stays.
                    Ok(Applied { reply: Reply::Refused, .. }) => None,
                    Ok(_) => {
                        self.engine.count(|tally| &tally.recorded);
                        let tally = self.engine.tally();
                        tally.notify(|observer| sent.into_iter().for_each(|at| observer.recorded(at.elapsed())));
                        None
                    }
                    Err(pending) => Some(pending),
                };
                self.report(&verdict, ran);
                if let Some(pending) = pending {
                    return Box::pin(self.unrecorded(commitment.hold, end, pending, verdict, reply)).await;
                }
                // First the waiters are answered and the slot is freed; then the requester is answered.
                self.end(end);
                let _ = reply.send(verdict);
            }
            CommitResult::Committed(outcome) => {
                let verdict = Verdict::Committed(outcome.clone());
                self.report(&verdict, ran);
                guard.over();
                self.end(End::Outcome(outcome));
                let _ = reply.send(verdict);
            }
            CommitResult::RolledBack { is_free } => {
                guard.over();
                let (end, verdict) = if is_free {
                    (End::Released, Verdict::RolledBack)
                } else {
                    // Under another policy than `Rerun`, the run's other effects are unknown.
                    self.engine.count_interrupted();
                    (End::Interrupted { status: None }, Verdict::Interrupted(self.presented.origin.clone()))
                };
                self.report(&verdict, ran);
                self.end(end);
                let _ = reply.send(verdict);
            }
            CommitResult::Doubt => {
                self.engine.count_interrupted();
                guard.over();
                // Until the retention is over, or until a restart, after which the store knows, no request with this
                // key runs, whatever `fail_open` says.
                let retention = commitment.retention;
                let verdict = Verdict::InDoubt(self.presented.origin.clone());
                self.report(&verdict, ran);
                self.slot.remember(self.presented.ended(End::InDoubt), retention);
                // If the writer has answered since `close`, this forgets the doubt.
                commitment.remembered();
                let _ = reply.send(verdict);
            }
        }
    }

    /// Ends without a run and answers. The slot ends first, so that a client that was answered does not meet it again.
    pub(super) fn over<T>(self: Box<Self>, ended: impl Into<Ended>, reply: oneshot::Sender<Verdict<T>>) {
        let Self { slot, presented, .. } = *self;
        let ended = ended.into();
        let verdict = ended.clone().result_for(&presented.fingerprint).into();
        slot.end(ended);
        let _ = reply.send(verdict);
    }

    /// Passes the run's end to the duplicates, and frees the slot.
    pub(super) fn end(self: Box<Self>, end: End) {
        let Self { slot, presented, .. } = *self;
        slot.end(presented.ended(end));
    }

    /// Returns whether another process may run the operation again while this one still does: once the lease of this
    /// process is over, and if the policy does not refuse.
    fn may_be_taken_over(&self) -> bool {
        let Policy { on_interrupted, reconciler, .. } = &self.engine.policy;
        !self.engine.store.is_exclusive() && (*on_interrupted == OnInterrupted::Rerun || reconciler.is_some())
    }

    /// Calls the work, and returns how it ended, in whatever way. `asked` is when the claim was asked for, if it was
    /// granted.
    pub(super) async fn work<W: Work<T>, T: Send>(
        &self,
        work: W,
        context: RunContext,
        session: Option<RecordId>,
        asked: Option<Instant>,
    ) -> Worked<T> {
        self.engine.count(|tally| &tally.runs);
        self.slot.show_phase(Phase::Running(self.presented.fingerprint));
        let began = Instant::now();
        if let Some(asked) = asked {
            self.engine.tally().notify(|observer| observer.claimed(began.saturating_duration_since(asked)));
        }
        let deadline = began.checked_add(self.engine.policy.max_run);
        let mut working = pin!(within(deadline, AssertUnwindSafe(work.start(context)).catch_unwind()));
        // The time limit is checked first: work that wakes up after its limit takes no further step.
        let working = poll_fn(|cx| match deadline {
            Some(deadline) if deadline <= Instant::now() => Poll::Ready(None),
            _ => working.as_mut().poll(cx),
        });
        let result = self.unless_stopped(session, working).await;
        let ran = began.elapsed();
        self.engine.tally().notify(|observer| observer.ran(run_end(&result), ran));
        if !self.span.is_disabled() {
            self.span.record("ran_ms", millis(ran));
        }
        let (lines, id) = (self.engine.lines(), || self.presented.id.short());
        match result {
            Some(Some(Ok((answer, end)))) => return Worked { end, verdict: Verdict::Answered(answer), ran },
            Some(Some(Err(panic))) => {
                let panic = panic_message(&*panic);
                once_a_minute!(lines.panicked, error, record_id = id(), panic, "the handler panicked");
            }
            Some(None) => once_a_minute!(lines.too_long, error, record_id = id(), "the handler exceeded max_run"),
            // `unless_stopped` has logged it.
            None => {}
        }
        self.interrupted(ran)
    }

    /// Returns the end of a run of which it is unknown how it ended.
    pub(super) fn interrupted<T>(&self, ran: Duration) -> Worked<T> {
        let verdict = Verdict::Interrupted(self.presented.origin.clone());
        Worked { end: End::Interrupted { status: None }, verdict, ran }
    }

    /// Continues the work of a run that was claimed in `session`. Returns `None` if the run had to stop first, because
    /// another process may run it again.
    pub(super) async fn unless_stopped<F: Future>(&self, session: Option<RecordId>, working: F) -> Option<F::Output> {
        // Without a lease, or where the policy refuses, no other process runs the operation meanwhile.
        let Some(session) = session.filter(|_| self.may_be_taken_over()) else { return Some(working.await) };
        // The lease is checked first: a run that wakes up after its lease takes no further step.
        match Box::pin(select(Box::pin(self.must_stop(session)), Box::pin(working))).await {
            Either::Right((result, _)) => Some(result),
            Either::Left((reason, _)) => {
                once_a_minute!(
                    self.engine.lines().stopped,
                    error,
                    record_id = self.presented.id.short(),
                    reason,
                    "the handler is dropped, and another process may run it again"
                );
                None
            }
        }
    }

    /// Waits until a run has to stop that another process may run again, and returns why.
    async fn must_stop(&self, session: RecordId) -> &'static str {
        let slots = self.engine.store.slots();
        match select(pin!(slots.lease.nearly_over(session)), pin!(slots.stopped())).await {
            Either::Left(_) => "the lease of this process is not renewed",
            Either::Right(_) => "this process shuts down",
        }
    }

    /// Reports the verdict of this run, whose handler took this long.
    pub(super) fn report<T>(&self, verdict: &Verdict<T>, ran: Duration) {
        let Self { engine, presented, span, .. } = self;
        let facts =
            Facts { id: Some(&presented.id), attempt: Some(&presented.attempt()), ran: Some(ran), waited: None };
        engine.report(span, verdict.name(), facts);
    }
}

/// Returns how a handler ended, for the observer.
fn run_end<T>(result: &Option<Option<std::thread::Result<(T, End)>>>) -> RunEnd {
    match result {
        None => RunEnd::Stopped,
        Some(None) => RunEnd::TooLong,
        Some(Some(Err(_))) => RunEnd::Panicked,
        Some(Some(Ok((_, end)))) => match end {
            End::Outcome(_) => RunEnd::Completed,
            End::Consumed { .. } => RunEnd::NotReplayable,
            End::Released => RunEnd::Released,
            // Work ends in no other way.
            _ => RunEnd::Unknown,
        },
    }
}

/// Records that a run was interrupted if it is dropped: its task was aborted, or its runtime is gone.
struct InterruptOnDrop<'a, St: Store> {
    run: &'a Run<St>,
    commitment: &'a Commitment,
    /// Set once the end of the run is known; the drop then does nothing.
    over: bool,
}

impl<St: Store> InterruptOnDrop<'_, St> {
    fn over(mut self) {
        self.over = true;
    }
}

impl<St: Store> Drop for InterruptOnDrop<'_, St> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let Run { engine, slot, presented, .. } = self.run;
        engine.count_interrupted();
        // If a transaction is under way, the slot stays taken until the writer has answered.
        self.commitment.abandon(slot);
        let hold = &self.commitment.hold;
        // The transition takes effect when it is called; no caller is left to wait for it.
        drop(engine.store.apply(hold.id, engine.interruption(presented, engine.policy.claim_policy(), hold, None)));
    }
}

#[cfg(all(test, feature = "shared", feature = "test-util"))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::store::Records as _;
    use crate::store::test_store::TestStore;
    use tracing::Span;

    // When a stopped process wakes up, two futures are ready: the handler, whose next step may be the charge, and the
    // one that ends the run.
    #[tokio::test(start_paused = true)]
    async fn trap_114_a_run_whose_lease_or_time_is_over_takes_no_further_step() {
        const SHORT: Duration = Duration::from_secs(30);
        const LONG: Duration = Duration::from_secs(3_600);
        for (lease, max_run) in [(SHORT, LONG), (LONG, SHORT)] {
            assert!(!charges_after_standing_still(lease, max_run, SHORT * 2).await);
        }
        assert!(charges_after_standing_still(LONG, LONG, SHORT * 2).await);
    }

    /// Returns whether a handler takes its next step after its process was paused for `still`.
    async fn charges_after_standing_still(lease: Duration, max_run: Duration, still: Duration) -> bool {
        let store = TestStore::new().another_process();
        let session = RecordId::from_bytes([1; 32]);
        store.slots().lease.hold(session, Instant::now() + lease, lease / 6);
        let mut policy = Policy { max_run, ..Policy::default() };
        policy.set_on_interrupted(OnInterrupted::Rerun);
        let engine = Arc::new(Engine { store: Arc::new(store), policy, wrap_run: None });
        let charged = Arc::new(AtomicBool::new(false));
        let charges = Arc::clone(&charged);
        let work = move |_| async move {
            sleep(still / 2).await;
            charges.store(true, Ordering::SeqCst);
            ((), End::Outcome(Bytes::new()))
        };
        let presented = Presented::new(session, Fingerprint::of(b"m"), Origin::default());
        let running = tokio::spawn(async move { engine.exchange(&Span::none(), presented, work).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        advance(still).await;
        let Ok((verdict, _)) = running.await else { panic!("the run does not panic") };
        assert_eq!(charged.load(Ordering::SeqCst), matches!(verdict, Verdict::Answered(())));
        charged.load(Ordering::SeqCst)
    }
}
