//! The operators' functions, for the layer and for a consumer alike: list, settle, drain, count. `reconcile.rs` asks
//! the application.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::engine::Engine;
use crate::key::RecordId;
use crate::laboratory;
use crate::observer::SettledBy;
use crate::record::{Applied, Fence, Reply, Resolution, Transition};
use crate::slots::{Ended, Entered, Phase, REFUSALS, Refusal, Slot, Slots};
use crate::store::recording::PendingEnd;
use crate::store::{Store, StoreError};
use crate::within::STORE_TIMEOUT;

/// The longest part of a drain that is left for the ends of runs that are dropped.
const MAX_DRAIN_RESERVE: Duration = STORE_TIMEOUT;

/// The counts of this process since the store was opened, over all layers on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Handlers that were started.
    pub runs: u64,
    /// Requests that were answered with the outcome of an earlier one.
    pub replays: u64,
    /// Runs whose end is unknown: panics, errors, timeouts, and answers that mean so.
    pub interrupted: u64,
    /// Those of the interrupted runs whose handler answered, and whose answer means that the effect is unknown.
    pub unknown: u64,
    /// Answers that were given although their record could not be written: after a restart, their retries are refused.
    pub unrecorded: u64,
    /// Handlers that were started without protection, because `fail_open` was chosen and the store was away.
    pub unprotected: u64,
    /// Damaged records that were found.
    pub corrupt: u64,
    /// Interrupted operations that the reconciler settled with an outcome.
    pub reconciled: u64,
    /// Retries under [`OnInterrupted::Rerun`](crate::OnInterrupted::Rerun) that were refused with `outcome-unknown`
    /// because the interrupted run had been claimed under another policy.
    pub not_rerun: u64,
    /// Outcomes that came after another process had taken the operation over, or an operator or the reconciler had
    /// settled it. They are kept in the shared store for 30 days, and count for nothing.
    pub disputed: u64,
    /// Outcomes that a shared store's database refuses for good, because they are too large for example. Their
    /// operations are done, and retries are refused as `not-replayable`.
    pub consumed: u64,
    /// Records that were written anew in a shared store because a failover had lost them, or because they had expired:
    /// when a run ended that had claimed its operation, or because this process still knew the outcome. Until then, a
    /// retry could have run.
    pub lost: u64,
    /// Answers of a shared database that showed a difference of more than five seconds between its clock, the wall
    /// clock of this process, and the clock that this process keeps.
    pub skewed: u64,
    /// Openings that went on without records that a damaged disk had lost, because `accept_loss_after` says
    /// so: 0 or 1.
    pub losses_accepted: u64,
    /// Claims that the store has granted in time.
    pub claimed: u64,
    /// Ends of runs that the store has recorded at once, those in a transaction of the application's not included.
    pub recorded: u64,
    /// Requests that have waited for the run of another one, and had the same fingerprint.
    pub waited: u64,
    /// Interrupted operations that an operator or the reconciler settled.
    pub settled: u64,
    /// Expired records that this process has deleted.
    pub swept: u64,
    /// Times that this process has renewed its lease over a shared store.
    pub lease_renewals: u64,
    /// Times that another process has taken this one for dead.
    pub lease_losses: u64,
    /// Times that the circuit breaker of a shared store has opened.
    pub breaker_openings: u64,
    /// Runs that are under way now.
    pub live: u64,
    // Refusals by layers, by the index of their `RejectionKind`. `Stats::refused` reads them.
    pub(crate) refused: [u64; REFUSALS],
}

/// The runs and outcomes that are left when a process stops waiting.
#[must_use = "runs and outcomes may be left"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Runs that are still under way. They are interrupted when the process ends.
    pub runs: usize,
    /// Runs that are over and whose end the store does not know. Their requesters were answered; after a restart,
    /// retries are refused, or run again under `Rerun`, or if the run was unprotected.
    pub unrecorded: usize,
}

impl Drained {
    /// Returns whether nothing is left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.runs == 0 && self.unrecorded == 0
    }
}

/// The result of a resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// The operation is settled, or forgotten.
    Settled,
    /// Nothing was changed.
    Stale,
}

impl<St: Store> Engine<St> {
    /// See [`drain`].
    pub(crate) async fn drain(&self, limit: Duration) -> Drained {
        drain(self.store.slots(), limit).await
    }

    pub(crate) fn stats(&self) -> Stats {
        let slots = self.store.slots();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &slots.tally;
        Stats {
            runs: read(&tally.runs),
            replays: read(&tally.replays),
            interrupted: read(&tally.interrupted),
            unknown: read(&tally.unknown),
            unrecorded: read(&tally.unrecorded),
            unprotected: read(&tally.unprotected),
            corrupt: read(&tally.corrupt),
            reconciled: read(&tally.reconciled),
            not_rerun: read(&tally.not_rerun),
            disputed: read(&tally.disputed),
            consumed: read(&tally.consumed),
            lost: read(&tally.lost),
            skewed: read(&tally.skewed),
            losses_accepted: read(&tally.losses_accepted),
            claimed: read(&tally.claimed),
            recorded: read(&tally.recorded),
            waited: read(&tally.waited),
            settled: read(&tally.settled),
            swept: read(&tally.swept),
            lease_renewals: read(&tally.lease_renewals),
            lease_losses: read(&tally.lease_losses),
            breaker_openings: read(&tally.breaker_openings),
            live: slots.live() as u64,
            refused: tally.refused.each_ref().map(read),
        }
    }

    /// Settles an operation. Its slot is taken in the first poll, and held until the step is durable, so that no
    /// request is answered before. Poll it in a task of its own: a caller who goes away must not drop it.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> Result<Resolved, StoreError> {
        // A settlement starts no handler, so no `max_runs` bounds it.
        let Entered::Mine(slot) = self.store.slots().take(id, usize::MAX, None) else {
            // The slot is taken: by an end that the store does not know, or else by a run or by another settlement.
            return if self.store.slots().remembered.get(&id).is_some() {
                Err(held_here())
            } else {
                Ok(Resolved::Stale)
            };
        };
        let is_settlement = !matches!(resolution, Resolution::Forget);
        let (settled, _) = self.settle_interrupted(slot, fence, resolution).await;
        match settled? {
            Reply::Taken => {
                if is_settlement {
                    self.count_settled(SettledBy::Operator);
                }
                Ok(Resolved::Settled)
            }
            Reply::Refused => Ok(Resolved::Stale),
        }
    }

    /// Counts an operation that was settled.
    pub(super) fn count_settled(&self, by: SettledBy) {
        self.count(|tally| &tally.settled);
        self.tally().notify(|observer| observer.settled(by));
    }

    /// Settles an operation and frees its slot. Also returns the answer to requests that met the slot. If the store
    /// does not confirm that the step is durable, though it may already be readable there, the slot is freed only when
    /// the store does confirm it, or after an outcome's retention.
    pub(super) async fn settle_interrupted(
        self: &Arc<Self>,
        mut slot: Slot,
        fence: Fence,
        resolution: Resolution,
    ) -> (Result<Reply, StoreError>, Ended) {
        // From here on a dropped slot stays taken: the step may be readable and not durable.
        slot.begin_settling(self.policy.retention);
        let transition = Transition::Resolve(fence, resolution, self.policy.retention);
        let recorded = {
            let recording = self.record(slot.id(), transition);
            tokio::pin!(recording);
            match timeout(STORE_TIMEOUT, recording.as_mut()).await {
                Ok(recorded) => recorded,
                Err(_) => {
                    // Requests that wait at the slot are refused now.
                    slot.show_phase(Phase::Stalled);
                    recording.await
                }
            }
        };
        let refused = Ended::from(Refusal::Unavailable);
        let (settled, ended) = match recorded {
            // A request that met the slot meanwhile is answered from the record, or asked to retry.
            Ok(Applied { reply, record }) => (Ok(reply), record.map_or(refused, Ended::from)),
            Err(PendingEnd { error: StoreError::Uncertain { .. }, answer }) => {
                let ((remembered, _), engine) = (self.remember(slot, refused.clone()), Arc::clone(self));
                laboratory::spawn(async move {
                    // Taken or refused: if it was refused, the store knows another end, and that one counts.
                    if answer.await.is_some() {
                        engine.forget(&remembered);
                    }
                });
                return (Err(not_answered()), refused);
            }
            // Nothing was done, and with the dropped answer nothing is tried again.
            Err(PendingEnd { error, .. }) => (Err(error), refused),
        };
        slot.end(ended.clone());
        (settled, ended)
    }
}

/// Refuses new keys from now on, waits at most `limit` for the runs under way and for the outcomes that are still being
/// recorded, and returns what is left. Shortly before, runs are dropped that another process may run again, so that it
/// need not wait for the lease of this one.
pub(crate) async fn drain(slots: &Slots, limit: Duration) -> Drained {
    let drained = slots.drained();
    tokio::pin!(drained);
    let reserve = MAX_DRAIN_RESERVE.min(limit / 4);
    if timeout(limit.saturating_sub(reserve), drained.as_mut()).await.is_err() {
        slots.stop();
        let _ = timeout(reserve, drained).await;
    }
    Drained { runs: slots.live(), unrecorded: slots.remembered.count() }
}

/// Returns the error of settling an operation whose end only this process remembers.
fn held_here() -> StoreError {
    StoreError::unavailable(
        "this process holds the operation: its last run is over, and the store doesn't know its end; once the store works \
         again, or the process is started again, it can be settled",
    )
}

/// Returns the error of a settlement that may still take place.
fn not_answered() -> StoreError {
    StoreError::uncertain("the store has not answered; list the interrupted operations again")
}
