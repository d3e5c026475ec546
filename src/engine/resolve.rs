//! Settling an interrupted operation: by hand, or by what the application says of it.

use std::future::Future;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::engine::{Engine, STORE_TIMEOUT};
use super::settle::Later;
use crate::key::RecordId;
use crate::laboratory;
use crate::record::{Applied, Fence, Reply, Resolution, Transition};
use crate::slots::{End, Entered, Phase, Refusal, Slot};
use crate::store::{InterruptedRecord, Store, StoreError};

/// How many operations are settled at a time.
const AT_A_TIME: usize = 64;

impl<St: Store> Engine<St> {
    /// Settles an interrupted operation. Its slot is held until that is durable, so that nobody is answered before; and in
    /// a task of its own, so that a caller who goes away doesn't free it.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> Result<Reply, StoreError> {
        let Entered::Mine(slot) = self.store.slots().take(id, usize::MAX) else {
            return if self.store.slots().remembers(&id) { Err(held_here()) } else { Ok(Reply::Refused) };
        };
        let (reply, settling) = oneshot::channel();
        let engine = Arc::clone(self);
        laboratory::spawn(async move {
            let Settling { settled, later, .. } = engine.settle_interrupted(slot, fence, resolution).await;
            let _ = reply.send(settled);
            engine.see_through(later).await;
        });
        match timeout(STORE_TIMEOUT, settling).await {
            Ok(Ok(settled)) => settled,
            Ok(Err(_)) | Err(_) => Err(not_answered()),
        }
    }

    /// Settles many, and says of each what became of it.
    pub(crate) fn resolve_all(
        self: &Arc<Self>,
        decided: Vec<(InterruptedRecord, Result<Resolution, StoreError>)>,
    ) -> impl Future<Output = Vec<(InterruptedRecord, Result<Reply, StoreError>)>> + Send + use<St> {
        let engine = Arc::clone(self);
        let one = move |(record, decided): (InterruptedRecord, _)| {
            let engine = Arc::clone(&engine);
            async move {
                let settled = match decided {
                    Ok(resolution) => engine.resolve(record.id, record.fence, resolution).await,
                    Err(error) => Err(error),
                };
                (record, settled)
            }
        };
        futures_util::stream::iter(decided).map(one).buffered(AT_A_TIME).collect()
    }

    /// Settles, and frees the slot. Where the store doesn't say that it is durable, though it may be seen there, the slot is not
    /// freed until it does, or for as long as an outcome is kept.
    pub(super) async fn settle_interrupted(&self, mut slot: Slot, fence: Fence, resolution: Resolution) -> Settling {
        slot.settles(self.policy.retention);
        let transition = Transition::Resolve(fence, resolution);
        let telling = self.tell(slot.id(), transition.clone());
        tokio::pin!(telling);
        let told = match timeout(STORE_TIMEOUT, telling.as_mut()).await {
            Ok(told) => told,
            Err(_) => {
                slot.enter(Phase::Stalled);
                telling.await
            }
        };
        let refused = End::Refused(Refusal::Unavailable);
        let (settled, end) = match told {
            // Who has met the slot meanwhile is answered from the record, or told to come again.
            Ok(Applied { reply, record }) => (Ok(reply), record.map_or(refused, End::Found)),
            Err(StoreError::Uncertain { .. }) => {
                let (later, _) = self.remember(slot, refused.clone());
                return Settling { settled: Err(not_answered()), end: refused, later: Some((transition, later)) };
            }
            Err(error) => (Err(error), refused),
        };
        slot.end(end.clone());
        Settling { settled, end, later: None }
    }

    /// Goes on telling the store, where it has not said that it knows.
    pub(super) async fn see_through(&self, later: Option<(Transition, Later)>) {
        if let Some((transition, later)) = later {
            self.tell_later(transition, later).await;
        }
    }
}

/// What settling came to.
pub(super) struct Settling {
    pub(super) settled: Result<Reply, StoreError>,
    /// What is told who has met the slot.
    pub(super) end: End,
    /// What the store is still to be told.
    pub(super) later: Option<(Transition, Later)>,
}

fn held_here() -> StoreError {
    StoreError::unavailable(
        "this process holds the operation: its last run is over, and the store doesn't know its end; once the store works \
         again, or the process is started again, it can be settled",
    )
}

fn not_answered() -> StoreError {
    StoreError::uncertain("the store has not answered; list the interrupted operations again")
}
