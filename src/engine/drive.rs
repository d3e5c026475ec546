//! The way of one run, detached from its requester: claim, ask, work, record, answer. A run whose task is aborted
//! records that on its drop.

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use scopeguard::{ScopeGuard, guard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::claim::{Claimant, Claimed};
use super::commitment::Commitment;
use super::context::{Rerun, RunContext};
use super::engine::source;
use super::late::Late;
use super::met::{self, Met};
use super::policy::{OnInterrupted, Policy};
use super::reconcile::Question;
use super::reconciler::Reconciled;
use super::record_end::UnsavedEnd;
use super::run::{Run, Work, Worked};
use super::send_end::PendingEnd;
use super::verdict::Verdict;
use crate::key::RecordId;
use crate::record::{Cause, Fence, Hold, Operation, Record, Reply, Stepped};
use crate::slots::{End, Ended, Event, Phase, Refusal, once_a_minute};
use crate::store::Store;
use crate::timeouts::{STORE_TIMEOUT, within};

/// What a run does next.
enum Next {
    /// It claims the operation: the one that was interrupted under this fence, about which the application said that it
    /// may run again, or any.
    Claim(Option<Fence>),
    /// It asks the application about the interrupted run before it.
    Ask(Box<Question>),
    /// It holds the operation: it does the work, and records its end.
    Work(Arc<Commitment>, Rerun),
}

/// A run, what it is to do, and where its verdict goes. If it is dropped, the work is dropped first, and then the slot.
struct Driven<St: Store, T> {
    work: Box<dyn Work<T>>,
    requester: oneshot::Sender<Verdict<T>>,
    run: Box<Run<St>>,
}

/// Claims, runs and records the operation. An outcome is sent to `requester` once it is durable, except by
/// `unsaved` and where the run goes ahead without the store.
///
/// Section 12 of `docs/design.md` says why this is no `async fn`.
pub(super) fn drive<St: Store, T: Send + 'static>(
    run: Box<Run<St>>,
    work: Box<dyn Work<T>>,
    requester: oneshot::Sender<Verdict<T>>,
) -> impl Future<Output = ()> + Send {
    let mut next = Some((Driven { work, requester, run }, Next::Claim(None)));
    async move {
        while let Some((driven, step)) = next {
            next = match step {
                Next::Claim(again) => driven.claim(again).await,
                Next::Ask(question) => Box::pin(driven.ask(question)).await,
                Next::Work(commitment, rerun) => {
                    driven.work(commitment, rerun).await;
                    None
                }
            };
        }
    }
}

impl<St: Store, T: Send + 'static> Driven<St, T> {
    /// Claims the operation. Returns `None` if nothing is left to do.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    fn claim(self, again: Option<Fence>) -> impl Future<Output = Option<(Self, Next)>> + Send {
        async move {
            let mut this = self;
            let Run { engine, operation, slot, is_within, deadline, .. } = &*this.run;
            // The session is read before the claim, so that the claim has this session or a later one.
            let session = engine.store.slots().lease.session();
            let (engine, operation, phase) = (Arc::clone(engine), operation.clone(), slot.phase());
            let claimant = Claimant { engine, operation, is_within: *is_within, phase, deadline: *deadline };
            let mut claiming = pin!(claimant.claim(again));
            let has_failed = match within(Some(this.run.deadline), claiming.as_mut()).await {
                Some(Ok(Claimed::Granted(operation, hold, rerun))) => {
                    let commitment = this.granted(operation, hold, session);
                    return Some((this, Next::Work(commitment, rerun)));
                }
                Some(Ok(Claimed::Met(record))) => return this.met(*record, again.is_some()),
                Some(Err(Refusal::Unavailable)) if this.run.fails_open() => true,
                Some(Err(refusal)) => return this.over(refusal),
                None => false,
            };
            let Self { work, requester, run } = this;
            // The claim has failed, and another one is made when the work is done; or it is still under way.
            match has_failed {
                true => {
                    let mut claiming = Box::pin(ready(Err(Refusal::Unavailable)));
                    let late = Late { run, session: None, claiming: claiming.as_mut() };
                    Box::pin(late.fail_open(work, requester)).await;
                }
                false => Box::pin(Late { run, session, claiming }.stalled(work, requester)).await,
            }
            None
        }
    }

    /// Makes the run one that holds its operation, as the record has it.
    fn granted(&mut self, operation: Operation, hold: Hold, session: Option<RecordId>) -> Arc<Commitment> {
        let run = &mut *self.run;
        (run.operation, run.attempt) = (operation, hold.attempt);
        let Policy { on_interrupted, .. } = run.engine.policy;
        let retention = run.engine.policy.kept();
        let (slots, operation) = (Arc::clone(run.engine.store.slots()), run.operation.clone());
        let (may_rerun, turn) = (on_interrupted == OnInterrupted::Rerun, run.slot.turn);
        Arc::new(Commitment::new(hold, operation, retention, slots, session, may_rerun, turn))
    }

    /// Asks about the record that the claim has met, or answers from it. `has_asked`: it was asked about already.
    fn met(self, record: Record, has_asked: bool) -> Option<(Self, Next)> {
        let Run { engine, operation: Operation { id, fingerprint, .. }, .. } = &*self.run;
        let met = Met { policy: &engine.policy, fingerprint, record: &record };
        if !has_asked && let Some(question) = met.question(*id) {
            return Some((self, Next::Ask(question)));
        }
        met.report_not_rerun(engine, id);
        let ended = met::ended(&engine.policy, fingerprint, engine.presented(record));
        self.over(ended)
    }

    /// Asks the application about the interrupted run.
    async fn ask(mut self, question: Box<Question>) -> Option<(Self, Next)> {
        self.run.slot.show_phase(Phase::Running(self.run.operation.fingerprint));
        match question.ask(&self.run.engine).await {
            Ok((fence, Reconciled::RunAgain)) => {
                // The question has used up the time that the first claim had.
                self.run.deadline = Instant::now() + STORE_TIMEOUT;
                Some((self, Next::Claim(Some(fence))))
            }
            Ok((fence, Reconciled::Outcome(outcome))) => {
                let Self { work, requester, run } = self;
                drop(work);
                let Run { engine, slot, .. } = *run;
                question.settle(engine, slot, fence, outcome, requester).await;
                None
            }
            Ok((_, Reconciled::StillUnknown)) => self.over(question.still_unknown()),
            Err(end) => self.over(question.ended(end)),
        }
    }

    /// Ends without a run, for the requester and the duplicates alike. The slot ends first, so that a client that was
    /// answered does not meet it again.
    fn over<N>(self, ended: impl Into<Ended>) -> Option<N> {
        let Self { work, requester, run } = self;
        drop(work);
        let Run { slot, operation, .. } = *run;
        let ended = ended.into();
        let verdict = ended.clone().result_for(&operation.fingerprint).into();
        slot.end(ended);
        let _ = requester.send(verdict);
        None
    }

    /// Does the work, records its end, and answers.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    fn work(self, commitment: Arc<Commitment>, rerun: Rerun) -> impl Future<Output = ()> + Send {
        async move {
            let Self { work, requester, mut run } = self;
            let guard = guard((), |()| aborted(&run, &commitment));
            let context = RunContext::new(rerun, Arc::clone(&commitment));
            // The claim was asked for this long before it would have been too late.
            let asked = Some(run.deadline - STORE_TIMEOUT);
            let Worked { end, verdict, ran } = run.work(work, context, commitment.session, asked).await;
            let decision = commitment.close().await;
            // From here on the run is not interrupted if this future is dropped.
            ScopeGuard::into_inner(guard);
            // If the run had a transaction, that decides how it has ended, and the store knows it.
            if let Some(end) = decision {
                return decided(run, &commitment, end, ran, requester);
            }
            let end = run.end_to_record(end);
            let sent = run.engine.telemetry().start();
            // From here on a dropped slot stays taken: the end may be readable and not durable.
            run.slot.begin_settling(run.engine.policy.kept());
            let hold = commitment.hold;
            let pending = match run.engine.record_end(&run.operation, hold, &end).await {
                // Another process took the operation over, or it was settled.
                Ok(Stepped { reply: Reply::Refused, record })
                    if matches!(end, End::Outcome(_) | End::Consumed { .. }) =>
                {
                    return superseded(run, record, ran, requester);
                }
                // A release or an interruption may be refused: the record that is there counts, and the answer stays.
                Ok(Stepped { reply: Reply::Refused, .. }) => None,
                Ok(_) => {
                    run.engine.telemetry().happened(Event::Recorded(sent));
                    None
                }
                Err(pending) => Some(pending),
            };
            run.report(&verdict, ran);
            if let Some(pending) = pending {
                return Box::pin(unsaved(run, hold, end, pending, verdict, requester)).await;
            }
            // First the waiters are answered and the slot is freed; then the requester is answered.
            run.end(end);
            let _ = requester.send(verdict);
        }
    }
}

/// Ends a run as its transaction has decided.
fn decided<St: Store, T>(
    run: Box<Run<St>>,
    commitment: &Commitment,
    end: End,
    ran: Duration,
    requester: oneshot::Sender<Verdict<T>>,
) {
    match end {
        End::Interrupted { cause } => run.engine.count_interrupted(cause),
        End::InDoubt => run.engine.count_interrupted(Cause::Unsaved),
        _ => {}
    }
    let verdict = Verdict::own_end(end.clone(), run.attempt());
    run.report(&verdict, ran);
    if end == End::InDoubt {
        // Until the retention is over, or until a restart, after which the store knows, no request with this key runs,
        // whatever `fail_open` says.
        let ended = run.ended(end);
        run.slot.remember(ended, commitment.retention);
        // If the writer has answered since `close`, this forgets the doubt.
        commitment.unsaved();
    } else {
        run.end(end);
    }
    let _ = requester.send(verdict);
}

/// Ends a run whose operation was taken over by another process, or settled, while it ran. The record that is there now
/// counts: the duplicates get it. This run's other effects are unknown, and so is the answer of its requester.
fn superseded<St: Store, T>(
    run: Box<Run<St>>,
    record: Option<Record>,
    ran: Duration,
    requester: oneshot::Sender<Verdict<T>>,
) {
    once_a_minute!(
        run.engine.lines().of("superseded"),
        error,
        record_id = run.operation.id.short(),
        cause = Cause::Lease.name(),
        "the operation was taken over or settled elsewhere while it ran; its outcome is not recorded"
    );
    run.engine.count_interrupted(Cause::Lease);
    let Worked { end, verdict, .. } = run.interrupted(Cause::Lease, ran);
    run.report(&verdict, ran);
    match record.map(|record| run.engine.presented(record)) {
        Some(record) => run.slot.end(record),
        None => run.end(end),
    }
    let _ = requester.send(verdict);
}

/// Gives the real answer although it could not be recorded, because the effect took place. This process keeps the
/// outcome until the store has it or its retention is over, so the operation does not run again. If there is no room
/// for it, retries are answered that it is unknown. After a restart the claim refuses retries, unless the policy is
/// `Rerun`: then there may be none.
async fn unsaved<St: Store, T: Send>(
    run: Box<Run<St>>,
    hold: Hold,
    end: End,
    pending: PendingEnd,
    verdict: Verdict<T>,
    requester: oneshot::Sender<Verdict<T>>,
) {
    let ended = match &end {
        // The store may still have the claim, so the key is not free yet.
        End::Released => Refusal::Unavailable.into(),
        end => run.ended(end.clone()),
    };
    let Run { engine, slot, operation, .. } = *run;
    engine.telemetry().happened(Event::Unsaved);
    once_a_minute!(
        engine.lines().of("unsaved"), error, record_id = operation.id.short(), error = %pending.error,
        source = source(&pending.error),
        "answered without a record: retries get the answer until this process ends; then they are refused, or run again \
         under on_interrupted = rerun"
    );
    let (unsaved, is_whole) = UnsavedEnd::keep(&engine, slot, ended);
    let _ = requester.send(verdict);
    let is_exclusive = engine.store.is_exclusive();
    let recorded = if is_whole || !is_exclusive {
        // Over a shared store the outcome may still be on its way. An interruption would overtake it.
        Err(pending)
    } else {
        // There is no room for the outcome: the store records only that the run is over.
        drop(pending);
        engine.record_end(&operation, hold, &End::Interrupted { cause: Cause::Unsaved }).await
    };
    unsaved.forget_once_recorded(recorded, is_exclusive).await;
}

/// Records that a run is interrupted whose task was aborted.
fn aborted<St: Store>(run: &Run<St>, commitment: &Commitment) {
    let Run { engine, slot, operation, .. } = run;
    engine.count_interrupted(Cause::Shutdown);
    once_a_minute!(
        engine.lines().of("stopped"),
        error,
        record_id = operation.id.short(),
        cause = Cause::Shutdown.name(),
        "the run was dropped before its handler ended"
    );
    // If a transaction is under way, the slot stays taken until the writer has answered.
    commitment.abandon(slot);
    let policy = engine.policy.claim_policy();
    let interruption = engine.interruption(operation, commitment.hold, policy, Cause::Shutdown);
    // The transition takes effect when it is called; no caller is left to wait for it.
    drop(engine.store.apply(operation.id, interruption));
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use bytes::Bytes;
    use tracing::Span;

    use super::*;
    use crate::engine::{Caller, Engine};
    use crate::fingerprint::Fingerprint;
    use crate::record::Origin;
    use crate::slots::Slots;
    use crate::store::contract::Records as _;
    use crate::test_util::{StoreCall, TestStore};

    /// Notes, at the moment of an answer, whether the slot is free.
    struct AtAnswer {
        slots: Arc<Slots>,
        id: RecordId,
        free: AtomicUsize,
        taken: AtomicUsize,
    }

    impl Wake for AtAnswer {
        fn wake(self: Arc<Self>) {
            let is_free = self.slots.look(&self.id).is_none();
            if is_free { &self.free } else { &self.taken }.fetch_add(1, Ordering::SeqCst);
        }
    }

    // On another thread, a client that was answered may send its next request before this one goes on.
    #[tokio::test]
    async fn a_slot_is_free_by_the_time_its_requester_is_answered() {
        for fails in [false, true] {
            let store = TestStore::new();
            if fails {
                store.fail_next(StoreCall::Claim);
            }
            let (id, slots) = (RecordId::from_bytes([1; 32]), Arc::clone(store.slots()));
            let operation = Operation { id, fingerprint: Fingerprint::of(b"m"), origin: Origin::default() };
            let engine = Arc::new(Engine { store: Arc::new(store), policy: Policy::default(), wrap_run: None });
            let work = |_| async { ((), End::Outcome(Bytes::new())) };
            let span = Span::none();
            let mut exchange = pin!(engine.exchange(&span, operation, Caller::default(), Box::new(work)));
            let noted = Arc::new(AtAnswer { slots, id, free: AtomicUsize::new(0), taken: AtomicUsize::new(0) });
            let waker = Waker::from(Arc::clone(&noted));
            let verdict = loop {
                if let Poll::Ready((verdict, _)) = exchange.as_mut().poll(&mut Context::from_waker(&waker)) {
                    break verdict;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(matches!(verdict, Verdict::Own(())), !fails);
            let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
            assert_eq!((count(&noted.free), count(&noted.taken)), (1, 0), "fails: {fails}");
        }
    }
}
