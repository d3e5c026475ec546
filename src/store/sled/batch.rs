//! One batch: verbs are decided in order, each over what those before it left, then written together.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::durable::Disk;
use super::keys;
use super::read::{self, ReadError};
use super::state::{Database, Shared};
use crate::clock::Timestamp;
use crate::codec::{self, Stored};
use crate::key::RecordId;
use crate::record::{Change, Fence, Record, State};
use crate::store::StoreError;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
type Answer<'a> = Box<dyn FnOnce(Result<(), StoreError>) + 'a>;

/// Verbs that are decided and not yet written.
pub(super) struct Batch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) database: &'a Database,
    pub(super) now: Timestamp,
    // What the verbs before left of a record; `None`: nothing.
    overlay: HashMap<RecordId, Option<Record<Stored>>>,
    writes: sled::Batch,
    written: bool,
    pub(super) added: i64,
    pub(super) pieces: usize,
    fresh: Vec<(RecordId, Record)>,
    answers: Vec<Answer<'a>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(shared: &'a Shared, database: &'a Database) -> Self {
        Self {
            shared,
            database,
            now: shared.time.now(),
            overlay: HashMap::new(),
            writes: sled::Batch::default(),
            written: false,
            added: 0,
            pieces: 0,
            fresh: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Decides one verb. `outcome` are the bytes that a record put by `arrow` refers to.
    pub(super) fn decide<T: 'a>(
        &mut self,
        id: RecordId,
        outcome: Option<Bytes>,
        reply: Reply<T>,
        arrow: impl FnOnce(&Self, Option<Record<Stored>>) -> Result<(Change<Stored>, T), StoreError>,
    ) {
        match self.step(id, outcome, arrow) {
            Ok(answer) => self.answer(reply, |_| Ok(answer)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Takes one step on one record.
    pub(super) fn step<T>(
        &mut self,
        id: RecordId,
        outcome: Option<Bytes>,
        arrow: impl FnOnce(&Self, Option<Record<Stored>>) -> Result<(Change<Stored>, T), StoreError>,
    ) -> Result<T, StoreError> {
        let current = self.current(id).map_err(|error| error.for_caller(self.shared, id))?;
        let (change, answer) = arrow(self, current.clone().and_then(|record| record.live(self.now)))?;
        self.apply(id, current, change, outcome)?;
        Ok(answer)
    }

    /// Says `reply` what `answer` makes of the tree, once this batch is durable.
    pub(super) fn answer<T: 'a>(
        &mut self,
        reply: Reply<T>,
        answer: impl FnOnce(&sled::Tree) -> Result<T, StoreError> + 'a,
    ) {
        let tree = &self.database.tree;
        self.answers.push(Box::new(move |committed| drop(reply.send(committed.and_then(|()| answer(tree))))));
    }

    /// The record as this batch leaves it so far, past its expiry or not.
    pub(super) fn current(&self, id: RecordId) -> Result<Option<Record<Stored>>, ReadError> {
        match self.overlay.get(&id) {
            Some(record) => Ok(record.clone()),
            None => read::head(&self.database.tree, id),
        }
    }

    fn apply(
        &mut self,
        id: RecordId,
        old: Option<Record<Stored>>,
        change: Change<Stored>,
        outcome: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let new = match change {
            Change::Nothing => return Ok(()),
            Change::Put(record) => Some(record),
            Change::Delete => None,
        };
        let corrupt = |error: codec::CodecError| StoreError::Corrupt { id, reason: error.to_string() };
        let bytes = new.as_ref().map(|record| codec::encode(&id, record)).transpose().map_err(corrupt)?;
        self.shared.cache.remove(&id);
        self.written = true;
        self.added += i64::from(new.is_some()) - i64::from(old.is_some());
        if let Some(old) = &old {
            self.index(id, old, None);
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

    /// Writes, or with `None` removes, all keys that go with a record.
    fn index(&mut self, id: RecordId, record: &Record<Stored>, outcome: Option<Bytes>) {
        let fence = record.fence.0.to_be_bytes();
        let keep = outcome.is_some();
        let mut set = |key: &[u8]| if keep { self.writes.insert(key, &fence) } else { self.writes.remove(key) };
        if let Some(expires) = record.expires() {
            set(&keys::expiry(expires, &id));
        }
        match &record.state {
            State::Running { .. } => set(&keys::running(&id)),
            State::Interrupted { since, .. } => set(&keys::interrupted(*since, &id)),
            State::Consumed { .. } => {}
            State::Completed { outcome: stored, .. } => self.chunk(id, record, stored, outcome),
        }
    }

    fn chunk(&mut self, id: RecordId, record: &Record<Stored>, stored: &Stored, outcome: Option<Bytes>) {
        if let Stored::Chunked { length, .. } = stored {
            match &outcome {
                Some(bytes) => {
                    let pieces = bytes.chunks(keys::CHUNK_BYTES);
                    self.pieces += pieces.len();
                    keys::chunks(id, record.fence, *length)
                        .zip(pieces)
                        .for_each(|(key, piece)| self.writes.insert(&key[..], piece));
                }
                // A long outcome has hundreds of pieces. Nothing leads to them any more; the sweep removes them bit by bit.
                None => self.writes.insert(&keys::grave(&id, record.fence)[..], &[]),
            }
        }
        if let (Some(outcome), Some(expires)) = (outcome, record.expires()) {
            let Record { fingerprint, fence, attempt, began, .. } = *record;
            let state = State::Completed { outcome, expires };
            self.fresh.push((id, Record { fingerprint, fence, attempt, began, state }));
        }
    }

    /// Removes a record that can't be read, and what there may be of its outcome.
    pub(super) fn remove_damaged(&mut self, id: RecordId, fence: Fence) {
        self.shared.cache.remove(&id);
        self.erase(&keys::record(&id));
        self.erase(&keys::running(&id));
        // Since when it was interrupted, if it was, is not known any more.
        let listed = self.database.tree.scan_prefix(keys::INTERRUPTED).keys().filter_map(Result::ok);
        listed.filter(|key| keys::id_of(key) == Some(id)).for_each(|key| self.writes.remove(key));
        self.writes.insert(&keys::grave(&id, fence)[..], &[]);
        self.added -= 1;
        self.overlay.insert(id, None);
    }

    /// Says when a record that can't be read is forgotten, where nothing else says so.
    pub(super) fn expire_damaged(&mut self, id: RecordId, fence: Fence, retention: Duration) {
        let expires = self.now.plus(retention);
        self.write(&keys::expiry(expires, &id), &fence.0.to_be_bytes());
    }

    /// Writes a key that belongs to no record.
    pub(super) fn write(&mut self, key: &[u8], value: &[u8]) {
        self.writes.insert(key, value);
        self.written = true;
    }

    /// Removes a key that belongs to no record.
    pub(super) fn erase(&mut self, key: &[u8]) {
        self.writes.remove(key);
        self.written = true;
    }

    /// Writes the batch, makes it durable, and only then answers. `sync` also where there is nothing to write.
    pub(super) fn commit(mut self, disk: &Disk, sync: bool) -> Result<(), String> {
        let count = self.shared.count.load(std::sync::atomic::Ordering::Relaxed).saturating_add_signed(self.added);
        if self.written {
            let totals = [count.to_be_bytes(), self.now.as_millis().to_be_bytes()].concat();
            self.write(keys::TOTALS, &totals);
        }
        let Self { shared, database, writes, written, fresh, answers, .. } = self;
        let write = || database.tree.apply_batch(writes).map_err(|error| format!("writing failed: {error}"));
        let result = match (shared.is_poisoned(), written) {
            (true, _) => Err("a read failed meanwhile".to_owned()),
            (false, true) => write().and_then(|()| disk.sync(&database.db)),
            (false, false) if sync => disk.sync(&database.db),
            (false, false) => Ok(()),
        };
        if result.is_ok() {
            shared.count.store(count, std::sync::atomic::Ordering::Relaxed);
            for (id, record) in fresh {
                shared.cache.put(id, record);
            }
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
}
