//! How many operations are not over, and how old they are.

use tower_idempotency::clock::Timestamp;
use tower_idempotency::operations::{Cursor, Filter, OperationRecord, Operations, StateKind};
use tower_idempotency::store::{Store, StoreError};

use crate::text::is_known;

/// The most operations that are counted of each kind.
const MOST: usize = 1_000;
/// The most calls to the store for each kind: it may look at 10,000 records in each and find none.
const CALLS: usize = 10;

/// Counts of what an operator has to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overview {
    pub(crate) running: Summary,
    pub(crate) interrupted: Summary,
    pub(crate) disputed: Summary,
    /// The time of the store.
    pub(crate) now: Timestamp,
}

/// How many there are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    /// Whether there may be more.
    pub(crate) has_more: bool,
    /// When the oldest that was counted began, was interrupted or was disputed.
    pub(crate) oldest: Option<Timestamp>,
}

impl Summary {
    fn add(&mut self, since: Timestamp) {
        self.count += 1;
        let known = Some(since).filter(|since| is_known(*since));
        self.oldest = self.oldest.into_iter().chain(known).min();
    }
}

impl Overview {
    pub(crate) async fn of<St: Store>(operations: &Operations<St>) -> Result<Self, StoreError> {
        let (running, _) = counted(operations, StateKind::Running, |run| run.began).await?;
        let (interrupted, now) = counted(operations, StateKind::Interrupted, |run| run.since).await?;
        let mut disputed = Summary::default();
        let listed = operations.disputed(None, MOST).await?;
        listed.operations.iter().for_each(|outcome| disputed.add(outcome.since));
        disputed.has_more = listed.next.is_some();
        Ok(Self { running, interrupted, disputed, now })
    }
}

/// Counts the operations in a state.
async fn counted<St: Store>(
    operations: &Operations<St>,
    state: StateKind,
    since: fn(&OperationRecord) -> Timestamp,
) -> Result<(Summary, Timestamp), StoreError> {
    let filter = Filter::all().in_state(state);
    let (mut summary, mut after): (Summary, Option<Cursor>) = Default::default();
    let mut calls = 0;
    loop {
        let listing = operations.list(&filter, after.as_ref(), MOST - summary.count).await?;
        listing.operations.iter().for_each(|operation| summary.add(since(operation)));
        calls += 1;
        after = listing.next;
        summary.has_more = after.is_some();
        if !summary.has_more || summary.count >= MOST || calls >= CALLS {
            return Ok((summary, listing.now));
        }
    }
}

#[cfg(test)]
mod tests;
