//! Ends of runs that are on their way to the database. A run that is told once more is not written once more: whoever
//! tells it waits for the write that is under way.

use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::backend::Backend;
use super::state::Shelf;
use crate::key::RecordId;
use crate::record::{Applied, Transition};
use crate::store::StoreError;

/// How long somebody waits for an end to be recorded. The store goes on by itself.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// The ends under way.
#[derive(Debug, Default)]
pub(super) struct Endings(DashMap<RecordId, Ending, RandomState>);

#[derive(Debug)]
struct Ending {
    transition: Transition,
    told: watch::Receiver<Told>,
}

/// What became of it, if that is known.
type Told = Option<Result<Applied, Failed>>;

/// An error, for several who wait.
#[derive(Debug, Clone)]
struct Failed {
    is_uncertain: bool,
    reason: String,
}

impl<B: Backend> Shelf<B> {
    /// Takes the step by which a run ends, in a task of its own, unless the same step is under way. The returned future
    /// waits for what becomes of it.
    pub(super) fn end_run(
        self: &Arc<Self>,
        id: RecordId,
        transition: Transition,
        runtime: &Handle,
    ) -> impl Future<Output = Result<Applied, StoreError>> + Send + use<B> {
        let mut told = self.under_way(id, transition, runtime);
        async move {
            match timeout(ANSWERED_WITHIN, told.wait_for(Option::is_some)).await {
                Ok(Ok(told)) => match &*told {
                    Some(Ok(applied)) => Ok(applied.clone()),
                    Some(Err(Failed { is_uncertain: false, reason })) => Err(StoreError::unavailable(reason.clone())),
                    Some(Err(Failed { reason, .. })) => Err(StoreError::uncertain(reason.clone())),
                    None => Err(StoreError::uncertain("the store's runtime is gone")),
                },
                Ok(Err(_)) => Err(StoreError::uncertain("the store's runtime is gone")),
                Err(_) => Err(StoreError::uncertain("the database has not answered yet")),
            }
        }
    }

    fn under_way(self: &Arc<Self>, id: RecordId, transition: Transition, runtime: &Handle) -> watch::Receiver<Told> {
        let (sender, told) = watch::channel(None);
        match self.endings.0.entry(id) {
            Entry::Occupied(under_way) if under_way.get().transition == transition => {
                return under_way.get().told.clone();
            }
            Entry::Occupied(mut other) => {
                other.insert(Ending { transition: transition.clone(), told: told.clone() });
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Ending { transition: transition.clone(), told: told.clone() });
            }
        }
        let shelf = Arc::clone(self);
        runtime.spawn(async move {
            let applied = shelf.step(id, transition).await;
            shelf.endings.0.remove_if(&id, |_, ending| sender.subscribe().same_channel(&ending.told));
            let failed = |error: StoreError| Failed {
                is_uncertain: matches!(error, StoreError::Uncertain { .. }),
                reason: error.to_string(),
            };
            sender.send_replace(Some(applied.map_err(failed)));
        });
        told
    }
}
