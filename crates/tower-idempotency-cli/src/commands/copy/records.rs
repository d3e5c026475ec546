//! Copies the records, many at a time.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tower_idempotency::RecordId;
use tower_idempotency::engine::ClaimPolicy;
use tower_idempotency::internals::{List, ListedRecord, Record, Records as _, Reply, State, Stepped};
use tower_idempotency::store::StoreError;

use super::sides::Side;
use crate::failure::Failure;

/// The records of a page, and the pages' groups that are copied at a time.
const PAGE: usize = 2_048;
const MAX_AT_ONCE: usize = 4;
/// The most records of a group, and about the most bytes of their outcomes.
const GROUP: usize = 256;
const GROUP_BYTES: u64 = 4 << 20;
/// The number of whole records that are read at a time.
pub(super) const MAX_READS: usize = 32;
/// For how long the key of a record that can't be read is refused, if it does not say until when.
const DAMAGED_RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// What became of the records.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) copied: u64,
    /// They were there already, and are the same.
    pub(super) already: u64,
    /// They expired while they were copied.
    pub(super) expired: u64,
    /// They can't be read. The other store refuses their keys.
    pub(super) damaged: Vec<(RecordId, String)>,
    /// The other store has another record of these ids, which stays, or had one that was released since.
    pub(super) different: HashSet<RecordId>,
}

/// Copies all live records.
pub(super) async fn copy(from: &Side, to: &Side) -> Result<Copied, Failure> {
    let (mut copied, mut after) = (Copied::default(), None);
    loop {
        let page = from.store.list(List::All, after, PAGE).await.map_err(Failure::of)?;
        let groups = groups(page.records).into_iter().map(|group| copy_group(from, to, group));
        let mut done = stream::iter(groups).buffer_unordered(MAX_AT_ONCE);
        while let Some(group) = done.try_next().await? {
            copied.add(group);
        }
        after = page.next;
        if after.is_none() {
            return Ok(copied);
        }
    }
}

impl Copied {
    fn add(&mut self, other: Self) {
        self.copied += other.copied;
        self.already += other.already;
        self.expired += other.expired;
        self.damaged.extend(other.damaged);
        self.different.extend(other.different);
    }

    /// Returns how many records were read.
    pub(super) fn read(&self) -> u64 {
        self.copied + self.already + self.expired + self.different.len() as u64
    }
}

/// Divides a page, so that a group takes little memory.
fn groups(records: Vec<ListedRecord>) -> Vec<Vec<ListedRecord>> {
    let (mut groups, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for record in records {
        let length = match &record.record {
            Ok(Record { state: State::Completed { outcome }, .. }) => outcome.length,
            _ => 0,
        };
        match groups.last_mut() {
            Some(group) if group.len() < GROUP && bytes + length <= GROUP_BYTES => {
                bytes += length;
                group.push(record);
            }
            _ => {
                bytes = length;
                groups.push(vec![record]);
            }
        }
    }
    groups
}

/// A record as it was read, and why its own can't be. `None` if it has expired.
type Found = Option<(RecordId, Record, Option<String>)>;

async fn copy_group(from: &Side, to: &Side, group: Vec<ListedRecord>) -> Result<Copied, Failure> {
    let found = stream::iter(group).map(|listed| found(from, listed)).buffered(MAX_READS);
    let found: Vec<Found> = found.try_collect().await?;
    let (mut copied, mut records) = (Copied::default(), Vec::with_capacity(found.len()));
    for found in found {
        let Some((id, record, damage)) = found else {
            copied.expired += 1;
            continue;
        };
        copied.damaged.extend(damage.map(|reason| (id, reason)));
        records.push((id, record));
    }
    let applied = to.store.adopt(records.clone()).await.map_err(Failure::of)?;
    for ((id, record), Stepped { reply, record: there }) in records.iter().zip(applied) {
        match reply {
            Reply::Taken => copied.copied += 1,
            Reply::Refused if there.is_some_and(|there| is_same(record, &there)) => copied.already += 1,
            Reply::Refused => drop(copied.different.insert(*id)),
        }
    }
    Ok(copied)
}

/// Reads a whole record. One that can't be read gets a record that refuses its key.
async fn found(from: &Side, listed: ListedRecord) -> Result<Found, Failure> {
    let id = listed.id;
    let (reason, known) = match listed.record {
        Ok(_) => match from.store.load(id).await {
            Ok(Some(record)) => return Ok(Some((id, record, None))),
            Ok(None) => return Ok(None),
            Err(StoreError::Corrupt { reason, .. }) => (reason, None),
            Err(error) => return Err(Failure::of(error)),
        },
        Err(damage) => (damage.reason, damage.known),
    };
    let now = from.store.now();
    let record = match known {
        Some(known) => {
            let expires = known.expires.unwrap_or_else(|| now.plus(DAMAGED_RETENTION));
            Record::unreadable(known.fence, known.began, known.since, expires)
        }
        None => Record::unreadable(from.fence, now, now, now.plus(DAMAGED_RETENTION)),
    };
    Ok(Some((id, record, Some(reason))))
}

/// Returns whether a record that is there already is the one that was to be copied.
fn is_same(record: &Record, there: &Record) -> bool {
    record == there || is_unreadable(record) && is_unreadable(there)
}

/// Returns whether this is the record of an operation whose own can't be read.
pub(super) fn is_unreadable<O>(record: &Record<O>) -> bool {
    matches!(record.state, State::Interrupted { policy: ClaimPolicy::Unreadable, .. })
}

#[cfg(test)]
mod tests;
