//! The facts that memory holds without a read: which records there may be, and which runs are under way. Most requests
//! ask for a new key, and they are answered at once.
//!
//! A read may wait for the batch that is being written, and it blocks its thread meanwhile. So a few bytes of every
//! record id are kept and counted: if none is found, there certainly is no record; if one is found, the store is read.
//! A record is put in before it is written and taken out after its deletion is durable, so the count is never too low.
//! When a store is opened, the counts are made from the entries that list the records, if these are whole, or else from
//! the records themselves ([`repair`](super::repair)).
//!
//! Memory also holds how most records were listed last. So a sweep sees that an item of a list is up to date, and
//! deletes the record without reading it.

use std::collections::{HashMap, HashSet};

use ahash::RandomState;
use dashmap::DashMap;

use super::layout::cleared::Cleared;
use super::layout::storage_engine::{ReadError, StorageEngine, scan_from};
use super::layout::totals::Totals;
use super::layout::{keys, listing};
use crate::clock::Timestamp;
use crate::codec::Stored;
use crate::key::RecordId;
use crate::record::{Fence, Record, State};

/// The most records that memory is reserved for when a store is opened.
const MAX_RESERVED: usize = 1 << 20;

/// What is remembered of the records with each tag, which is a part of an id. It takes some 30 bytes for each record.
#[derive(Debug)]
pub(super) struct KeyFilter {
    tags: DashMap<u32, RecordsOfTag, RandomState>,
}

/// What is remembered of the records with a tag. Only the writer reads more of it than whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordsOfTag {
    /// There are so many.
    Count(u32),
    /// There is one, which can be deleted with its own key alone.
    One(Plain),
}

/// How a record was listed last, and the length of its outcome. A fence is given once, and a record is not listed twice
/// with the same fence and time unless it is the same, so half of the bits of both tell whether an item is up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plain {
    fence: u32,
    expires: u32,
    length: u16,
}

/// The contents of the listing entries.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) key_filter: KeyFilter,
    /// The sum of the entries' numbers.
    pub(super) numbers: u64,
    /// `true` if the entries are undamaged and complete.
    pub(super) is_whole: bool,
    /// The records that are listed by the last step, if that step was interrupted before its totals.
    pub(super) late: Vec<(RecordId, Fence)>,
    /// The runs that the totals count. A late record that is among them was there before, as a run that the step
    /// completed.
    pub(super) claimed: HashSet<(RecordId, Fence), RandomState>,
}

impl KeyFilter {
    /// Reads the listing entries. Every record is listed, as running or with its expiry. `said` is what the totals say
    /// about the records and the entries, and the entries before `cleared` are gone.
    pub(super) fn load<E: StorageEngine>(engine: &E, cleared: Cleared, said: &Totals) -> Result<Listed, ReadError> {
        let capacity = usize::try_from(said.count).unwrap_or(usize::MAX).min(MAX_RESERVED);
        let key_filter = Self { tags: DashMap::with_capacity_and_hasher(capacity, RandomState::new()) };
        // `items` and `counted` are compared with the totals; `sum` has all entries, as the next totals will.
        let (mut items, mut sum, mut counted, mut damaged) = (0, 0_u64, 0_u64, false);
        let (mut late, mut claimed) = (Vec::new(), HashSet::default());
        for entry in cleared.firsts().into_iter().flat_map(|from| scan_from(engine, from)) {
            let (key, value) = match entry {
                Err(ReadError::Corrupt(_)) => {
                    // What follows cannot be listed. The repair reads the records themselves.
                    damaged = true;
                    break;
                }
                entry => entry?,
            };
            let (key, value) = (key.as_ref(), value.as_ref());
            let number = keys::number_of(key);
            sum = sum.wrapping_add(number);
            if number < said.below && !said.leaving.contains(&number) {
                counted = counted.wrapping_add(number);
            }
            match listing::read(key, value) {
                Some(records) if number >= said.below => late.extend(records),
                Some(records) => {
                    if key.starts_with(keys::RUNS) {
                        claimed.extend(records.iter().copied());
                    }
                    items += records.len() as u64;
                    records.iter().for_each(|(id, _)| key_filter.insert(id));
                }
                None => damaged = true,
            }
        }
        // Outdated items stay in entries, so there may be more items than records.
        let is_whole = !damaged && items >= said.count && said.numbers == counted;
        late.iter().for_each(|(id, _)| key_filter.insert(id));
        Ok(Listed { key_filter, numbers: sum, is_whole, late, claimed })
    }

    /// Forgets all records, while a store is opened.
    pub(super) fn clear(&self) {
        self.tags.clear();
    }

    /// Returns whether there may be a record of `id`. `false` is certain.
    pub(super) fn may_have(&self, id: &RecordId) -> bool {
        self.tags.contains_key(&tag(id))
    }

    /// Counts a new record, before it is written.
    pub(super) fn insert(&self, id: &RecordId) {
        let mut known = self.tags.entry(tag(id)).or_insert(RecordsOfTag::Count(0));
        *known = RecordsOfTag::Count(known.count() + 1);
    }

    /// Notes that a counted record is written, and when it was listed to expire, if it was with this change.
    pub(super) fn note(&self, id: &RecordId, record: &Record<Stored>, listed: Option<Timestamp>) {
        if let Some(mut known) = self.tags.get_mut(&tag(id))
            && known.count() == 1
        {
            *known =
                listed.and_then(|listed| Plain::of(record, listed)).map_or(RecordsOfTag::Count(1), RecordsOfTag::One);
        }
    }

    /// Returns the length of a record's outcome, if the record is as it was when it was listed with this fence to
    /// expire at this time, and has no other key than its own. `None` says that the record has to be read.
    pub(super) fn length_as_listed(&self, id: &RecordId, fence: Fence, expires: Timestamp) -> Option<u16> {
        match *self.tags.get(&tag(id))? {
            RecordsOfTag::One(plain) => {
                let wanted = Plain { fence: half(fence.0), expires: half(expires.as_millis()), ..plain };
                (plain == wanted).then_some(plain.length)
            }
            RecordsOfTag::Count(_) => None,
        }
    }

    /// Uncounts a record, after its deletion is durable.
    pub(super) fn remove(&self, id: &RecordId) {
        let last = |_: &u32, known: &mut RecordsOfTag| {
            *known = RecordsOfTag::Count(known.count().saturating_sub(1));
            *known == RecordsOfTag::Count(0)
        };
        self.tags.remove_if_mut(&tag(id), last);
    }
}

impl RecordsOfTag {
    const fn count(self) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::One(_) => 1,
        }
    }
}

impl Plain {
    /// Returns what is kept of a record that was listed to expire at `listed`, unless it has other keys than its own.
    fn of(record: &Record<Stored>, listed: Timestamp) -> Option<Self> {
        let length = match &record.state {
            State::Completed { outcome: Stored::Inline(outcome) } => u16::try_from(outcome.len()).ok()?,
            State::Consumed { .. } => 0,
            State::Completed { outcome: Stored::Chunked { .. } }
            | State::Running { .. }
            | State::Interrupted { .. } => {
                return None;
            }
        };
        Some(Self { fence: half(record.fence.0), expires: half(listed.as_millis()), length })
    }
}

/// Returns half as many bits, in which all have a part: the upper ones of a fence are the number of the opening.
const fn half(number: u64) -> u32 {
    ((number ^ number >> 32) & 0xffff_ffff) as u32
}

/// Returns the first bytes of an id, which is a digest.
fn tag(id: &RecordId) -> u32 {
    let [first, second, third, fourth, ..] = *id.as_bytes();
    u32::from_be_bytes([first, second, third, fourth])
}

/// The runs under way whose claims are on disk. The writer finds them here without a read, and sees when all runs of an
/// entry have ended, so that the entry can be removed. Runs of an earlier process were marked as interrupted before the
/// store was open.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Each run's record, and the number of the entry that lists it.
    live: HashMap<RecordId, (Record<Stored>, u64), RandomState>,
    /// The number of runs of each entry that have not ended.
    left: HashMap<u64, usize, RandomState>,
}

impl Runs {
    /// Returns the record of a run under way.
    pub(super) fn get(&self, id: &RecordId) -> Option<&Record<Stored>> {
        self.live.get(id).map(|(record, _)| record)
    }

    /// Returns all runs under way.
    pub(super) fn all(&self) -> impl Iterator<Item = (RecordId, &Record<Stored>)> {
        self.live.iter().map(|(id, (record, _))| (*id, record))
    }

    /// Adds a run that is listed in the entry with this number.
    pub(super) fn begin(&mut self, id: RecordId, record: Record<Stored>, entry: u64) {
        self.live.insert(id, (record, entry));
        *self.left.entry(entry).or_default() += 1;
    }

    /// Returns the lowest number of an entry that lists a run.
    pub(super) fn first_entry(&self) -> Option<u64> {
        self.left.keys().min().copied()
    }

    /// Removes a run that has ended. Returns the number of its entry if it was the last one there.
    pub(super) fn end(&mut self, id: &RecordId) -> Option<u64> {
        let (_, entry) = self.live.remove(id)?;
        let left = self.left.get_mut(&entry)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.left.remove(&entry);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record::{Origin, Owner};

    fn with_one_tag() -> [RecordId; 2] {
        let mut bytes = [7; 32];
        let one = RecordId::from_bytes(bytes);
        bytes[31] = 8;
        let other = RecordId::from_bytes(bytes);
        assert_eq!(tag(&one), tag(&other));
        [one, other]
    }

    fn record(fence: u64, state: State<Stored>) -> Record<Stored> {
        let at = Timestamp::from_millis(5);
        Record {
            fence: Fence(fence),
            began: at,
            since: at,
            expires: Some(at),
            fingerprint: Fingerprint::of(b"m"),
            attempt: 1,
            origin: Origin::default(),
            state,
            owner: Owner::None,
        }
    }

    // Seeded faults: each of the conditions is left out in turn.
    #[test]
    fn only_an_item_that_is_up_to_date_says_how_long_an_outcome_is() {
        const LATE: u64 = 1 << 40;
        let key_filter = KeyFilter { tags: DashMap::default() };
        let [one, other] = with_one_tag();
        let time = Timestamp::from_millis;
        let done = |length| State::Completed { outcome: Stored::of(&vec![1; length].into()) };
        let length = |id: &RecordId, fence, at| key_filter.length_as_listed(id, Fence(fence), time(at));
        assert_eq!(length(&one, 7, LATE), None, "there is none");
        key_filter.insert(&one);
        assert_eq!(length(&one, 0, 0), None, "it was not noted");
        key_filter.note(&one, &record(7, done(200)), Some(time(LATE)));
        assert_eq!(length(&one, 7, LATE), Some(200));
        assert_eq!([length(&one, 6, LATE), length(&one, 7, LATE - 1)], [None; 2], "the item is outdated");
        for chunked in [done(4_000), done(100_000)] {
            key_filter.note(&one, &record(7, chunked), Some(time(LATE)));
            assert_eq!(length(&one, 7, LATE), None, "it has other keys");
        }
        key_filter.note(&one, &record(7, done(200)), Some(time(LATE)));
        key_filter.note(&one, &record(7, done(300)), None);
        assert_eq!(length(&one, 7, LATE), None, "it was written without a new item");
        key_filter.note(&one, &record(7, done(200)), Some(time(LATE)));
        key_filter.insert(&other);
        key_filter.note(&other, &record(8, done(200)), Some(time(LATE)));
        assert_eq!([length(&one, 7, LATE), length(&other, 8, LATE)], [None; 2], "there are two");
        key_filter.remove(&one);
        assert_eq!(length(&other, 8, LATE), None, "it is not known which one is left");
        key_filter.note(&other, &record(8, done(200)), Some(time(LATE)));
        assert_eq!(length(&other, 8, LATE), Some(200));
        key_filter.remove(&other);
        assert!(key_filter.tags.is_empty());
    }

    #[test]
    fn of_two_records_with_the_same_tag_the_other_stays() {
        let key_filter = KeyFilter { tags: DashMap::default() };
        let [one, other] = with_one_tag();
        assert!(!key_filter.may_have(&one));
        key_filter.insert(&one);
        key_filter.insert(&other);
        key_filter.remove(&one);
        assert!(key_filter.may_have(&other));
        key_filter.remove(&other);
        assert!(!key_filter.may_have(&other) && key_filter.tags.is_empty(), "nothing is left");
    }
}
