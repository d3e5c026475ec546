//! A store with a fault, over one that has none.

use std::future::{Future, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tower_idempotency::MemoryStore;
use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency::internals::Resolution;
use tower_idempotency::internals::{
    Cause, Cursor, List, ListedRecord, Origin, Page, Record, Records, Reply, Sealed, Slots, State, Stepped, Transition,
};
use tower_idempotency::store::{Gauges, Health, Store, StoreError};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fence, RecordId};

use super::effects::{self, Memory};
use super::fault::Fault;

const HOUR: Duration = Duration::from_secs(3_600);

fn interrupted(fence: Fence) -> Transition {
    Transition::Interrupt { fence, cause: Cause::Unknown, lost: None }
}

#[derive(Debug, Clone)]
pub(super) struct Broken<St> {
    inner: St,
    fault: Fault,
    is_closed: Arc<AtomicBool>,
    memory: Arc<Mutex<Memory>>,
    /// The outcomes of the steps that are under way together.
    batch: Arc<Mutex<Vec<Bytes>>>,
}

impl Broken<TestStore> {
    /// A store that one process has alone.
    pub(super) fn alone(fault: Fault, clock: ManualClock, most: usize) -> Self {
        let most = if fault == Fault::HasNoLimit { usize::MAX } else { most };
        Self::over(TestStore::over(MemoryStore::builder().clock(clock).max_records(most)), fault)
    }

    /// The next opening, after the end of this one.
    pub(super) fn reopened(&self, clock: ManualClock) -> Self {
        if self.fault == Fault::ForgetsAtReopening {
            return Self::over(TestStore::with_clock(clock), self.fault);
        }
        let runs = self.remember(|memory| std::mem::take(&mut memory.runs));
        let inner = self.inner.reopen();
        if self.fault == Fault::ForgetsRunsAtReopening {
            for (id, fence) in runs {
                drop(inner.apply(id, Transition::Release(fence)));
            }
        }
        Self::over(inner, self.fault)
    }
}

impl<St: Store + Clone> Broken<St> {
    pub(super) fn over(inner: St, fault: Fault) -> Self {
        Self { inner, fault, is_closed: Arc::default(), memory: Arc::default(), batch: Arc::default() }
    }

    pub(super) fn remember<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    fn key(&self, id: RecordId) -> RecordId {
        let mut bytes = *id.as_bytes();
        if self.fault == Fault::ComparesHalfOfTheId {
            bytes[16..].fill(0);
        }
        RecordId::from_bytes(bytes)
    }

    /// The record as the store below has it; none if that is closed.
    async fn there(&self, id: RecordId) -> Option<Record> {
        self.inner.load(id).await.ok().flatten()
    }

    /// The step, as the fault does it.
    async fn act(self, id: RecordId, transition: Transition) -> Result<Stepped, StoreError> {
        let is_claim = transition.claim().is_some();
        if is_claim && self.is_closed() && self.fault != Fault::TakesClaimsWhenClosed {
            return Err(StoreError::Unavailable { reason: "closed".into(), source: None });
        }
        if !is_claim && self.fault == Fault::RefusesEndingsWhenFull && self.remember(|memory| memory.is_full) {
            return Err(StoreError::Full { limit: "all" });
        }
        let is_late = transition.claim().is_some_and(|claim| claim.timeout.is_zero());
        let (id, now) = (self.key(id), self.now());
        let before = self.there(id).await;
        let transition = self.remember(|memory| memory.sent(self.fault, id, transition, before.as_ref(), now));
        if let (Fault::ResolvesWhatRuns, Transition::Resolve(fence, ..)) = (self.fault, &transition) {
            self.inner.apply(id, interrupted(*fence)).await?;
        }
        if let (Fault::OverwritesWhatItAdopts, Transition::Adopt(_), Some(before)) = (self.fault, &transition, &before)
        {
            for resolution in [Resolution::Release, Resolution::Forget] {
                self.inner.apply(id, Transition::Resolve(before.fence, resolution, HOUR)).await?;
            }
        }
        let applied = if effects::is_refused(self.fault, &transition, before.as_ref()) {
            Stepped { reply: Reply::Refused, record: before.clone() }
        } else {
            self.inner.apply(id, transition.clone()).await.inspect_err(|error| {
                self.remember(|memory| memory.is_full |= matches!(error, StoreError::Full { .. }));
            })?
        };
        let Stepped { reply, record } =
            self.remember(|memory| memory.made(self.fault, id, &transition, before.as_ref(), applied, now));
        if is_late && self.fault == Fault::GrantsLateClaims {
            return Err(StoreError::Unavailable { reason: "too late".into(), source: None });
        }
        let record = record.and_then(|record| self.remember(|memory| memory.seen(self.fault, id, record, now)));
        Ok(Stepped { reply, record: record.filter(|_| !self.forgets_refused(reply)) })
    }

    fn forgets_refused(&self, reply: Reply) -> bool {
        self.fault == Fault::AnswersNothingWhenItRefuses && reply == Reply::Refused
    }

    /// The step of a store that looks first, and then acts on what it saw.
    async fn look_and_act(self, id: RecordId, transition: Transition) -> Result<Stepped, StoreError> {
        let before = self.there(id).await;
        yield_now().await;
        let after = self.there(id).await;
        match (&transition, before, after) {
            (Transition::Claim(_), None, Some(after)) if self.fault == Fault::LooksBeforeItClaims => {
                self.inner.apply(id, Transition::Release(after.fence)).await?;
                self.act(id, transition).await
            }
            (Transition::Reclaim(claim, fence, reason), Some(before), Some(after))
                if self.fault == Fault::LooksBeforeItTakesOver && before.fence == *fence && after.fence != *fence =>
            {
                self.inner.apply(id, interrupted(after.fence)).await?;
                self.act(id, Transition::Reclaim(claim.clone(), after.fence, *reason)).await
            }
            _ => self.act(id, transition).await,
        }
    }

    /// The step of a store that writes outcomes together, and takes one for the other.
    async fn mix_and_act(self, id: RecordId, transition: Transition) -> Result<Stepped, StoreError> {
        let Some(outcome) = transition.outcome().cloned() else { return self.act(id, transition).await };
        self.batch.lock().unwrap().push(outcome);
        yield_now().await;
        let outcome = {
            let mut batch = self.batch.lock().unwrap();
            let which = batch.len() / 2;
            batch.swap_remove(which)
        };
        self.act(id, transition.map(|_| outcome)).await
    }

    async fn all_interrupted(&self) -> Vec<ListedRecord> {
        self.inner.list(List::Interrupted, None, usize::MAX).await.unwrap().records
    }

    async fn listed_interrupted(&self) -> Vec<ListedRecord> {
        let mut listed = Vec::new();
        for run in self.all_interrupted().await {
            let there = self.there(run.id).await;
            let record =
                there.and_then(|there| self.remember(|memory| memory.seen(self.fault, run.id, there, self.now())));
            let is_asked = record
                .as_ref()
                .is_some_and(|record| matches!(record.state, State::Interrupted { run, .. } if run != record.fence));
            if record.is_some() && !(is_asked && self.fault == Fault::ListsNoQuestions) {
                listed.push(run);
            }
        }
        listed
    }
}

/// Takes a step as far as it goes at once, and the rest on a task, so that it is taken though its future is dropped.
fn begin<T: Send + 'static>(step: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
    let mut step = Box::pin(unconstrained(step));
    match (&mut step).now_or_never() {
        Some(answer) => ready(answer).boxed(),
        None => {
            let task = tokio::spawn(step);
            async move { task.await.unwrap() }.boxed()
        }
    }
}

impl<St: Store + Clone> Sealed for Broken<St> {}

impl<St: Store + Clone> Records for Broken<St> {
    fn slots(&self) -> &Arc<Slots> {
        self.inner.slots()
    }

    fn is_exclusive(&self) -> bool {
        self.inner.is_exclusive()
    }

    fn recall(&self, id: RecordId) -> Option<Record> {
        let is_so = self.fault == Fault::RecallsWhatItSaw;
        self.remember(|memory| memory.saw_last.get(&id).filter(|_| is_so).cloned())
    }

    async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let (now, id) = (self.now(), self.key(id));
        let there = self.inner.load(id).await?;
        Ok(self.remember(|memory| memory.loaded(self.fault, id, there, now)))
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Stepped, StoreError>> + Send {
        let store = self.clone();
        let is_ending = matches!(transition, Transition::Complete(_));
        match self.fault {
            Fault::GivesUpWithItsFuture => async move {
                yield_now().await;
                store.act(id, transition).await
            }
            .boxed(),
            Fault::LosesEndingsAtClose if is_ending => begin(async move {
                yield_now().await;
                if store.is_closed() {
                    Err(StoreError::Uncertain { reason: "closed".into(), source: None })
                } else {
                    store.act(id, transition).await
                }
            }),
            Fault::LooksBeforeItClaims | Fault::LooksBeforeItTakesOver => store.look_and_act(id, transition).boxed(),
            Fault::MixesABatch => store.mix_and_act(id, transition).boxed(),
            _ => begin(store.act(id, transition)),
        }
    }

    async fn list(&self, list: List, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        Ok(match list {
            List::Interrupted => effects::page(self.fault, self.listed_interrupted().await, after, limit),
            List::All => {
                let after = after.filter(|_| self.fault != Fault::ScansFromTheStart);
                let mut page = self.inner.list(list, after, limit).await?;
                if self.fault == Fault::LeavesTheLastOut {
                    page.records.pop();
                }
                if self.fault == Fault::ListsNoOrigins {
                    page.records
                        .iter_mut()
                        .flat_map(|one| &mut one.record)
                        .for_each(|it| it.origin = Origin::default());
                }
                page
            }
            List::Running if self.fault == Fault::ListsNoRuns => Page::default(),
            List::Running | List::Disputed => {
                let mut page = self.inner.list(list, after, limit).await?;
                if self.fault == Fault::NamesASession {
                    page.records.iter_mut().for_each(|run| run.session = Some(run.id));
                }
                page
            }
        })
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    async fn inspect(&self, id: RecordId) -> Result<Option<ListedRecord>, StoreError> {
        self.inner.inspect(id).await
    }

    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        if self.fault == Fault::SweepsWhatIsInterrupted {
            for run in self.all_interrupted().await {
                let fence = run.record.unwrap().fence;
                self.inner.apply(run.id, Transition::Resolve(fence, Resolution::Release, HOUR)).await?;
            }
        }
        self.inner.sweep(if self.fault == Fault::SweepsMoreThanItsLimit { usize::MAX } else { limit }).await
    }

    fn changed(&self, id: RecordId) -> BoxFuture<'static, ()> {
        if self.fault == Fault::TellsOfEveryChange { ready(()).boxed() } else { self.inner.changed(id) }
    }
}

impl<St: Store + Clone> Store for Broken<St> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn gauges(&self) -> Gauges {
        self.inner.gauges()
    }

    fn health(&self) -> Health {
        if self.is_closed() { Health::Closed } else { Health::Good }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.is_closed.store(true, Ordering::SeqCst);
        if self.fault == Fault::TakesTheDeadForAlive { Ok(()) } else { self.inner.close().await }
    }
}
