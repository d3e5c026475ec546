//! One batch. Its commands are decided in order, each over the results of those before it, and then written together. A
//! claim and an end are such commands; at an opening, before there is a writer, `open.rs` and `repair.rs` make batches,
//! too.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use ahash::RandomState;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::codec::Stored;
use crate::key::RecordId;
use crate::record::{self, Current, Edit, Record, Stepped, Transition};
use crate::store::StoreError;
use crate::store::embedded::command::{Asked, ReplyTo, Submitted};
use crate::store::embedded::layout::cleared::Cleared;
use crate::store::embedded::layout::listing::Listings;
use crate::store::embedded::layout::storage_engine::{ReadError, StorageEngine};
use crate::store::embedded::layout::totals::Totals;
use crate::store::embedded::layout::writes::Writes;
use crate::store::embedded::read;
use crate::store::embedded::state::{PANICKED, StoreState};

/// The result of a transition, and the outcome that it recorded.
type Taken = (Stepped<Stored>, Option<Bytes>);
/// Sends an answer, once it is known whether the batch is durable.
type Acknowledge<'a> = Box<dyn FnOnce(Result<(), StoreError>) + 'a>;

/// Commands that are decided but not written yet.
pub(crate) struct Batch<'a, E: StorageEngine> {
    pub(crate) shared: &'a StoreState<E>,
    pub(crate) engine: &'a E,
    /// The store's time at the beginning. All commands of the batch judge and count expiries by it.
    pub(crate) now: Timestamp,
    /// The time of the beginning, for what begins in this batch.
    pub(crate) began: Timestamp,
    /// The records as the earlier commands left them; `None` for no record.
    pub(crate) overlay: HashMap<RecordId, Option<Record<Stored>>, RandomState>,
    pub(crate) step: StepUnderWay,
    /// The totals as this batch leaves them so far. Their step is the last one that was written.
    pub(crate) totals: Totals,
    /// The listing entries that were erased, so that none is erased, or subtracted from the sum, twice.
    pub(crate) erased: HashSet<Vec<u8>, RandomState>,
    /// `true` if something was written before the end and has to be made durable; or why that write failed.
    pub(crate) early: Result<bool, String>,
    /// The bytes that were written since the last sync.
    pub(crate) unsynced: usize,
    /// The number of records that were listed as expiring, and the number of chunks that were written. The writer
    /// sweeps the more along with this batch, so that sweeping keeps up with writing.
    pub(crate) listed: usize,
    pub(crate) chunks: usize,
    /// The number of expired records that the batch deletes.
    pub(crate) swept: usize,
    /// What the batch notes, if it does.
    pub(crate) cleared: Option<Cleared>,
    /// The sweeps that were asked for. They come last; see
    /// [`sweep_asked`](crate::store::embedded::writer::sweep_asked).
    pub(crate) sweeps: Vec<Asked>,
    /// The changes of memory once the batch is durable: outcomes, and records that are gone.
    pub(crate) fresh: Vec<(RecordId, Record)>,
    pub(crate) gone: Vec<RecordId>,
    /// They are called in this order at the end, also if the write has failed.
    answers: Vec<Acknowledge<'a>>,
}

/// Changes that were decided and are written together.
#[derive(Default)]
pub(crate) struct StepUnderWay {
    pub(crate) writes: Writes,
    /// `true` if there is anything to write.
    pub(crate) has_writes: bool,
    pub(crate) listings: Listings,
    /// The chunks of long outcomes, and the orphans that lead to them until their records do.
    pub(crate) ahead: Vec<(Vec<u8>, Bytes)>,
    /// The numbers of the listing entries that were erased.
    pub(crate) leaving: Vec<u64>,
    /// `true` if everything, chunks included, is written in one transaction; then the runs that end once it is written.
    pub(crate) is_transaction: bool,
    pub(crate) ended: Vec<RecordId>,
}

impl<'a, E: StorageEngine> Batch<'a, E> {
    pub(crate) fn new(shared: &'a StoreState<E>, engine: &'a E) -> Self {
        let now = shared.time.now();
        Self {
            shared,
            engine,
            now,
            began: shared.time.began(now),
            overlay: HashMap::default(),
            step: StepUnderWay::default(),
            totals: Totals { seen: now.as_millis(), ..shared.totals.lock().clone() },
            erased: HashSet::default(),
            early: Ok(false),
            unsynced: 0,
            listed: 0,
            chunks: 0,
            swept: 0,
            cleared: None,
            sweeps: Vec::new(),
            fresh: Vec::new(),
            gone: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Makes room for this many commands more, so that maps and lists rarely grow while they are decided.
    pub(crate) fn reserve(&mut self, commands: usize) {
        self.overlay.reserve(commands);
        self.step.writes.entries.reserve(commands);
        self.step.listings.reserve(commands);
        self.fresh.reserve(commands);
        self.answers.reserve(commands);
    }

    /// Applies a transition, and answers once this batch is durable.
    pub(crate) fn apply(&mut self, submitted: Submitted) {
        let checked = submitted.check();
        let Submitted { id, transition, reply, .. } = submitted;
        let (applied, outcome) = match checked.and_then(|()| self.take(id, transition)) {
            Ok(taken) => taken,
            // Nothing was decided, so there is nothing to wait for.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let shared = self.shared;
        self.answer(reply, move |engine| {
            let Stepped { reply, record } = applied;
            let record = record.map(|record| match outcome {
                Some(outcome) => record.form(|_| Ok(outcome)),
                // If there is an outcome, an earlier command recorded it. It is read back, once the batch is written.
                None => read::whole(engine, id, &record),
            });
            let record = record.transpose().map_err(|error| shared.read_failed(error, id))?;
            Ok(Stepped { reply, record })
        });
    }

    /// Applies a transition to one record. Returns the result, and the outcome that it recorded.
    pub(crate) fn take(&mut self, id: RecordId, transition: Transition) -> Result<Taken, StoreError> {
        let old = self.current(id).map_err(|error| self.shared.read_failed(error, id))?;
        let live = old.as_ref().filter(|record| record.is_live(self.now));
        if live.is_none() && matches!(transition, Transition::Claim(_)) {
            self.shared.check_room(&self.totals)?;
        }
        if let Transition::Adopt(record) = &transition {
            // A full disk would poison the store. The other limits are those of a service.
            self.shared.check_space()?;
            if record.fence.0 >= self.shared.unused_number() {
                return Err(StoreError::unavailable("the record's fence is not below those that this store gives"));
            }
        }
        let outcome = transition.outcome().cloned();
        let transition = transition.map(Stored::of);
        let (change, reply) = record::next(Current::from(live), transition);
        let record = match change {
            Edit::Nothing => return Ok((Stepped { reply, record: live.cloned() }, None)),
            Edit::Put(draft) => Some(draft.stamp(live, self.shared.next_fence()?, self.began, self.now)),
            Edit::Release => None,
        };
        self.write_record(id, old, record.clone(), outcome.clone())?;
        Ok((Stepped { reply, record }, outcome))
    }

    /// Returns the record as this batch leaves it so far, past its expiry or not.
    pub(crate) fn current(&self, id: RecordId) -> Result<Option<Record<Stored>>, ReadError> {
        // In this order, because each may be newer than the next: this batch, the runs under way, the engine.
        if let Some(record) = self.overlay.get(&id) {
            return Ok(record.clone());
        }
        if let Some(running) = self.shared.runs.lock().get(&id) {
            return Ok(Some(running.clone()));
        }
        if self.shared.key_filter.may_have(&id) { read::head(self.engine, id) } else { Ok(None) }
    }

    /// Sends the result of `answer` to `reply`, once this batch is durable.
    pub(crate) fn answer<T: 'a>(&mut self, reply: ReplyTo<T>, answer: impl FnOnce(&E) -> Result<T, StoreError> + 'a) {
        let (engine, shared) = (self.engine, self.shared);
        self.answer_later(move |committed| {
            // `answer` may read from the engine, which may panic.
            let answer = || shared.guarded(|| answer(engine));
            drop(reply.send(committed.and_then(|()| answer())));
        });
    }

    /// Calls `answer` once this batch is durable, or has failed.
    pub(crate) fn answer_later(&mut self, answer: impl FnOnce(Result<(), StoreError>) + 'a) {
        self.answers.push(Box::new(answer));
    }

    /// Answers once everything that was written to the engine before, also past the store, is durable.
    pub(crate) fn sync(&mut self, reply: ReplyTo<()>) {
        if let Ok(sync) = &mut self.early {
            *sync = true;
        }
        self.answer(reply, |_| Ok(()));
    }

    /// Writes the batch, makes it durable, and only then answers.
    pub(crate) fn commit(mut self) -> Result<(), String> {
        let written = catch_unwind(AssertUnwindSafe(|| self.write_all()));
        let written = written.unwrap_or_else(|_| Err(PANICKED.to_owned()));
        // An engine may fail without its directory, and this is the reason then.
        let result = self.shared.check_place().and(written);
        let Self { shared, engine, totals, swept, erased, cleared, fresh, gone, answers, .. } = self;
        shared.measured.note_batch(answers.len());
        if result.is_ok() {
            shared.removed.fetch_add(erased.len() as u64, Ordering::Relaxed);
            shared.checkpointer.note_durable(totals.checkpoint());
            *shared.totals.lock() = totals;
            // Memory is updated before the answers are sent, so that a caller finds what it was answered.
            for (id, record) in fresh {
                shared.cache.put(id, record);
            }
            gone.iter().for_each(|id| shared.key_filter.remove(id));
        }
        if let Err(reason) = &result {
            // This comes before the answers, because a caller that learns of the failure must find the store poisoned.
            shared.poison(reason.clone());
        }
        for answer in answers {
            answer(result.as_ref().copied().map_err(StoreError::uncertain));
        }
        result?;
        shared.slots.telemetry.count_swept(swept);
        // An answer may have read from the engine, and failed; or the watchdog gave the batch up before it returned.
        if shared.is_poisoned() {
            return Ok(());
        }
        let cleared: Vec<_> = cleared.into_iter().flat_map(Cleared::ranges).collect();
        let after = catch_unwind(AssertUnwindSafe(|| engine.after_sync(&cleared)));
        if let Some(volume) = engine.volume() {
            shared.note_volume(volume);
        }
        after.unwrap_or_else(|_| Err(PANICKED.to_owned())).inspect_err(|reason| shared.poison(reason.clone()))
    }
}
