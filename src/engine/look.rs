//! A look at an operation, for a request that must not run.

use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::verdict::Verdict;
use crate::record::Operation;
use crate::slots::{Ended, Refusal};
use crate::store::Store;
use crate::timeouts::{STORE_TIMEOUT, within};

impl<St: Store> Engine<St> {
    /// Returns what the operation is at now; `None` if it has neither a run here nor a record. This takes no step: no
    /// run begins, none is waited for, and the record stays as it is.
    ///
    /// # Cancel safety
    /// This only reads.
    pub(crate) async fn look<T>(&self, operation: &Operation) -> Option<Verdict<T>> {
        let Operation { id, fingerprint, .. } = operation;
        let slots = self.store.slots();
        if let Some(waiter) = slots.look(id) {
            return Some(waiter.join(fingerprint, Duration::ZERO).await.into());
        }
        let loaded = within(Some(Instant::now() + STORE_TIMEOUT), self.store.load(*id)).await;
        // A run that began meanwhile may have no record yet.
        if let Some(waiter) = slots.look(id) {
            return Some(waiter.join(fingerprint, Duration::ZERO).await.into());
        }
        match loaded {
            Some(Ok(record)) => record.map(|record| Ended::from(record).result_for(fingerprint).into()),
            Some(Err(error)) => Some(self.log_and_refuse(id, &error).into()),
            None => Some(Refusal::Unavailable.into()),
        }
    }
}
