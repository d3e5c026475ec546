//! The calls that a rule makes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{
    Cursor, List, ListedRecord, Owner, Page, Record, Reply, State, Stepped, Transition,
};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::{Store, StoreError};

use super::sample::{claim, inquire, interrupt, name_of, reclaim};
use super::subject::StoreSubject;
use crate::fresh::fresh_id;
use crate::rule::BOUND;

const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// A rule of the contract, as it is tried on a store.
pub(super) type Rule<'a, St> = crate::rule::Rule<'a, StoreSubject<St>>;

impl<St: Store> Rule<'_, St> {
    /// The store of another process, or the same one if there is no other.
    pub(super) fn other(&self) -> &St {
        self.subject.another_process.as_ref().unwrap_or(&self.subject.store)
    }

    pub(super) async fn apply(&self, id: RecordId, transition: &Transition) -> Stepped {
        self.apply_by(&self.subject.store, id, transition).await
    }

    /// Sends a transition, and again where nothing was done, or where it does no harm, until it is decided.
    pub(super) async fn apply_by(&self, store: &St, id: RecordId, transition: &Transition) -> Stepped {
        let ends =
            matches!(transition, Transition::Complete(_) | Transition::Release(_) | Transition::Interrupt { .. });
        let give_up = Instant::now() + BOUND;
        loop {
            let error = match store.apply(id, transition.clone()).await {
                Ok(Stepped { reply, record }) => return Stepped { reply, record: record.map(judged) },
                Err(error) => error,
            };
            let may_be_sent_again = match &error {
                StoreError::Unavailable { .. } | StoreError::Overloaded { .. } => true,
                StoreError::Uncertain { .. } => ends,
                // Among them `Full` and `Corrupt`.
                _ => false,
            };
            if !may_be_sent_again || give_up <= Instant::now() {
                self.fail(format_args!("to {} failed: {error:?}", name_of(transition)));
            }
            sleep(BETWEEN_TRIES).await;
        }
    }

    pub(super) async fn taken(&self, id: RecordId, transition: &Transition) -> Option<Record> {
        self.taken_by(&self.subject.store, id, transition).await
    }

    /// Sends a transition that has to be taken.
    pub(super) async fn taken_by(&self, store: &St, id: RecordId, transition: &Transition) -> Option<Record> {
        let Stepped { reply, record } = self.apply_by(store, id, transition).await;
        self.check(reply == Reply::Taken, || format!("to {} was refused over {record:?}", name_of(transition)));
        record
    }

    pub(super) async fn refused(&self, id: RecordId, transition: &Transition) -> Option<Record> {
        self.refused_by(&self.subject.store, id, transition).await
    }

    /// Sends a transition that must be refused.
    pub(super) async fn refused_by(&self, store: &St, id: RecordId, transition: &Transition) -> Option<Record> {
        let Stepped { reply, record } = self.apply_by(store, id, transition).await;
        self.check(reply == Reply::Refused, || format!("to {} was taken, and made {record:?}", name_of(transition)));
        record
    }

    /// Sends a transition that has to be taken, and leaves a record.
    pub(super) async fn made(&self, id: RecordId, transition: &Transition) -> Record {
        self.made_by(&self.subject.store, id, transition).await
    }

    pub(super) async fn made_by(&self, store: &St, id: RecordId, transition: &Transition) -> Record {
        match self.taken_by(store, id, transition).await {
            Some(record) => record,
            None => self.fail(format_args!("to {} was answered without a record", name_of(transition))),
        }
    }

    /// Claims a new operation.
    pub(super) async fn claimed(&self, id: RecordId) -> Record {
        self.made(id, &claim()).await
    }

    /// Leaves an operation that was interrupted.
    pub(super) async fn interrupted(&self, id: RecordId) -> Record {
        let run = self.claimed(id).await;
        self.made(id, &interrupt(run.fence)).await
    }

    /// Leaves an interrupted operation about which this process asks.
    pub(super) async fn asked(&self, id: RecordId) -> Record {
        let interrupted = self.interrupted(id).await;
        self.made(id, &inquire(interrupted.fence)).await
    }

    /// Leaves an operation that runs for the second time.
    pub(super) async fn taken_over(&self, id: RecordId) -> Record {
        let interrupted = self.interrupted(id).await;
        self.made(id, &reclaim(interrupted.fence)).await
    }

    pub(super) async fn load(&self, id: RecordId) -> Option<Record> {
        self.load_by(&self.subject.store, id).await
    }

    pub(super) async fn load_by(&self, store: &St, id: RecordId) -> Option<Record> {
        self.read(|| store.load(id)).await.map(judged)
    }

    /// Loads the record again and again, until `holds` of it.
    pub(super) async fn load_until(
        &self,
        store: &St,
        id: RecordId,
        what: &str,
        holds: impl Fn(Option<&Record>) -> bool + Send + Sync,
    ) -> Option<Record> {
        let give_up = Instant::now() + BOUND;
        loop {
            let record = self.load_by(store, id).await;
            if holds(record.as_ref()) {
                return record;
            }
            self.check(Instant::now() < give_up, || format!("{what}: after a minute it is still {record:?}"));
            sleep(BETWEEN_TRIES).await;
        }
    }

    pub(super) async fn load_outcome(&self, store: &St, id: RecordId) -> Option<Bytes> {
        match self.load_by(store, id).await?.state {
            State::Completed { outcome } => Some(outcome),
            other => self.fail(format_args!("it was completed, and is {other:?}")),
        }
    }

    pub(super) async fn page(&self, list: List, after: Option<Cursor>, limit: usize) -> Page {
        let page = self.read(|| self.subject.store.list(list, after, limit)).await;
        self.check(page.records.len() <= limit, || format!("a page of {limit} has {}", page.records.len()));
        page
    }

    /// All records of a list, in pages that look at `limit` of them.
    pub(super) async fn all(&self, list: List, limit: usize) -> Vec<ListedRecord> {
        let (mut all, mut after) = (Vec::<ListedRecord>::new(), None);
        for _ in 0..100_000 {
            let Page { records, next } = self.page(list, after, limit).await;
            let is_new = all.last().is_none_or(|last| records.iter().all(|listed| listed.id != last.id));
            self.check(is_new, || "a page has the last operation of the page before".to_owned());
            all.extend(records);
            let Some(next) = next else { return all };
            self.check(Some(next) != after, || "a page ends where it began".to_owned());
            after = Some(next);
        }
        self.fail(format_args!("the list does not end"))
    }

    /// Those of `ids` that are listed as interrupted, in pages of `limit`.
    pub(super) async fn listed(&self, ids: &[RecordId], limit: usize) -> Vec<InterruptedRun> {
        let all = self.all(List::Interrupted, limit).await;
        all.iter().filter(|listed| ids.contains(&listed.id)).filter_map(run_of).collect()
    }

    /// All records, in pages that look at `limit` of them.
    pub(super) async fn scanned(&self, limit: usize) -> Vec<ListedRecord> {
        let all = self.all(List::All, limit).await.into_iter();
        all.map(|listed| ListedRecord { record: listed.record.map(judged), ..listed }).collect()
    }

    /// Reads, and again while the store can't be reached.
    pub(super) async fn read<T: Send, F>(&self, read: impl Fn() -> F + Send + Sync) -> T
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let give_up = Instant::now() + BOUND;
        loop {
            match read().await {
                Ok(read) => return read,
                Err(StoreError::Unavailable { .. }) if Instant::now() < give_up => sleep(BETWEEN_TRIES).await,
                Err(error) => self.fail(format_args!("to read failed: {error:?}")),
            }
        }
    }

    /// Sweeps `limit` records at a time until there is nothing left to sweep, and gives how many there were.
    pub(super) async fn swept(&self, limit: usize) -> usize {
        let mut sum = 0;
        loop {
            let swept = self.read(|| self.subject.store.sweep(limit)).await;
            self.check(swept <= limit, || format!("{swept} records were swept at once, and {limit} are the limit"));
            sum += swept;
            if swept == 0 {
                return sum;
            }
            self.check(sum < 100_000, || "there was always something to sweep".to_owned());
        }
    }

    /// Lets so much time pass by the store's clock, if the subject has one to be moved.
    pub(super) fn pass(&self, by: Duration) {
        if let Some(pass) = &self.subject.clock {
            pass(by);
        }
    }

    /// Waits until a record is absent that is kept for `kept` from now, also for the other process, whose clocks may be
    /// behind.
    pub(super) async fn outlive(&self, id: RecordId, kept: Duration) {
        self.pass(kept);
        for store in [&self.subject.store, self.other()] {
            self.load_until(store, id, "a record past its expiry is absent", |record| record.is_none()).await;
        }
    }

    /// Lets a moment pass by the store's clock, so that two times differ.
    pub(super) async fn tick(&self) {
        let before = self.now().await;
        let give_up = Instant::now() + BOUND;
        self.pass(Duration::from_millis(5));
        while self.now().await <= before {
            self.check(Instant::now() < give_up, || "the store's clock does not move".to_owned());
            sleep(BETWEEN_TRIES).await;
        }
    }

    /// The store's time, as what changes is stamped with it.
    pub(super) async fn now(&self) -> Timestamp {
        let id = fresh_id();
        let Record { since, fence, .. } = self.claimed(id).await;
        self.taken(id, &Transition::Release(fence)).await;
        since
    }

    /// Closes the store, and opens it again if the subject can. Otherwise says what is left out.
    pub(super) async fn reopened(&self) -> Option<St> {
        let Some(reopen) = &self.subject.reopen else {
            self.leave_out("`reopened_by`");
            return None;
        };
        if let Err(error) = self.subject.store.close().await {
            self.fail(format_args!("to close failed: {error:?}"));
        }
        Some(reopen().await)
    }
}

/// A record without what makes no difference: of an operation that no process runs, only another process's question
/// counts, and a store need not remember its own.
fn judged<O>(record: Record<O>) -> Record<O> {
    match (&record.state, record.owner) {
        (State::Interrupted { .. }, Owner::Here) => Record { owner: Owner::None, ..record },
        _ => record,
    }
}

/// What a reconciler gets of an operation that is listed as interrupted.
pub(super) fn run_of(listed: &ListedRecord) -> Option<InterruptedRun> {
    InterruptedRun::of(listed.id, listed.record.as_ref().ok()?)
}
