//! The store for tests, with a fault.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tower_idempotency::MemoryStore;
use tower_idempotency::clock::{Clock as _, ManualClock, Timestamp};
use tower_idempotency::internals::Resolution;
use tower_idempotency::internals::{
    Applied, Cursor, List, ListedRecord, Page, Record, Records, Reply, Sealed, Slots, State, Transition,
};
use tower_idempotency::store::{Gauges, Health, Store, StoreError};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fence, RecordId};

use super::effects::{self, Memory};
use super::fault::Fault;

const HOUR: Duration = Duration::from_secs(3_600);

fn interrupted(fence: Fence) -> Transition {
    Transition::Interrupt { fence, status: None, lost: None }
}

#[derive(Debug, Clone)]
pub(super) struct Broken {
    inner: TestStore,
    fault: Fault,
    clock: ManualClock,
    is_closed: Arc<AtomicBool>,
    memory: Arc<Mutex<Memory>>,
    /// The outcomes of the steps that are under way together.
    batch: Arc<Mutex<Vec<Bytes>>>,
}

impl Broken {
    pub(super) fn new(fault: Fault, clock: ManualClock, most: usize) -> Self {
        let most = if fault == Fault::HasNoLimit { usize::MAX } else { most };
        let inner = TestStore::over(MemoryStore::builder().clock(clock.clone()).max_records(most));
        let (is_closed, memory, batch) = (Arc::default(), Arc::default(), Arc::default());
        Self { inner, fault, clock, is_closed, memory, batch }.begun()
    }

    pub(super) fn another_process(&self) -> Self {
        self.opened(self.inner.another_process())
    }

    /// The next opening, after the end of this one.
    pub(super) fn reopened(&self) -> Self {
        if self.fault == Fault::ForgetsAtReopening {
            return self.opened(TestStore::with_clock(self.clock.clone()));
        }
        let runs = self.remember(|memory| std::mem::take(&mut memory.runs));
        let inner = self.inner.reopen();
        if self.fault == Fault::ForgetsRunsAtReopening {
            for (id, fence) in runs {
                drop(inner.apply(id, Transition::Release(fence)));
            }
        }
        self.opened(inner)
    }

    fn opened(&self, inner: TestStore) -> Self {
        let (is_closed, memory, batch) = (Arc::default(), Arc::default(), Arc::default());
        Self { inner, is_closed, memory, batch, ..self.clone() }.begun()
    }

    fn begun(self) -> Self {
        if self.fault == Fault::TakesOthersForDead {
            self.inner.lapse();
        }
        self
    }

    pub(super) fn remember<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Timestamp {
        self.clock.wall()
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

    /// The record as the store below has it.
    fn there(&self, id: RecordId) -> Option<Record> {
        at_once(self.inner.load(id)).unwrap()
    }

    fn below(&self, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        at_once(self.inner.apply(id, transition))
    }

    /// The step, as the fault does it.
    fn act(&self, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        let is_claim = transition.claim().is_some();
        if is_claim && self.is_closed() && self.fault != Fault::TakesClaimsWhenClosed {
            return Err(StoreError::Unavailable { reason: "closed".into(), source: None });
        }
        if !is_claim && self.fault == Fault::RefusesEndingsWhenFull && self.remember(|memory| memory.is_full) {
            return Err(StoreError::Full { limit: "all" });
        }
        let is_late = transition.claim().is_some_and(|claim| claim.timeout.is_zero());
        let (id, now, before) = (self.key(id), self.now(), self.there(id));
        let transition = self.remember(|memory| memory.sent(self.fault, id, transition, before.as_ref(), now));
        if let (Fault::ResolvesWhatRuns, Transition::Resolve(fence, ..)) = (self.fault, &transition) {
            self.below(id, interrupted(*fence))?;
        }
        if let (Fault::OverwritesWhatItAdopts, Transition::Adopt(_), Some(before)) = (self.fault, &transition, &before)
        {
            self.below(id, Transition::Resolve(before.fence, Resolution::Release, HOUR))?;
            self.below(id, Transition::Resolve(before.fence, Resolution::Forget, HOUR))?;
        }
        let applied = if effects::is_refused(self.fault, &transition, before.as_ref()) {
            Applied { reply: Reply::Refused, record: before.clone() }
        } else {
            self.below(id, transition.clone()).inspect_err(|error| {
                self.remember(|memory| memory.is_full |= matches!(error, StoreError::Full { .. }));
            })?
        };
        let Applied { reply, record } =
            self.remember(|memory| memory.made(self.fault, id, &transition, before.as_ref(), applied, now));
        if is_late && self.fault == Fault::GrantsLateClaims {
            return Err(StoreError::Unavailable { reason: "too late".into(), source: None });
        }
        let record = record.and_then(|record| self.remember(|memory| memory.seen(self.fault, id, record, now)));
        Ok(Applied { reply, record: record.filter(|_| !self.forgets_refused(reply)) })
    }

    fn forgets_refused(&self, reply: Reply) -> bool {
        self.fault == Fault::AnswersNothingWhenItRefuses && reply == Reply::Refused
    }

    /// The step of a store that looks first, and then acts on what it saw.
    async fn look_and_act(self, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        let before = self.there(id);
        yield_now().await;
        let after = self.there(id);
        match (&transition, before, after) {
            (Transition::Claim(_), None, Some(after)) if self.fault == Fault::LooksBeforeItClaims => {
                self.below(id, Transition::Release(after.fence))?;
                self.act(id, transition)
            }
            (Transition::Reclaim(claim, fence, reason), Some(before), Some(after))
                if self.fault == Fault::LooksBeforeItTakesOver && before.fence == *fence && after.fence != *fence =>
            {
                self.below(id, interrupted(after.fence))?;
                self.act(id, Transition::Reclaim(claim.clone(), after.fence, *reason))
            }
            _ => self.act(id, transition),
        }
    }

    /// The step of a store that writes outcomes together, and takes one for the other.
    async fn mix_and_act(self, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        let Some(outcome) = transition.outcome().cloned() else { return self.act(id, transition) };
        self.batch.lock().unwrap().push(outcome);
        yield_now().await;
        let mut batch = self.batch.lock().unwrap();
        let which = batch.len() / 2;
        let outcome = batch.swap_remove(which);
        drop(batch);
        self.act(id, transition.map(|_| outcome))
    }
}

/// The answer of the store below, which comes at once, however much this task has done already.
fn at_once<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    unconstrained(answer).now_or_never().unwrap()
}

impl Sealed for Broken {}

impl Broken {
    fn all_interrupted(&self) -> Vec<ListedRecord> {
        at_once(self.inner.list(List::Interrupted, None, usize::MAX)).unwrap().records
    }

    fn listed_interrupted(&self) -> Vec<ListedRecord> {
        let is_listed = |run: &ListedRecord| {
            let record = self
                .there(run.id)
                .and_then(|there| self.remember(|memory| memory.seen(self.fault, run.id, there, self.now())));
            let is_asked = record
                .as_ref()
                .is_some_and(|record| matches!(record.state, State::Interrupted { run, .. } if run != record.fence));
            record.is_some() && !(is_asked && self.fault == Fault::ListsNoQuestions)
        };
        self.all_interrupted().into_iter().filter(is_listed).collect()
    }
}

impl Records for Broken {
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

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        let (now, id) = (self.now(), self.key(id));
        let there = self.there(id);
        ready(Ok(self.remember(|memory| memory.loaded(self.fault, id, there, now))))
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        let store = self.clone();
        let is_ending = matches!(transition, Transition::Complete(_));
        let step: Pin<Box<dyn Future<Output = _> + Send>> = match self.fault {
            Fault::GivesUpWithItsFuture => Box::pin(async move {
                yield_now().await;
                store.act(id, transition)
            }),
            Fault::LosesEndingsAtClose if is_ending => {
                let task = tokio::spawn(async move {
                    yield_now().await;
                    if store.is_closed() {
                        Err(StoreError::Uncertain { reason: "closed".into(), source: None })
                    } else {
                        store.act(id, transition)
                    }
                });
                Box::pin(async move { task.await.unwrap() })
            }
            Fault::LooksBeforeItClaims | Fault::LooksBeforeItTakesOver => Box::pin(store.look_and_act(id, transition)),
            Fault::MixesABatch => Box::pin(store.mix_and_act(id, transition)),
            _ => Box::pin(ready(self.act(id, transition))),
        };
        step
    }

    fn list(
        &self,
        list: List,
        after: Option<Cursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send {
        let page = |after| at_once(self.inner.list(list, after, limit)).unwrap();
        ready(Ok(match list {
            List::Interrupted => effects::page(self.fault, self.listed_interrupted(), after, limit),
            List::All => {
                let mut page = page(after.filter(|_| self.fault != Fault::ScansFromTheStart));
                if self.fault == Fault::LeavesTheLastOut {
                    page.records.pop();
                }
                page
            }
            List::Running if self.fault == Fault::ListsNoRuns => Page::default(),
            List::Running | List::Disputed => {
                let mut page = page(after);
                if self.fault == Fault::NamesASession {
                    page.records.iter_mut().for_each(|run| run.session = Some(run.id));
                }
                page
            }
        }))
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    async fn inspect(&self, id: RecordId) -> Result<Option<ListedRecord>, StoreError> {
        self.inner.inspect(id).await
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        if self.fault == Fault::SweepsWhatIsInterrupted {
            for run in self.all_interrupted() {
                let fence = run.record.unwrap().fence;
                self.below(run.id, Transition::Resolve(fence, Resolution::Release, HOUR)).unwrap();
            }
        }
        self.inner.sweep(if self.fault == Fault::SweepsMoreThanItsLimit { usize::MAX } else { limit })
    }

    fn changed(&self, id: RecordId) -> BoxFuture<'static, ()> {
        if self.fault == Fault::TellsOfEveryChange { ready(()).boxed() } else { self.inner.changed(id) }
    }
}

impl Store for Broken {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn gauges(&self) -> Gauges {
        self.inner.gauges()
    }

    fn health(&self) -> Health {
        if self.is_closed() { Health::Closed } else { Health::Good }
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.is_closed.store(true, Ordering::SeqCst);
        if self.fault != Fault::TakesTheDeadForAlive {
            self.inner.lapse();
        }
        ready(Ok(()))
    }
}
