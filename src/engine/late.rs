//! A run whose claim the store has not answered in time. Its requester is answered, and the claim is undone; or
//! `fail_open` lets it go ahead without the store, and its end is recorded all the same.

use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::claim::{Claimed, hold, wish};
use super::context::{Rerun, RunContext};
use super::engine::Engine;
use super::record_end::UnsavedEnd;
use super::run::{Run, Work, Worked};
use super::send_end::until_answered;
use super::verdict::Verdict;
use crate::key::RecordId;
use crate::record::{Cause, Hold, Operation, Owner, Reply, State, Stepped, Transition};
use crate::slots::{End, Phase, Refusal, once_a_minute};
use crate::store::Store;
use crate::timeouts::STORE_TIMEOUT;

/// A run whose claim is still under way, or has failed.
pub(super) struct Late<'a, St: Store> {
    pub(super) run: Box<Run<St>>,
    /// The session that was held before the claim.
    pub(super) session: Option<RecordId>,
    pub(super) claiming: Pin<&'a mut (dyn Future<Output = Result<Claimed, Refusal>> + Send + 'a)>,
}

impl<St: Store> Late<'_, St> {
    /// Answers the requester now. The slot is kept until the store has answered, so that a claim that was made can be
    /// undone.
    pub(super) async fn stalled<T: Send + 'static>(
        self,
        work: Box<dyn Work<T>>,
        requester: oneshot::Sender<Verdict<T>>,
    ) {
        let fail_open = self.run.fails_open();
        once_a_minute!(
            self.run.engine.lines().of("unanswered"),
            error,
            record_id = self.run.operation.id.short(),
            fail_open,
            "the store has not answered in {STORE_TIMEOUT:?}"
        );
        if fail_open {
            return self.fail_open(work, requester).await;
        }
        drop(work);
        let Self { run, claiming, .. } = self;
        run.slot.show_phase(Phase::Stalled);
        let _ = requester.send(Refusal::Unavailable.into());
        match claiming.await {
            Ok(Claimed::Granted(_, hold, rerun)) => give_back(run, hold, rerun).await,
            // There is no claim to undo.
            Ok(Claimed::Met(_)) | Err(_) => run.slot.end(Refusal::Unavailable),
        }
    }

    /// Runs without the store, as `fail_open` allows, and records how the run ended: under the claim that is under way,
    /// if the store grants it, else under a claim that is made when the store is back. Duplicates that come meanwhile
    /// share the outcome.
    pub(super) async fn fail_open<T: Send + 'static>(
        self,
        work: Box<dyn Work<T>>,
        requester: oneshot::Sender<Verdict<T>>,
    ) {
        let Self { run, session, claiming } = self;
        run.engine.count(|counters| &counters.fail_open_runs);
        once_a_minute!(
            run.engine.lines().of("fail_open"),
            warn,
            record_id = run.operation.id.short(),
            "the store is away and fail_open is set: the handler runs unprotected"
        );
        let (context, unprotected) = RunContext::fail_open(&run.operation);
        // No process can take over an operation that has no claim. The claim stays under way: once the store grants it
        // to this run, another process may take the operation over.
        let began = Instant::now();
        // If the claim has not ended during the work, it is waited for after the answer.
        let (Worked { end, verdict, ran }, claiming) =
            match select(pin!(run.work(work, context, None, None)), claiming).await {
                Either::Left((worked, claiming)) => (worked, Either::Left(claiming)),
                Either::Right((claimed, working)) => {
                    let session = session.filter(|_| matches!(claimed, Ok(Claimed::Granted(..))));
                    let worked = run.unless_stopped(session, working).await;
                    let worked = worked.unwrap_or_else(|cause| run.interrupted(cause, began.elapsed()));
                    (worked, Either::Right(ready(claimed)))
                }
            };
        // From now on the handler's context says that the run is over.
        drop(unprotected);
        run.report(&verdict, ran);
        let end = run.end_to_record(end);
        let slots = run.engine.store.slots();
        // Half of the room is for the ends of other runs, which must be kept.
        if matches!(end, End::Released) || !slots.unsaved.has_plenty_of_room() {
            let _ = requester.send(verdict);
            return without_room(run, end, claiming).await;
        }
        let ended = run.ended(end.clone());
        let Run { engine, slot, operation, .. } = *run;
        let (unsaved, _) = UnsavedEnd::keep(&engine, slot, ended);
        let _ = requester.send(verdict);
        record(&engine, &operation, &end, claiming.await, unsaved).await;
    }
}

/// Gives back a claim under which nothing ran, and then frees the slot. Whether an earlier attempt took effect is as
/// unknown as before.
async fn give_back<St: Store>(run: Box<Run<St>>, hold: Hold, rerun: Rerun) {
    let Run { engine, slot, operation, .. } = *run;
    let end = if rerun == Rerun::Yes { End::Interrupted { cause: Cause::Unknown } } else { End::Released };
    let Err(pending) = engine.record_end(&operation, hold, &end).await else {
        // The claim is undone: waiters retry and find out what the store has.
        return slot.end(Refusal::Unavailable);
    };
    // This only logs the fault, because the requester was answered before.
    engine.log_and_refuse(&operation.id, &pending.error);
    let (unsaved, _) = UnsavedEnd::keep(&engine, slot, Refusal::Unavailable);
    unsaved.forget_once_recorded(Err(pending), engine.store.is_exclusive()).await;
}

/// Ends a fail-open run that leaves nothing to remember, or for which there is no room. If its claim is granted
/// late, the claim is settled.
async fn without_room<St: Store>(
    run: Box<Run<St>>,
    end: End,
    claiming: impl Future<Output = Result<Claimed, Refusal>> + Send,
) {
    match (claiming.await, &end) {
        (Ok(Claimed::Granted(_, hold, rerun)), End::Released) => give_back(run, hold, rerun).await,
        (Ok(Claimed::Granted(_, hold, _)), _) => {
            // The slot is kept meanwhile: otherwise a retry would find the run interrupted. If the store does not
            // record the end, the run counts as interrupted for other processes.
            if let Err(pending) = run.engine.record_end(&run.operation, hold, &end).await {
                let _ = pending.answer.await;
            }
            run.end(end);
        }
        (Ok(Claimed::Met(_)) | Err(_), _) => run.end(end),
    }
}

/// Records how a run ended that had no claim, or was granted one late: the claim that was asked for before, or if that
/// has failed, another one. Tries again until the store has taken it, or the end is about to be forgotten.
async fn record<St: Store>(
    engine: &Engine<St>,
    operation: &Operation,
    end: &End,
    claimed: Result<Claimed, Refusal>,
    unsaved: UnsavedEnd,
) {
    let claimed = match claimed {
        Ok(claimed) => Some(claimed),
        Err(_) => claim(engine, operation).await,
    };
    let hold = match claimed {
        Some(Claimed::Granted(_, hold, _)) => hold,
        Some(Claimed::Met(_)) => return outdone(engine, operation, &unsaved),
        // The store can't answer any more. The end is kept until the retention is over.
        None => return,
    };
    match engine.record_end(operation, hold, end).await {
        Ok(Stepped { reply: Reply::Refused, .. }) => outdone(engine, operation, &unsaved),
        recorded => unsaved.forget_once_recorded(recorded, engine.store.is_exclusive()).await,
    }
}

/// Claims an operation that has run already. Returns `None` if the store does not answer.
async fn claim<St: Store>(engine: &Engine<St>, operation: &Operation) -> Option<Claimed> {
    let claim = || Transition::Claim(wish(&engine.policy, operation.clone(), Instant::now() + STORE_TIMEOUT));
    loop {
        let Stepped { reply, record } =
            until_answered(&*engine.store, operation.id, claim, Duration::ZERO, engine.retries_for()).await?;
        // If there is no record, the one that the claim met has expired meanwhile.
        if let Some(record) = record {
            // This process remembers the operation, so that no other run of it is there: the claim that seemed to have
            // failed was made.
            let is_own = matches!(record.state, State::Running { .. }) && record.owner == Owner::Here;
            return Some(if reply == Reply::Taken || is_own {
                Claimed::Granted(operation.clone(), hold(&record), Rerun::Maybe)
            } else {
                Claimed::Met(Box::new(record))
            });
        }
    }
}

/// Handles a store that has another record of the operation. That record counts, and the effects of the fail-open run
/// are additional.
fn outdone<St: Store>(engine: &Engine<St>, operation: &Operation, unsaved: &UnsavedEnd) {
    once_a_minute!(
        engine.lines().of("outdone"),
        error,
        record_id = operation.id.short(),
        "an operation that ran unprotected was claimed elsewhere meanwhile, and may have taken effect twice; the outcome \
         of the fail-open run is not recorded"
    );
    unsaved.forget();
}
