//! Settling an interrupted operation by hand.

use std::sync::Arc;

use tokio::time::timeout;

use super::engine::{Engine, STORE_TIMEOUT};
use crate::key::RecordId;
use crate::record::{Fence, Resolution, Settled};
use crate::slots::{End, Entered, Phase, Refusal, Slot};
use crate::store::{Store, StoreError};

impl<St: Store> Engine<St> {
    /// Settles an interrupted operation. Its slot is held until that is durable, so that nobody is answered before; and in
    /// a task of its own, so that a caller who goes away doesn't free it.
    pub(crate) async fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> Result<Settled, StoreError> {
        let Entered::Mine(slot) = self.store.slots().take(id) else {
            return Ok(Settled::Superseded);
        };
        let settling = tokio::spawn(settle(Arc::clone(&self.store), slot, fence, resolution));
        match timeout(STORE_TIMEOUT, settling).await {
            Ok(Ok(settled)) => settled,
            Ok(Err(_)) | Err(_) => {
                Err(StoreError::uncertain("the store has not answered; list the interrupted operations again"))
            }
        }
    }
}

async fn settle<St: Store>(
    store: Arc<St>,
    mut slot: Slot,
    fence: Fence,
    resolution: Resolution,
) -> Result<Settled, StoreError> {
    slot.settles();
    let id = slot.id();
    let resolving = store.resolve(id, fence, resolution);
    tokio::pin!(resolving);
    let settled = match timeout(STORE_TIMEOUT, resolving.as_mut()).await {
        Ok(settled) => settled,
        Err(_) => {
            slot.enter(Phase::Stalled);
            resolving.await
        }
    };
    // Who has met the slot meanwhile is answered from the record, or told to come again.
    slot.end(match store.load(id).await {
        Ok(Some(record)) => End::Found(record),
        Ok(None) | Err(_) => End::Refused(Refusal::Unavailable),
    });
    settled
}
