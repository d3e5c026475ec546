//! One batch: verbs are decided in order, each over what those before it left, then written together.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use ahash::RandomState;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::durable::Disk;
use super::keys;
use super::listing::Listings;
use super::read::{self, PANICKED, ReadError};
use super::state::{Database, READERS, Shared};
use super::totals::{Entries, MOST_LEAVING, Totals};
use super::verb::Step;
use super::writes::{MOST_IN_ORDER, Writes};
use crate::clock::Timestamp;
use crate::codec::{self, Stored};
use crate::key::RecordId;
use crate::record::{self, Applied, Change, Current, Fence, Record, State, Transition};
use crate::store::StoreError;

/// How many pieces of long outcomes are written between two syncs: 128 KB, little beside one of sled's segments.
const PIECES_AT_ONCE: usize = 32;

/// The bytes that are written in one step, or one transaction. Between two syncs there are at most half as many more. See
/// [`Batch::write_out`].
pub(super) const MAX_STEP: usize = 128 * 1024;
/// What one verb writes at most beside its pieces: a record with its outcome, and what lists it.
const MAX_VERB: usize = 8 * 1024;
/// What a record adds to an entry that lists it.
const LISTED_BYTES: usize = 40;

const READ_FAILED: &str = "a read failed meanwhile";

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
type Answer<'a> = Box<dyn FnOnce(Result<(), StoreError>) + 'a>;

/// Verbs that are decided and not yet written.
pub(super) struct Batch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) database: &'a Database,
    disk: &'a Disk,
    pub(super) now: Timestamp,
    // What the verbs before left of a record; `None`: nothing.
    overlay: HashMap<RecordId, Option<Record<Stored>>, RandomState>,
    writes: Writes,
    written: bool,
    listings: Listings,
    // The pieces of long outcomes, and the graves that lead to them until their records do.
    ahead: Vec<(Vec<u8>, Bytes)>,
    // Whether all is written in one transaction, pieces too; and whose runs it ends, once it is written.
    together: bool,
    ended: Vec<RecordId>,
    // Whether something was written already that is to be made durable, or failed to be.
    early: Result<bool, String>,
    // The bytes that were written since the last sync.
    unsynced: usize,
    // By how much the number of records has changed, and the bytes of all outcomes.
    pub(super) added: i64,
    pub(super) bytes: i64,
    // By how much the sum of the entries' numbers has changed, which wraps; and the entries that were erased, all and
    // since the last step.
    numbers: u64,
    erased: HashSet<Vec<u8>, RandomState>,
    leaving: Vec<u64>,
    /// How many records were listed as expiring.
    pub(super) listed: usize,
    pub(super) pieces: usize,
    /// The sweeps that were asked for, which come last: see [`sweep_asked`](super::writer::sweep_asked).
    pub(super) sweeps: Vec<(usize, Reply<usize>)>,
    fresh: Vec<(RecordId, Record)>,
    gone: Vec<RecordId>,
    answers: Vec<Answer<'a>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(shared: &'a Shared, database: &'a Database, disk: &'a Disk) -> Self {
        Self {
            shared,
            database,
            disk,
            now: shared.time.now(),
            overlay: HashMap::default(),
            writes: Writes::default(),
            written: false,
            listings: Listings::default(),
            ahead: Vec::new(),
            together: false,
            ended: Vec::new(),
            early: Ok(false),
            unsynced: 0,
            added: 0,
            bytes: 0,
            numbers: 0,
            erased: HashSet::default(),
            leaving: Vec::new(),
            listed: 0,
            pieces: 0,
            sweeps: Vec::new(),
            fresh: Vec::new(),
            gone: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Takes a step, and answers once this batch is durable.
    pub(super) fn apply(&mut self, step: Step) {
        let checked = step.check();
        let Step { id, transition, reply, .. } = step;
        let outcome = transition.outcome().cloned();
        let applied = match checked.and_then(|()| self.step(id, transition)) {
            Ok(applied) => applied,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let shared = self.shared;
        self.answer(reply, move |tree| {
            let Applied { reply, record } = applied;
            let record = record.map(|record| match outcome.filter(|_| reply == record::Reply::Taken) {
                Some(outcome) => record.form(|_| Ok(outcome)),
                None => read::whole(tree, id, &record),
            });
            let record = record.transpose().map_err(|error| error.for_caller(shared, id))?;
            Ok(Applied { reply, record })
        });
    }

    /// Takes a step on one record.
    pub(super) fn step(&mut self, id: RecordId, transition: Transition) -> Result<Applied<Stored>, StoreError> {
        let old = self.current(id).map_err(|error| error.for_caller(self.shared, id))?;
        let live = old.clone().and_then(|record| record.live(self.now));
        if live.is_none() && matches!(transition, Transition::Claim(_)) {
            self.shared.check_room(self.added, self.bytes)?;
        }
        let outcome = transition.outcome().cloned();
        let transition = transition.map(|outcome| Stored::of(&outcome));
        let (change, reply) = record::next(Current::from(live.as_ref()), transition);
        let record = match change {
            Change::Nothing => return Ok(Applied { reply, record: live }),
            Change::Put(draft) => Some(draft.stamp(live.as_ref(), self.shared.next_fence()?, self.now)),
            Change::Release => None,
        };
        self.write_record(id, old, record.clone(), outcome)?;
        Ok(Applied { reply, record })
    }

    /// Says `reply` what `answer` makes of the tree, once this batch is durable.
    pub(super) fn answer<T: 'a>(
        &mut self,
        reply: Reply<T>,
        answer: impl FnOnce(&sled::Tree) -> Result<T, StoreError> + 'a,
    ) {
        let (tree, shared) = (&self.database.tree, self.shared);
        self.tell(move |committed| {
            let answer = || read::guarded(shared, || answer(tree));
            drop(reply.send(committed.and_then(|()| answer())));
        });
    }

    /// Calls `answer` once this batch is durable, or has failed.
    pub(super) fn tell(&mut self, answer: impl FnOnce(Result<(), StoreError>) + 'a) {
        self.answers.push(Box::new(answer));
    }

    /// Between two verbs: writes what was decided so far, if another one might not fit into the step. Where that fails, the
    /// batch does.
    pub(super) fn divide(&mut self) {
        if self.writes.bytes() + MAX_VERB > MAX_STEP {
            let _ = self.write_decided();
        }
    }

    /// Writes what was decided so far; it is made durable, and answered, at the end.
    pub(super) fn write_decided(&mut self) -> Result<(), StoreError> {
        self.early.as_ref().map_err(StoreError::uncertain)?;
        if self.shared.is_poisoned() {
            self.early = Err(READ_FAILED.to_owned());
        } else if self.written {
            self.early = self.write_out().map(|()| true);
        }
        self.early.as_ref().map(drop).map_err(StoreError::uncertain)
    }

    /// Before a transaction, of which nobody knows how much it writes.
    pub(super) fn make_room(&mut self) -> Result<(), StoreError> {
        if let Err(reason) = self.sync_from(MAX_STEP / 2) {
            self.early = Err(reason);
        }
        self.early.as_ref().map(drop).map_err(StoreError::uncertain)
    }

    /// Makes durable what was written before, if it is more than this: see [`write_out`](Self::write_out).
    fn sync_from(&mut self, bytes: usize) -> Result<(), String> {
        if self.unsynced > bytes {
            self.disk.sync(&self.database.db)?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// The bytes that were written since the last sync.
    #[cfg(test)]
    pub(super) fn unsynced(&self) -> usize {
        self.unsynced
    }

    /// The keys of the next step, which are written one by one, in their order.
    #[cfg(test)]
    pub(super) fn next_step(&mut self) -> Vec<(sled::IVec, Option<sled::IVec>)> {
        let writes = self.take_writes();
        assert!(!writes.is_atomic());
        writes.in_order()
    }

    /// The bytes of the next step.
    #[cfg(test)]
    pub(super) fn step_bytes(&self) -> usize {
        self.writes.bytes()
    }

    /// The writes of one more change, and a batch that knows of it, to be [merged](Self::merge) once they are written.
    pub(super) fn beside(
        &self,
        id: RecordId,
        old: Option<Record<Stored>>,
        new: Record<Stored>,
        outcome: Bytes,
    ) -> Result<(sled::Batch, Self), StoreError> {
        let empty = Self::new(self.shared, self.database, self.disk);
        let (added, bytes, numbers) = (self.added, self.bytes, self.numbers);
        let mut batch = Self { now: self.now, added, bytes, numbers, together: true, ..empty };
        batch.write_record(id, old, Some(new), Some(outcome))?;
        Ok((batch.take_writes().into_batch(), batch))
    }

    /// Takes over what a batch beside this one has written.
    pub(super) fn merge(&mut self, beside: Self) {
        self.overlay.extend(beside.overlay);
        self.added = beside.added;
        self.bytes = beside.bytes;
        self.numbers = beside.numbers;
        self.listed += beside.listed;
        self.pieces += beside.pieces;
        self.fresh.extend(beside.fresh);
        self.gone.extend(beside.gone);
        beside.ended.iter().for_each(|id| self.end_run(id));
    }

    /// A transaction has written so much, which is to be made durable.
    pub(super) fn has_written(&mut self, bytes: usize) {
        self.early = Ok(true);
        self.unsynced += bytes;
    }

    /// What was written early has failed: so does the batch.
    pub(super) fn fail(&mut self, reason: String) {
        self.early = Err(reason);
    }

    /// The writes so far, with the totals that go with them.
    fn take_writes(&mut self) -> Writes {
        let written = self.listings.write(&mut self.writes, || self.shared.next_number());
        self.numbers = self.numbers.wrapping_add(written);
        let mut leaving = std::mem::take(&mut self.leaving);
        if leaving.len() > MOST_LEAVING || self.writes.len() > MOST_IN_ORDER {
            self.writes.require_atomic();
        }
        if self.writes.is_atomic() || self.together {
            leaving.clear();
        }
        let entries = Entries { sum: self.sum(), below: self.shared.unused_number(), leaving };
        let totals = Totals { count: self.count(), seen: self.now.as_millis(), bytes: self.outcome_bytes(), entries };
        self.writes.insert(keys::TOTALS, totals.encode());
        self.written = false;
        std::mem::take(&mut self.writes)
    }

    fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed).saturating_add_signed(self.added)
    }

    fn outcome_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed).saturating_add_signed(self.bytes)
    }

    fn sum(&self) -> u64 {
        self.shared.numbers.load(Ordering::Relaxed).wrapping_add(self.numbers)
    }

    /// The record as this batch leaves it so far, past its expiry or not.
    pub(super) fn current(&self, id: RecordId) -> Result<Option<Record<Stored>>, ReadError> {
        if let Some(record) = self.overlay.get(&id) {
            return Ok(record.clone());
        }
        if let Some(running) = self.shared.runs().get(&id) {
            return Ok(Some(running.clone()));
        }
        if self.shared.present.may_have(&id) { read::head(&self.database.tree, id) } else { Ok(None) }
    }

    /// Replaces a record by another one, or removes it. `outcome` are the bytes that the new one refers to.
    pub(super) fn write_record(
        &mut self,
        id: RecordId,
        old: Option<Record<Stored>>,
        new: Option<Record<Stored>>,
        outcome: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let corrupt = |error: codec::CodecError| StoreError::Corrupt { id, reason: error.to_string() };
        let bytes = new.as_ref().map(|record| codec::encode(&id, record)).transpose().map_err(corrupt)?;
        self.shared.cache.remove(&id);
        self.written = true;
        self.added += i64::from(new.is_some()) - i64::from(old.is_some());
        self.bytes += outcome_bytes(new.as_ref()) - outcome_bytes(old.as_ref());
        if !is_one_by_one(old.as_ref(), new.as_ref()) {
            self.writes.require_atomic();
        }
        if self.overlay.contains_key(&id) {
            self.fresh.retain(|(earlier, _)| *earlier != id);
        }
        match (&old, &new) {
            (None, Some(_)) => self.shared.present.insert(&id),
            (Some(_), None) => self.gone.push(id),
            _ => {}
        }
        if let Some(old) = &old {
            self.index(id, old, None);
        }
        // Where that is not listed already: an inquiry leaves it as it is.
        let expires = new.as_ref().and_then(|new| new.expires);
        if let (Some(record), Some(expires)) =
            (&new, expires.filter(|_| expires != old.as_ref().and_then(|old| old.expires)))
        {
            self.expire(id, record.fence, expires);
        }
        match (&new, bytes) {
            (Some(record), Some(bytes)) => {
                self.index(id, record, Some(outcome.unwrap_or_default()));
                self.writes.insert(&keys::record(&id)[..], bytes);
            }
            _ => self.writes.remove(&keys::record(&id)[..]),
        }
        self.overlay.insert(id, new);
        Ok(())
    }

    /// Writes, or with `None` removes, all keys that go with a record. Its place in a list is left as it is.
    fn index(&mut self, id: RecordId, record: &Record<Stored>, outcome: Option<Bytes>) {
        let keep = outcome.is_some();
        match &record.state {
            State::Running { .. } if keep => {
                self.writes.count(LISTED_BYTES);
                let entry = self.listings.claimed(&id, record.fence, || self.shared.next_number());
                self.shared.runs().begin(id, record.clone(), entry);
            }
            State::Running { .. } if self.together => self.ended.push(id),
            State::Running { .. } => self.end_run(&id),
            State::Interrupted { .. } => {
                let key = keys::interrupted(record.since, &id);
                if keep {
                    self.writes.insert(&key[..], &record.fence.0.to_be_bytes()[..]);
                } else {
                    self.writes.remove(&key[..]);
                }
            }
            State::Consumed { .. } => {}
            State::Completed { outcome: stored } => self.chunk(id, record, stored, outcome),
        }
    }

    /// A run is over. The entry it is listed in goes with the last one's.
    fn end_run(&mut self, id: &RecordId) {
        let last = self.shared.runs().end(id);
        if let Some(entry) = last.filter(|entry| !self.listings.forget(*entry)) {
            self.erase_entry(&keys::claimed(entry));
        }
    }

    fn chunk(&mut self, id: RecordId, record: &Record<Stored>, stored: &Stored, outcome: Option<Bytes>) {
        if let Stored::Chunked { length, .. } = stored {
            match &outcome {
                Some(bytes) => {
                    let keys = keys::chunks(id, record.fence, *length);
                    let pieces = (0..bytes.len())
                        .step_by(keys::CHUNK_BYTES)
                        .map(|start| bytes.slice(start..bytes.len().min(start + keys::CHUNK_BYTES)));
                    self.pieces += pieces.len();
                    if self.together {
                        keys.zip(pieces).for_each(|(key, piece)| self.writes.insert(&key[..], &*piece));
                    } else {
                        // First what leads to them, if this process ends before their record does.
                        let grave = keys::grave(&id, record.fence);
                        self.ahead.push((grave.to_vec(), Bytes::new()));
                        self.ahead.extend(keys.zip(pieces).map(|(key, piece)| (key.to_vec(), piece)));
                        self.writes.remove(&grave[..]);
                    }
                }
                // A long outcome has hundreds of pieces. Nothing leads to them any more; the sweep removes them bit by bit.
                None => self.writes.insert(&keys::grave(&id, record.fence), &[][..]),
            }
        }
        if let Some(outcome) = outcome
            && let Ok(record) = record.form(|_| Ok::<_, Infallible>(outcome))
        {
            self.fresh.push((id, record));
        }
    }

    /// Removes a record that can't be read, and what there may be of its outcome.
    pub(super) fn remove_damaged(&mut self, id: RecordId, fence: Fence) {
        self.shared.cache.remove(&id);
        // How long its outcome was is not known: that stays counted, until the lists are made anew.
        self.erase(&keys::record(&id));
        self.gone.push(id);
        // Since when it was interrupted, if it was, is not known any more.
        let listed = self.database.tree.scan_prefix(keys::INTERRUPTED).keys().map_while(Result::ok);
        listed.filter(|key| keys::id_of(key) == Some(id)).for_each(|key| self.writes.remove(&key));
        self.writes.insert(&keys::grave(&id, fence), &[][..]);
        self.added -= 1;
        self.overlay.insert(id, None);
    }

    /// Lists a record as one that is forgotten then.
    pub(super) fn expire(&mut self, id: RecordId, fence: Fence, expires: Timestamp) {
        self.listings.expiring(expires, &id, fence);
        self.writes.count(LISTED_BYTES);
        self.listed += 1;
        self.written = true;
    }

    /// Removes an entry that lists records, unless it was already.
    pub(super) fn erase_entry(&mut self, key: &[u8]) {
        if self.erased.insert(key.to_vec()) {
            let number = keys::number_of(key);
            self.numbers = self.numbers.wrapping_sub(number);
            self.leaving.push(number);
            self.writes.remove(key);
            self.written = true;
        }
    }

    /// Whether an entry is removed by this batch.
    pub(super) fn has_erased(&self, key: &[u8]) -> bool {
        self.erased.contains(key)
    }

    /// Whether this batch has changed a record.
    pub(super) fn has_changed(&self, id: &RecordId) -> bool {
        self.overlay.contains_key(id)
    }

    /// Writes a key that belongs to no record.
    pub(super) fn write(&mut self, key: &[u8], value: &[u8]) {
        self.writes.insert(key, value);
        self.writes.require_atomic();
        self.written = true;
    }

    /// Removes a key that belongs to no record.
    pub(super) fn erase(&mut self, key: &[u8]) {
        self.writes.remove(key);
        self.writes.require_atomic();
        self.written = true;
    }

    /// Commits the totals alone.
    pub(super) fn commit_totals(mut self) -> Result<(), String> {
        self.written = true;
        self.commit(true)
    }

    /// Writes the batch, makes it durable, and only then answers. `sync` also where there is nothing to write.
    pub(super) fn commit(mut self, sync: bool) -> Result<(), String> {
        let written = catch_unwind(AssertUnwindSafe(|| self.write_all(sync)));
        let result = written.unwrap_or_else(|_| Err(PANICKED.to_owned()));
        let (count, bytes, sum) = (self.count(), self.outcome_bytes(), self.sum());
        let Self { shared, fresh, gone, answers, .. } = self;
        if result.is_ok() {
            shared.count.store(count, Ordering::Relaxed);
            shared.bytes.store(bytes, Ordering::Relaxed);
            shared.numbers.store(sum, Ordering::Relaxed);
            for (id, record) in fresh {
                shared.cache.put(id, record);
            }
            gone.iter().for_each(|id| shared.present.remove(id));
        }
        if let Err(reason) = &result {
            // Before the answers: who is told of the failure must find the store poisoned.
            shared.poison(reason.clone());
        }
        for answer in answers {
            answer(result.as_ref().copied().map_err(StoreError::uncertain));
        }
        result
    }

    fn write_all(&mut self, sync: bool) -> Result<(), String> {
        if self.shared.is_poisoned() {
            return Err(READ_FAILED.to_owned());
        }
        let early = self.early.clone()?;
        let written = self.written;
        if written {
            self.write_out()?;
        }
        if early || written || sync { self.disk.sync(&self.database.db) } else { Ok(()) }
    }

    /// Writes what was decided so far: first the pieces of long outcomes, a little at a time and each made durable, then in
    /// one step everything else.
    ///
    /// sled takes a batch back as a whole if the process ends within it, and with it what its space collection has moved
    /// meanwhile. Where the batch was so long that the old places of what was moved are written over already, the
    /// database can't be opened any more. So nothing that long is written in one step, or between two syncs.
    fn write_out(&mut self) -> Result<(), String> {
        let ahead = std::mem::take(&mut self.ahead);
        if !ahead.is_empty() {
            self.sync_from(0)?;
        }
        for slice in ahead.chunks(PIECES_AT_ONCE) {
            let mut batch = sled::Batch::default();
            slice.iter().for_each(|(key, piece)| batch.insert(key.as_slice(), piece.as_ref()));
            self.database.tree.apply_batch(batch).map_err(|error| write_failed(&error))?;
            self.disk.sync(&self.database.db)?;
            self.unsynced = 0;
        }
        // A reader of sled's may make new pages, where one has grown too long; two threads should not at once.
        let alone = self.shared.readers.try_acquire_many(READERS);
        if alone.is_err() {
            self.writes.require_atomic();
        }
        let writes = self.take_writes();
        self.sync_from(MAX_STEP.saturating_sub(writes.bytes()))?;
        self.unsynced += writes.bytes();
        let tree = &self.database.tree;
        if writes.is_atomic() {
            return tree.apply_batch(writes.into_batch()).map_err(|error| write_failed(&error));
        }
        for (key, value) in writes.in_order() {
            let written = match value {
                Some(value) => tree.insert(key, value),
                None => tree.remove(key),
            };
            written.map_err(|error| write_failed(&error))?;
        }
        Ok(())
    }
}

/// The bytes of a record's outcome.
pub(super) fn outcome_bytes(record: Option<&Record<Stored>>) -> i64 {
    let Some(Record { state: State::Completed { outcome, .. }, .. }) = record else { return 0 };
    i64::try_from(outcome.len()).unwrap_or(i64::MAX)
}

/// Whether what this change writes may be written key by key: a claim of what there was no record of, and the completion of
/// a run, unless its outcome is in pieces, which a grave leads to until the record does.
fn is_one_by_one(old: Option<&Record<Stored>>, new: Option<&Record<Stored>>) -> bool {
    let was_there = old.map(|old| &old.state);
    match new.map(|new| &new.state) {
        Some(State::Running { .. }) => was_there.is_none(),
        Some(State::Completed { outcome: Stored::Inline(_), .. } | State::Consumed { .. }) => {
            matches!(was_there, None | Some(State::Running { .. }))
        }
        _ => false,
    }
}

fn write_failed(error: &sled::Error) -> String {
    format!("writing failed: {error}")
}
