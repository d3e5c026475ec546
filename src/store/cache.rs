//! Recent outcomes, in front of a database.
//!
//! A shared store puts in what is completed and durable, which does not change before it expires, unless a failover
//! loses it, or an operator has it or its answer forgotten. Then a tombstone takes its place, so that a task that read
//! the record before can't put it back. In an embedded store, only the writer fills and empties it: it takes a record
//! out before it writes the batch that changes the record, and puts one in after the batch that wrote it is durable. So
//! the cache of an embedded store never holds anything that is false or that a power cut could undo, and no reader can
//! put back what was taken out.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::{Cache as Sharded, EntryAction, EntryResult};
use quick_cache::{OptionsBuilder, Weighter};

use crate::key::RecordId;
use crate::record::{Fence, Record};

/// The bytes that an entry takes in addition to its outcome.
const ENTRY_BYTES: u64 = 256;
/// The bytes of a tombstone.
const TOMBSTONE_BYTES: u64 = 96;
/// The share of the cache for entries that were asked for again. The rest is for the newest ones, because most retries
/// come soon, and once.
const ASKED_FOR: f64 = 0.5;

/// The most parts that the cache has. Each has a lock of its own.
const MAX_PARTS: usize = 64;
/// The least bytes that a part holds, if the cache has that many. A part takes no outcome over half of what it holds,
/// and most layers record up to 1 MiB.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// Weighs entries for `quick_cache`, so that its capacity is a number of bytes.
#[derive(Debug, Clone)]
struct ByBytes;

/// What is known of an id.
#[derive(Debug, Clone)]
enum Cached {
    /// A record, and whether a transaction of the application wrote it with its effects.
    Known(Arc<Record>, bool),
    /// The tombstone of the record with this fence.
    Forgotten(Fence),
}

impl Weighter<RecordId, Cached> for ByBytes {
    fn weight(&self, _: &RecordId, entry: &Cached) -> u64 {
        let Cached::Known(record, _) = entry else { return TOMBSTONE_BYTES };
        // A shared store also puts in consumed records, which have no outcome. No store puts in the other two states.
        let outcome = record.state.outcome().map_or(0, Bytes::len);
        ENTRY_BYTES + outcome as u64 + record.origin.bytes() as u64
    }
}

impl Cached {
    fn fence(&self) -> Fence {
        match self {
            Self::Known(record, _) => record.fence,
            Self::Forgotten(fence) => *fence,
        }
    }
}

/// A cache that is bounded by bytes.
#[derive(Debug)]
pub struct Cache(Sharded<RecordId, Cached, ByBytes>);

impl Cache {
    /// Creates a cache for this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        // quick_cache sizes its tables by this estimate of 1 KiB for each entry.
        let items = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).max(16);
        let mut options = OptionsBuilder::new();
        let parts = usize::try_from(bytes / PART_BYTES).unwrap_or(usize::MAX).clamp(1, MAX_PARTS);
        // quick_cache rounds the number of parts up to a power of two. Here it is rounded down, so that no part gets
        // smaller than PART_BYTES.
        let parts = (parts / 2 + 1).next_power_of_two();
        options.estimated_items_capacity(items).weight_capacity(bytes).hot_allocation(ASKED_FOR).shards(parts);
        Self(match options.build() {
            Ok(options) => Sharded::with_options(options, ByBytes, Default::default(), Default::default()),
            // This never happens, because both capacities are set.
            Err(_) => Sharded::with_weighter(items, bytes, ByBytes),
        })
    }

    /// Returns a record that was put in. It may be past its expiry, so the caller checks that.
    pub fn get(&self, id: &RecordId) -> Option<Arc<Record>> {
        if let Cached::Known(record, _) = self.0.get(id)? { Some(record) } else { None }
    }

    /// Returns all records that are there, each with whether a transaction of the application wrote it.
    pub fn all(&self) -> Vec<(RecordId, Arc<Record>, bool)> {
        let known = |(id, entry)| {
            if let Cached::Known(record, of_transaction) = entry { Some((id, record, of_transaction)) } else { None }
        };
        self.0.iter().filter_map(known).collect()
    }

    /// Puts in a record. An older entry of the same id is replaced.
    pub fn put(&self, id: RecordId, record: Record) {
        self.0.insert(id, Cached::Known(Arc::new(record), false));
    }

    /// Puts in a record, which a transaction of the application wrote with its effects if `is_of_transaction`. Does
    /// nothing if this record or a later one of the same id is there, or was forgotten. What is left of a record whose
    /// answer was forgotten takes its place, and the record never comes back.
    pub fn put_unless_forgotten(&self, id: RecordId, record: Record, mut is_of_transaction: bool) {
        let fence = record.fence;
        let replace = |_: &RecordId, entry: &mut Cached| {
            let is_replaced = match entry {
                Cached::Known(known, was_of_transaction) if known.fence == fence => {
                    is_of_transaction |= *was_of_transaction;
                    known.state.outcome().is_some() && record.state.outcome().is_none()
                }
                entry => entry.fence() < fence,
            };
            if is_replaced { EntryAction::ReplaceWithGuard } else { EntryAction::Retain(()) }
        };
        if let EntryResult::Vacant(place) | EntryResult::Replaced(place, _) = self.0.entry(&id, None, replace) {
            // The place is kept, so this does not fail.
            let _ = place.insert(Cached::Known(Arc::new(record), is_of_transaction));
        }
    }

    /// Puts the tombstone of the record with this fence in its place. Another record stays.
    pub fn forget(&self, id: RecordId, fence: Fence) {
        let replace = |_: &RecordId, entry: &mut Cached| {
            let is_replaced = match entry {
                Cached::Known(record, _) => record.fence == fence,
                Cached::Forgotten(forgotten) => *forgotten < fence,
            };
            if is_replaced {
                *entry = Cached::Forgotten(fence);
            }
            EntryAction::Retain(())
        };
        if let EntryResult::Vacant(place) = self.0.entry(&id, None, replace) {
            // The place is kept, so this does not fail.
            let _ = place.insert(Cached::Forgotten(fence));
        }
    }

    /// Returns whether the tombstone of the record with this fence is there.
    pub fn is_forgotten(&self, id: &RecordId, fence: Fence) -> bool {
        self.0.get(id).is_some_and(|entry| matches!(entry, Cached::Forgotten(forgotten) if forgotten == fence))
    }

    /// Removes the record with this fence. Another record or a tombstone stays.
    pub fn remove_record(&self, id: &RecordId, fence: Fence) {
        self.0.remove_if(id, |entry| matches!(entry, Cached::Known(record, _) if record.fence == fence));
    }

    /// Takes a record out.
    pub fn remove(&self, id: &RecordId) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::fingerprint::Fingerprint;
    use crate::record::{
        Completion, Current, Edit, Fence, Hold, Operation, Origin, RunResult, State, Transition, next,
    };

    fn id(number: u64) -> RecordId {
        RecordId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes())
    }

    fn record() -> Record {
        let operation = Operation { id: id(0), fingerprint: Fingerprint::of(b"1"), origin: Origin::default() };
        let hold = Hold { fence: Fence(1), attempt: 1 };
        let (result, retention) = (RunResult::Outcome(Bytes::from(vec![0; 300])), Duration::from_secs(1));
        let completion = Completion { operation, hold, result, retention, began: None };
        match next(Current::Absent, Transition::Complete(completion)).0 {
            Edit::Put(draft) => draft.stamp(None, Fence(1), Timestamp::from_millis(0), Timestamp::from_millis(0)),
            change => panic!("{change:?}"),
        }
    }

    #[test]
    fn a_record_that_was_forgotten_is_not_put_back_and_a_later_one_is_put_in() {
        let (cache, first) = (Cache::new(1 << 20), record());
        let later = Record { fence: Fence(2), ..record() };
        cache.put_unless_forgotten(id(0), first.clone(), false);
        cache.forget(id(0), first.fence);
        cache.put_unless_forgotten(id(0), first, false);
        assert!(cache.get(&id(0)).is_none() && cache.all().is_empty());
        for fence in [2, 3] {
            cache.put_unless_forgotten(id(0), Record { fence: Fence(fence), ..later.clone() }, false);
            assert_eq!(cache.get(&id(0)).map(|record| record.fence), Some(Fence(fence)));
        }
        // What was read before comes late.
        cache.put_unless_forgotten(id(0), record(), false);
        cache.forget(id(0), Fence(2));
        cache.remove_record(&id(0), Fence(2));
        assert_eq!(cache.get(&id(0)).map(|record| record.fence), Some(Fence(3)));
        cache.remove_record(&id(0), Fence(3));
        assert!(cache.get(&id(0)).is_none() && !cache.is_forgotten(&id(0), Fence(3)));
        cache.forget(id(0), Fence(3));
        assert!(cache.is_forgotten(&id(0), Fence(3)) && !cache.is_forgotten(&id(0), Fence(2)));
        cache.put_unless_forgotten(id(1), later, true);
        assert_eq!(cache.all().iter().filter(|(.., is_of_transaction)| *is_of_transaction).count(), 1);
    }

    // Seeded faults: the answer stays; it comes back; what is left of it is no longer the transaction's.
    #[test]
    fn what_is_left_of_a_forgotten_answer_takes_its_place() {
        let (cache, answer) = (Cache::new(1 << 20), record());
        let left = Record { state: State::Consumed { status: 201 }, ..record() };
        cache.put_unless_forgotten(id(0), answer.clone(), true);
        cache.put_unless_forgotten(id(0), left, false);
        cache.put_unless_forgotten(id(0), answer, false);
        let [(_, known, is_of_transaction)] = &cache.all()[..] else { panic!("there is one") };
        assert_eq!((&known.state, *is_of_transaction), (&State::Consumed { status: 201 }, true));
    }

    #[test]
    fn an_outcome_of_1_mib_is_kept_in_a_cache_of_the_usual_size() {
        let cache = Cache::new(8 * 1024 * 1024);
        let state = State::Completed { outcome: Bytes::from(vec![0; 1 << 20]) };
        for number in 0..4 {
            cache.put(id(number), Record { state: state.clone(), ..record() });
        }
        assert!((0..4).all(|number| cache.get(&id(number)).is_some()));
    }

    #[test]
    fn the_newest_are_there_however_many_came_before() {
        const NEWEST: u64 = 5_000;
        let cache = Cache::new(8 * 1024 * 1024);
        for number in 0..100_000 {
            cache.put(id(number), record());
        }
        let found = (100_000 - NEWEST..100_000).filter(|number| cache.get(&id(*number)).is_some()).count();
        assert!(found > 4_950, "{found} of the {NEWEST} newest");
    }
}
