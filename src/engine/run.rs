//! A run, from the moment its slot was taken: calls the work, within its bounds. Once that is done, it says which end
//! is recorded, reports the run, and frees the slot with its end.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, select};
use tokio::time::Instant;
use tracing::Span;

use super::context::RunContext;
use super::engine::{Engine, millis};
use super::event::Facts;
use super::policy::{OnInterrupted, Policy};
use super::verdict::Verdict;
use crate::key::RecordId;
use crate::observer::RunEnd;
use crate::panics::panic_message;
use crate::record::{Cause, Operation, Origin};
use crate::slots::{Attempt, End, Ended, Event, Phase, Slot, once_a_minute};
use crate::store::Store;
use crate::timeouts::within;

/// The work of a run. It is called once, and only for the request that runs. It returns its product and its end.
///
/// The engine has it as `dyn Work<T>`: its code is compiled for each product, and not for each service and each effect.
pub(crate) trait Work<T>: Send + 'static {
    /// Returns the origin of the operation, unless the request has it already. It is asked for before the claim, and
    /// only if the request may run.
    fn origin(&self) -> Option<Origin> {
        None
    }

    /// Begins the work.
    fn start(self: Box<Self>, context: RunContext) -> BoxFuture<'static, (T, End)>;
}

impl<W, F, T> Work<T> for W
where
    W: FnOnce(RunContext) -> F + Send + 'static,
    F: Future<Output = (T, End)> + Send + 'static,
    T: Send,
{
    fn start(self: Box<Self>, context: RunContext) -> BoxFuture<'static, (T, End)> {
        Box::pin(self(context))
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
    /// The operation, as the request names it. Once it is claimed, it is as the record has it.
    pub(super) operation: Operation,
    /// The number of the attempt that was claimed; 0 before that.
    pub(super) attempt: u32,
    /// `true` if a run that is still under way has sent the request.
    pub(super) is_within: bool,
    /// The time by which the store has to answer.
    pub(super) deadline: Instant,
    /// The span of the exchange.
    pub(super) span: Span,
}

impl<St: Store> Run<St> {
    /// Calls the work, and returns how it ended, in whatever way. `asked` is when the claim was asked for, if it was
    /// granted.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: Box<dyn Work<T>>,
        context: RunContext,
        session: Option<RecordId>,
        asked: Option<Instant>,
    ) -> Worked<T> {
        self.engine.count(|counters| &counters.runs);
        self.slot.show_phase(Phase::Running(self.operation.fingerprint));
        let began = Instant::now();
        if let Some(asked) = asked {
            self.engine.telemetry().happened(Event::Claimed(asked));
        }
        let deadline = began.checked_add(self.engine.policy.max_run);
        // The work may panic before it returns a future.
        let working = AssertUnwindSafe(async move { work.start(context).await }).catch_unwind();
        let mut working = pin!(within(deadline, working));
        // The time limit is checked first: work that wakes up after its limit takes no further step, and work whose
        // process was stopped before its first step takes none.
        let working = poll_fn(|cx| match deadline {
            Some(deadline) if deadline <= Instant::now() => Poll::Ready(None),
            _ => working.as_mut().poll(cx),
        });
        let called = self.unless_stopped(session, working).await;
        let ran = began.elapsed();
        self.engine.telemetry().notify(|observer| observer.ran(run_end(&called), ran));
        if !self.span.is_disabled() {
            self.span.record("ran_ms", millis(ran));
        }
        let (lines, id) = (self.engine.lines(), || self.operation.id.short());
        let cause = match called {
            Ok(Some(Ok((answer, end)))) => return Worked { end, verdict: Verdict::Own(answer), ran },
            Ok(Some(Err(panic))) => {
                let (panic, cause) = (panic_message(&*panic), Cause::Panicked.name());
                once_a_minute!(lines.of("panicked"), error, record_id = id(), cause, panic, "the handler panicked");
                Cause::Panicked
            }
            Ok(None) => {
                let cause = Cause::MaxRun.name();
                once_a_minute!(lines.of("too_long"), error, record_id = id(), cause, "the handler exceeded max_run");
                Cause::MaxRun
            }
            // `unless_stopped` has logged it.
            Err(cause) => cause,
        };
        self.interrupted(cause, ran)
    }

    /// Returns the end of a run of which it is unknown how it ended, for this reason.
    pub(super) fn interrupted<T>(&self, cause: Cause, ran: Duration) -> Worked<T> {
        let end = End::Interrupted { cause };
        Worked { verdict: Verdict::own_end(end.clone(), self.attempt()), end, ran }
    }

    /// Continues the work of a run that was claimed in `session`. The error is why the run had to stop first: another
    /// process may run it again.
    pub(super) async fn unless_stopped<F: Future>(
        &self,
        session: Option<RecordId>,
        working: F,
    ) -> Result<F::Output, Cause> {
        // Without a lease, or where the policy refuses, no other process runs the operation meanwhile.
        let Some(session) = session.filter(|_| self.may_be_taken_over()) else { return Ok(working.await) };
        // The lease is checked first: a run that wakes up after its lease takes no further step.
        match Box::pin(select(Box::pin(self.must_stop(session)), Box::pin(working))).await {
            Either::Right((result, _)) => Ok(result),
            Either::Left(((cause, reason), _)) => {
                once_a_minute!(
                    self.engine.lines().of("stopped"),
                    error,
                    record_id = self.operation.id.short(),
                    cause = cause.name(),
                    reason,
                    "the handler is dropped, and another process may run it again"
                );
                Err(cause)
            }
        }
    }

    /// Returns whether another process may run the operation again while this one still does: once the lease of this
    /// process is over, and if the policy does not refuse.
    fn may_be_taken_over(&self) -> bool {
        let Policy { on_interrupted, reconciler, .. } = &self.engine.policy;
        !self.engine.store.is_exclusive() && (*on_interrupted == OnInterrupted::Rerun || reconciler.is_some())
    }

    /// Waits until a run has to stop that another process may run again, and returns why.
    async fn must_stop(&self, session: RecordId) -> (Cause, &'static str) {
        let slots = self.engine.store.slots();
        match select(pin!(slots.lease.nearly_over(session)), pin!(slots.stopped())).await {
            Either::Left(_) => (Cause::Lease, "the lease of this process is not renewed"),
            Either::Right(_) => (Cause::Shutdown, "this process shuts down"),
        }
    }

    /// Returns whether the run may go ahead without the store.
    pub(super) fn fails_open(&self) -> bool {
        self.engine.fails_open() && !self.slot.phase().has_record()
    }

    /// Returns the end that is recorded: if it is unknown how a run ended and the policy is `Rerun`, the key is
    /// released. Counts an end that is unknown.
    pub(super) fn end_to_record(&self, end: End) -> End {
        let End::Interrupted { cause } = end else { return end };
        self.engine.count_interrupted(cause);
        self.report_unknown(cause);
        match self.engine.policy.on_interrupted {
            OnInterrupted::Refuse => end,
            OnInterrupted::Rerun => End::Released,
        }
    }

    /// Logs that the handler's answer or error leaves the effect unknown, and counts an answer that does.
    fn report_unknown(&self, cause: Cause) {
        match cause {
            Cause::Answered(_) | Cause::Broken => self.engine.count(|counters| &counters.unknown),
            Cause::Failed => {}
            // It is logged where it is noticed.
            _ => return,
        }
        once_a_minute!(
            self.engine.lines().of("unknown"),
            warn,
            record_id = self.operation.id.short(),
            cause = cause.name(),
            status = cause.status(),
            "a handler's answer or error leaves it unknown whether the operation took effect"
        );
    }

    /// Returns the attempt, for logs.
    pub(super) fn attempt(&self) -> Attempt {
        Attempt { number: self.attempt, origin: self.operation.origin.clone() }
    }

    /// Returns this end of the run, for its duplicates.
    pub(super) fn ended(&self, end: End) -> Ended {
        Ended::new(self.operation.fingerprint, end).of(self.attempt())
    }

    /// Passes the run's end to the duplicates, and frees the slot.
    pub(super) fn end(self: Box<Self>, end: End) {
        let ended = self.ended(end);
        self.slot.end(ended);
    }

    /// Reports the verdict of this run, whose handler took this long.
    pub(super) fn report<T>(&self, verdict: &Verdict<T>, ran: Duration) {
        let (id, attempt) = (Some(&self.operation.id), Some(&self.attempt()));
        let facts = Facts { id, attempt, ran: Some(ran), ..Facts::default() };
        self.engine.report(&self.span, verdict.name(), facts);
    }
}

/// How a call of the work ended: by what it returned, by a panic, or `None` if it took longer than `max_run`. The error
/// is why it had to stop, because another process may run the operation again.
type Called<T> = Result<Option<thread::Result<(T, End)>>, Cause>;

/// Returns how the handler ended, for the observer.
fn run_end<T>(called: &Called<T>) -> RunEnd {
    match called {
        Err(_) => RunEnd::Stopped,
        Ok(None) => RunEnd::TooLong,
        Ok(Some(Err(_))) => RunEnd::Panicked,
        Ok(Some(Ok((_, End::Outcome(_))))) => RunEnd::Completed,
        Ok(Some(Ok((_, End::Consumed { .. })))) => RunEnd::NotReplayable,
        Ok(Some(Ok((_, End::Released)))) => RunEnd::Released,
        // `Interrupted`: the answer means that the effect is unknown. Work ends in no other way.
        Ok(Some(Ok(_))) => RunEnd::Unknown,
    }
}
