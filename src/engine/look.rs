//! A look at an operation, for a request that must not run.

use tokio::time::Instant;

use super::engine::Engine;
use super::met::Met;
use super::verdict::Verdict;
use crate::fingerprint::Fingerprint;
use crate::record::{Cause, Operation, Owner, Record, State};
use crate::slots::{Ended, Refusal};
use crate::store::Store;
use crate::timeouts::{STORE_TIMEOUT, within};

/// What an operation is at.
#[derive(Debug)]
pub(crate) struct Looked<T> {
    /// What a request with its fingerprint meets.
    pub(crate) verdict: Verdict<T>,
    /// It was interrupted, and a request would run it again.
    pub(crate) runs_again: bool,
}

impl<T> From<Verdict<T>> for Looked<T> {
    fn from(verdict: Verdict<T>) -> Self {
        Self { verdict, runs_again: false }
    }
}

impl<St: Store> Engine<St> {
    /// Returns what the operation is at now; `None` if it has neither a run here nor a record. This takes no step,
    /// waits for no run, and takes nothing from one whose own request is not known yet: it could be another client's.
    ///
    /// # Cancel safety
    /// This only reads.
    pub(crate) async fn look<T>(&self, operation: &Operation) -> Option<Looked<T>> {
        let Operation { id, fingerprint, .. } = operation;
        let slots = self.store.slots();
        let here = || slots.look(id)?.glance(fingerprint).map(|met| Verdict::from(met).into());
        let deadline = Instant::now() + STORE_TIMEOUT;
        let mut left = None;
        loop {
            if let Some(met) = here() {
                return Some(met);
            }
            let loaded = within(Some(deadline), self.store.load(*id)).await;
            // A run that began meanwhile may have no record yet.
            if let Some(met) = here() {
                return Some(met);
            }
            let record = match loaded {
                Some(Ok(record)) => record?,
                Some(Err(error)) => return Some(Verdict::from(self.log_and_refuse(id, &error)).into()),
                None => return Some(Verdict::from(Refusal::Unavailable).into()),
            };
            // Something holds its slot that is no run: a step of an operator, which may be written and not yet durable.
            if record.state.is_done() && slots.look(id).is_some() {
                return Some(Verdict::from(Refusal::Unavailable).into());
            }
            let is_left = matches!(record.state, State::Running { .. })
                && record.owner == Owner::Here
                && slots.look(id).is_none();
            // Its run has ended since, or it ended without saying how: then the record stays as it is.
            if is_left && left.replace(record.fence) != Some(record.fence) {
                continue;
            }
            let record = if is_left { record.lapse(self.store.now(), Cause::Unknown) } else { record };
            return Some(self.met(fingerprint, record));
        }
    }

    fn met<T>(&self, fingerprint: &Fingerprint, record: Record) -> Looked<T> {
        let runs_again = Met { policy: &self.policy, fingerprint, record: &record }.runs_again();
        Looked { verdict: Ended::from(self.presented(record)).result_for(fingerprint).into(), runs_again }
    }
}
