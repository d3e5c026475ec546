//! Reads both stores again, next to each other in the order of their ids, and compares them.

use std::collections::{BTreeMap, HashSet, VecDeque};

use futures_util::{StreamExt as _, stream};
use tower_idempotency::internals::{Cursor, List, ListedRecord, Records as _, State};
use tower_idempotency::operations::StateKind;
use tower_idempotency::store::StoreError;
use tower_idempotency::{AnyStore, RecordId};

use super::records::{Copied, MAX_READS, is_unreadable};
use super::sides::Side;
use crate::failure::Failure;

/// The number of records that are listed at a time.
const PAGE: usize = 1_000;

/// How many records are in each state.
pub(super) type States = BTreeMap<&'static str, u64>;

/// Both stores, as they are after the copy.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) from: States,
    pub(super) to: States,
    /// They are in the old store alone, or other records are in the new one.
    pub(super) unequal: Vec<RecordId>,
    /// How many records only the new store has.
    pub(super) others: u64,
}

/// The records of a store in the order of their ids.
struct Scan<'a> {
    end: &'a Side,
    read: VecDeque<ListedRecord>,
    after: Option<Cursor>,
    is_over: bool,
}

impl<'a> Scan<'a> {
    fn of(end: &'a Side) -> Self {
        Self { end, read: VecDeque::new(), after: None, is_over: false }
    }

    /// Returns the next record, and leaves it there.
    async fn peek(&mut self) -> Result<Option<&ListedRecord>, Failure> {
        while self.read.is_empty() && !self.is_over {
            let page = self.end.store.list(List::All, self.after, PAGE).await.map_err(Failure::of)?;
            (self.after, self.is_over) = (page.next, page.next.is_none());
            self.read = page.records.into();
        }
        Ok(self.read.front())
    }

    fn take(&mut self, states: &mut States) -> Option<ListedRecord> {
        let record = self.read.pop_front()?;
        *states.entry(state(&record)).or_default() += 1;
        Some(record)
    }
}

/// Compares the stores.
pub(super) async fn both(from: &Side, to: &Side, copied: &Copied) -> Result<Compared, Failure> {
    let damaged: HashSet<RecordId> = copied.damaged.iter().map(|(id, _)| *id).collect();
    let (mut compared, mut old, mut new) = (Compared::default(), Scan::of(from), Scan::of(to));
    // The lists have the beginnings of outcomes alone.
    let mut alike = Vec::with_capacity(PAGE);
    loop {
        let (first, second) = (old.peek().await?.map(|record| record.id), new.peek().await?.map(|record| record.id));
        if alike.len() == PAGE || (first, second) == (None, None) {
            compared.unequal.extend(unequal(&from.store, &to.store, alike.drain(..)).await?);
        }
        match (first, second) {
            (None, None) => return Ok(compared),
            (Some(id), second) if second.is_none_or(|second| id < second) => {
                let is_over = old.take(&mut compared.from).is_some_and(|record| has_expired(&record, to));
                if !is_over {
                    compared.unequal.push(id);
                }
            }
            (first, Some(id)) if first.is_none_or(|first| id < first) => {
                new.take(&mut compared.to);
                compared.others += 1;
            }
            (Some(id), _) | (_, Some(id)) => {
                let (one, other) = (old.take(&mut compared.from), new.take(&mut compared.to));
                let refuses = other.as_ref().and_then(|other| other.record.as_ref().ok()).is_some_and(is_unreadable);
                if one.map(of_no_session) == other.map(of_no_session) {
                    alike.push(id);
                } else if !(damaged.contains(&id) && refuses) {
                    compared.unequal.push(id);
                }
            }
        }
    }
}

/// Reads records whole, and returns the ids of those that differ.
async fn unequal(
    from: &AnyStore,
    to: &AnyStore,
    ids: impl Iterator<Item = RecordId>,
) -> Result<Vec<RecordId>, Failure> {
    let equal = async |id| {
        let (one, other) = (from.load(id).await, to.load(id).await);
        match (one, other) {
            // One that is not there has expired since it was listed.
            (Ok(one), Ok(other)) => Ok(one.is_none() || other.is_none() || one == other),
            (Err(StoreError::Corrupt { .. }), _) | (_, Err(StoreError::Corrupt { .. })) => Ok(false),
            (Err(error), _) | (_, Err(error)) => Err(Failure::of(error)),
        }
    };
    let mut read = stream::iter(ids).map(|id| async move { (id, equal(id).await) }).buffered(MAX_READS);
    let mut unequal = Vec::new();
    while let Some((id, is_equal)) = read.next().await {
        unequal.extend((!is_equal?).then_some(id));
    }
    Ok(unequal)
}

/// Returns the record without what a row of a database has in addition.
fn of_no_session(record: ListedRecord) -> ListedRecord {
    ListedRecord { session: None, ..record }
}

/// Returns whether a record has expired by the clock of a store.
fn has_expired(record: &ListedRecord, end: &Side) -> bool {
    let expires = record.record.as_ref().ok().and_then(|record| record.expires);
    expires.is_some_and(|expires| expires <= end.store.now())
}

fn state(record: &ListedRecord) -> &'static str {
    let kind = match record.record.as_ref().map(|record| &record.state) {
        Ok(State::Running { .. }) => StateKind::Running,
        Ok(State::Interrupted { .. }) => StateKind::Interrupted,
        Ok(State::Completed { .. }) => StateKind::Completed,
        Ok(State::Consumed { .. }) => StateKind::Consumed,
        Err(_) => StateKind::Damaged,
    };
    kind.name()
}

#[cfg(test)]
mod tests {
    use testkit::lab::steps::Steps as _;
    use testkit::lab::time::DAY;
    use testkit::lab::{done, hold, id};
    use tower_idempotency::SledStore;

    use super::*;

    // Seeded fault: what the lists say is enough.
    #[tokio::test]
    async fn an_outcome_that_differs_behind_its_beginning_is_another_one() {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        // Fences grow with each opening, and those of the new store have to be above.
        SledStore::open(directories[1].path()).unwrap().close().await.unwrap();
        let [from, to] = directories.each_ref().map(|path| AnyStore::new(SledStore::open(path.path()).unwrap()));
        let mut records = Vec::new();
        for (key, last) in [("same", b'x'), ("other", b'y')] {
            let held = hold(&from, key).await;
            from.complete(done(held, vec![b'x'; 10_000], DAY)).await.unwrap();
            let mut record = from.load(id(key)).await.unwrap().unwrap();
            let State::Completed { outcome } = &mut record.state else { panic!("{record:?}") };
            let mut bytes = outcome.to_vec();
            bytes[9_999] = last;
            *outcome = bytes.into();
            records.push((id(key), record));
        }
        to.adopt(records).await.unwrap();
        let both = [id("same"), id("other"), id("expired")];
        assert_eq!(unequal(&from, &to, both.into_iter()).await.unwrap(), [id("other")]);
    }
}
