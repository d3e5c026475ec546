//! Settles an operation, or forgets one that is done, as an operator or the application says.

use std::sync::Arc;

use tokio::time::timeout;

use super::engine::Engine;
use super::record_end::UnsavedEnd;
use super::send_end::PendingEnd;
use crate::key::RecordId;
use crate::laboratory;
use crate::observer::SettledBy;
use crate::record::{Fence, Reply, Resolution, Stepped, Transition};
use crate::slots::{Ended, Entered, Event, Phase, Refusal, Slot};
use crate::store::{Store, StoreError};
use crate::timeouts::STORE_TIMEOUT;

/// The error of settling an operation whose end only this process remembers.
const HELD_HERE: &str = "this process holds the operation: its last run is over, and the store doesn't know its end; once \
                         the store works again, or the process is started again, it can be settled";

/// Settles an operation, or forgets one that is done. Its slot is taken in the first poll, and held until the step is
/// durable, so that no request is answered before. Poll it in a task of its own: a caller who goes away must not drop
/// it.
pub(crate) async fn resolve<St: Store>(
    engine: &Arc<Engine<St>>,
    id: RecordId,
    fence: Fence,
    resolution: Resolution,
) -> Result<Reply, StoreError> {
    // A settlement starts no handler, so no `max_runs` bounds it.
    let Entered::Mine(slot) = engine.store.slots().take(id, usize::MAX, None) else {
        // The slot is taken: by an end that the store does not know, or else by a run or by another settlement.
        let is_unsaved = engine.store.slots().unsaved.get(&id).is_some();
        return if is_unsaved { Err(StoreError::unavailable(HELD_HERE)) } else { Ok(Reply::Refused) };
    };
    let is_settlement = !matches!(resolution, Resolution::Forget | Resolution::ForgetAnswer { .. });
    let (settled, _) = resolve_in(engine, slot, fence, resolution).await;
    if is_settlement && matches!(settled, Ok(Reply::Taken)) {
        engine.telemetry().happened(Event::Settled(SettledBy::Operator));
    }
    settled
}

/// Settles or forgets the operation that has this slot, and frees the slot. Also returns the answer to requests that
/// met the slot. If the store does not confirm that the step is durable, though it may already be readable there, the
/// slot is freed only when the store does confirm it, or after an outcome's retention.
pub(super) async fn resolve_in<St: Store>(
    engine: &Arc<Engine<St>>,
    mut slot: Slot,
    fence: Fence,
    resolution: Resolution,
) -> (Result<Reply, StoreError>, Ended) {
    // From here on a dropped slot stays taken: the step may be readable and not durable.
    slot.begin_settling(engine.policy.kept());
    let transition = Transition::Resolve(fence, resolution, engine.policy.kept());
    let recorded = {
        let recording = engine.record(slot.id, transition);
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
        Ok(Stepped { reply, record }) => {
            // What the resolution itself has recorded is as new as a run's own outcome.
            let shown = |record| if reply == Reply::Taken { record } else { engine.presented(record) };
            (Ok(reply), record.map_or(refused, |record| shown(record).into()))
        }
        Err(PendingEnd { error: StoreError::Uncertain { .. }, answer }) => {
            let (unsaved, _) = UnsavedEnd::keep(engine, slot, refused.clone());
            laboratory::spawn(async move {
                // Taken or refused: if it was refused, the store knows another end, and that one counts.
                if answer.await.is_some() {
                    unsaved.forget();
                }
            });
            let error = "the store has not answered; list the interrupted operations again";
            return (Err(StoreError::uncertain(error)), refused);
        }
        // Nothing was done, and with the dropped answer nothing is tried again.
        Err(PendingEnd { error, .. }) => (Err(error), refused),
    };
    slot.end(ended.clone());
    (settled, ended)
}
