//! Ends of runs that are on their way to the database. A run that is told once more is not written once more: whoever
//! tells it waits for the write that is under way.

use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;
use tokio::time::timeout;

use super::driven::Driven;
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

/// What became of an end, if that is known.
type Told = Option<Result<Applied, Failed>>;

/// An error, for several who wait.
#[derive(Debug, Clone)]
struct Failed {
    is_uncertain: bool,
    reason: String,
}

/// The duty to take the step, and to say what became of it.
#[derive(Debug)]
pub(super) struct Duty(watch::Sender<Told>);

/// Where it is told what became of an end.
#[derive(Debug)]
pub(super) struct Awaited(watch::Receiver<Told>);

impl Endings {
    /// Returns where it is told what becomes of an end, and the duty to take the step, unless it is under way already.
    pub(super) fn begin(&self, id: RecordId, transition: &Transition) -> (Awaited, Option<Duty>) {
        let (sender, told) = watch::channel(None);
        let ending = || Ending { transition: transition.clone(), told: told.clone() };
        match self.0.entry(id) {
            Entry::Occupied(under_way) if under_way.get().transition == *transition => {
                return (Awaited(under_way.get().told.clone()), None);
            }
            Entry::Occupied(mut other) => drop(other.insert(ending())),
            Entry::Vacant(vacant) => drop(vacant.insert(ending())),
        }
        (Awaited(told), Some(Duty(sender)))
    }

    /// Tells those who wait what became of an end.
    pub(super) fn finish(&self, id: RecordId, duty: &Duty, applied: Result<Applied, StoreError>) {
        self.0.remove_if(&id, |_, ending| duty.0.subscribe().same_channel(&ending.told));
        let failed = |error: StoreError| Failed {
            is_uncertain: matches!(error, StoreError::Uncertain { .. }),
            reason: error.to_string(),
        };
        duty.0.send_replace(Some(applied.map_err(failed)));
    }

    /// Whether an end of this operation's run is under way.
    pub(super) fn has(&self, id: RecordId) -> bool {
        self.0.contains_key(&id)
    }

    /// Whether no end is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Awaited {
    /// Waits for what becomes of an end, for at most five seconds. Drives its `step`, if it is the caller's.
    pub(super) async fn wait(self, step: Option<Driven<()>>) -> Result<Applied, StoreError> {
        let Self(mut told) = self;
        let ended = async move {
            if let Some(step) = step {
                step.await?;
            }
            match &*told.wait_for(Option::is_some).await.map_err(|_| gone())? {
                Some(Ok(applied)) => Ok(applied.clone()),
                Some(Err(Failed { is_uncertain: false, reason })) => Err(StoreError::unavailable(reason.clone())),
                Some(Err(Failed { reason, .. })) => Err(StoreError::uncertain(reason.clone())),
                None => Err(gone()),
            }
        };
        let late = |_| Err(StoreError::uncertain("the database has not answered yet"));
        timeout(ANSWERED_WITHIN, ended).await.unwrap_or_else(late)
    }
}

fn gone() -> StoreError {
    StoreError::uncertain("the store's runtime is gone")
}
