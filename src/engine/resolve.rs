//! Settling an interrupted operation by hand.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::backoff::{self, may_recover};
use super::engine::{Engine, STORE_TIMEOUT};
use super::settle::is_outdated;
use crate::key::RecordId;
use crate::laboratory;
use crate::record::{Fence, Record, Resolution, Settled, State};
use crate::slots::{End, Entered, Phase, Refusal, Retrying, Slot};
use crate::store::{InterruptedRecord, Store, StoreError};

impl<St: Store> Engine<St> {
    /// Settles an interrupted operation. Its slot is held until that is durable, so that nobody is answered before; and in
    /// a task of its own, so that a caller who goes away doesn't free it.
    pub(crate) async fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> Result<Settled, StoreError> {
        let Entered::Mine(slot) = self.store.slots().take(id, usize::MAX) else {
            return if self.store.slots().remembers(&id) { Err(held_here()) } else { Ok(Settled::Superseded) };
        };
        let (reply, settling) = oneshot::channel();
        let (store, retention) = (Arc::clone(&self.store), self.policy.retention);
        laboratory::spawn(async move {
            let Settling { settled, unsure, .. } = settle(store, slot, fence, resolution, retention).await;
            let _ = reply.send(settled);
            Unsure::ends(unsure).await;
        });
        match timeout(STORE_TIMEOUT, settling).await {
            Ok(Ok(settled)) => settled,
            Ok(Err(_)) | Err(_) => Err(not_answered()),
        }
    }
}

/// How many operations are settled at a time.
const AT_A_TIME: usize = 64;

impl<St: Store> Engine<St> {
    /// Settles many, and says of each what became of it.
    pub(crate) fn resolve_all(
        self: &Arc<Self>,
        decided: Vec<(InterruptedRecord, Result<Resolution, StoreError>)>,
    ) -> impl Future<Output = Vec<(InterruptedRecord, Result<Settled, StoreError>)>> + Send + use<St> {
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
}

/// What settling came to.
pub(super) struct Settling<St> {
    pub(super) settled: Result<Settled, StoreError>,
    /// What is told who has met the slot.
    pub(super) end: End,
    pub(super) unsure: Option<Unsure<St>>,
}

/// A settling of which the store never said that it is durable, though it may be seen there. Until the store says so, this
/// process refuses the operation.
pub(super) struct Unsure<St> {
    store: Arc<St>,
    id: RecordId,
    turn: u64,
    fence: Fence,
    resolution: Resolution,
    retention: Duration,
    retrying: Retrying,
}

/// Settles, and ends the slot with what is there then. Where the store doesn't say that it is durable, the slot is not freed
/// for as long as an outcome is kept.
pub(super) async fn settle<St: Store>(
    store: Arc<St>,
    mut slot: Slot,
    fence: Fence,
    resolution: Resolution,
    retention: Duration,
) -> Settling<St> {
    slot.settles(retention);
    let (id, turn) = (slot.id(), slot.turn());
    let mut pauses = backoff::while_waited_for();
    let mut lost = false;
    let settled = loop {
        let settled = resolve_once(&*store, &slot, fence, resolution.clone()).await;
        lost |= matches!(settled, Err(StoreError::Uncertain { .. }));
        match pauses.next() {
            Some(pause) if lost && settled.is_err() && may_recover(&*store) => tokio::time::sleep(pause).await,
            _ => break settled,
        }
    };
    if lost && settled.is_err() {
        let end = End::Refused(Refusal::Unavailable);
        let retrying = store.slots().retrying();
        slot.remember(end.clone(), retention);
        let unsure = Some(Unsure { store, id, turn, fence, resolution, retention, retrying });
        return Settling { settled: Err(not_answered()), end, unsure };
    }
    // Who has met the slot meanwhile is answered from the record, or told to come again.
    let found = if settled.is_ok() { store.load(id).await.ok().flatten() } else { None };
    let settled = match settled {
        // Sent again, it finds what it did the first time.
        Ok(Settled::Superseded) if lost && was_done(found.as_ref(), fence, &resolution) => Ok(Settled::Done),
        settled => settled,
    };
    let end = found.map_or(End::Refused(Refusal::Unavailable), End::Found);
    slot.end(end.clone());
    Settling { settled, end, unsure: None }
}

async fn resolve_once(
    store: &impl Store,
    slot: &Slot,
    fence: Fence,
    resolution: Resolution,
) -> Result<Settled, StoreError> {
    let resolving = store.resolve(slot.id(), fence, resolution);
    tokio::pin!(resolving);
    match timeout(STORE_TIMEOUT, resolving.as_mut()).await {
        Ok(settled) => settled,
        Err(_) => {
            slot.enter(Phase::Stalled);
            resolving.await
        }
    }
}

fn was_done(found: Option<&Record>, fence: Fence, resolution: &Resolution) -> bool {
    match (found, resolution) {
        (None, Resolution::Forget) => true,
        (
            Some(Record { state: State::Completed { outcome: found, .. }, fence: under, .. }),
            Resolution::Outcome { outcome, .. },
        ) => *under > fence && found == outcome,
        _ => false,
    }
}

impl<St: Store> Unsure<St> {
    /// Tries on until the store answers: what was sent before is durable then. Or it never will.
    pub(super) async fn ends(unsure: Option<Self>) {
        let Some(Self { store, id, turn, fence, resolution, retention, retrying: _retrying }) = unsure else { return };
        let began = Instant::now();
        for pause in backoff::afterwards() {
            tokio::time::sleep(pause).await;
            if !may_recover(&*store) || is_outdated(began, retention) {
                return;
            }
            if store.resolve(id, fence, resolution.clone()).await.is_ok() {
                return store.slots().forget(&id, turn);
            }
        }
    }
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
