//! A store that fails on command.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::call::StoreCall;
use crate::clock::{Clock, Timestamp};
use crate::key::RecordId;
use crate::record::{Record, Stepped, Transition};
use crate::slots::Slots;
use crate::store::StoreError;
use crate::store::contract::{Gauges, Health, Records, Sealed, Store};
use crate::store::memory::{MemoryStore, MemoryStoreBuilder};
use crate::store::page::{Cursor, List, Page};

/// A store for tests, which fails, stalls, loses answers, crashes and is opened again on command. Otherwise it behaves
/// as a store on disk does, with the disk in memory: a claim that may be repeated leaves no trace. A value is a handle,
/// and clones share the open store.
#[derive(Debug, Clone)]
pub struct TestStore {
    memory: MemoryStore,
    process: Arc<Process>,
}

/// One opening of the store, until its crash.
#[derive(Debug, Default)]
struct Process {
    // The time of the crash. A call holds this lock until it is done, so a late one does not change the next opening.
    crashed: RwLock<Option<Timestamp>>,
    // The faults that were ordered and did not happen yet, in their order.
    faults: Mutex<HashMap<StoreCall, VecDeque<Fault>>>,
    // The answers of ends that were lost. As over a database, an end that is passed again gets the answer of the first.
    lost: Mutex<HashMap<RecordId, (Transition, Stepped)>>,
    // A gate's semaphore is closed when its calls, or their answers, may go on, in the order in which they came.
    stalls: Gates,
    held_answers: Gates,
}

/// The latest gate of each kind of call, open or not.
type Gates = Mutex<HashMap<StoreCall, Arc<Semaphore>>>;

/// A fault that a test ordered: a call that does nothing, or one that is done and returns an error.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Fail,
    LoseAnswer,
}

/// Holds up calls of one kind, or their answers, until it is dropped.
#[derive(Debug)]
#[must_use = "they go on as soon as this is dropped"]
pub struct Stall {
    gate: Arc<Semaphore>,
}

impl Stall {
    /// Lets the calls go on.
    pub fn release(self) {}
}

impl Drop for Stall {
    fn drop(&mut self) {
        // A closed semaphore lets all of its waiters go on, and all calls that come later.
        self.gate.close();
    }
}

impl Default for TestStore {
    fn default() -> Self {
        Self::over(MemoryStoreBuilder::default())
    }
}

impl TestStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty store that gets the time from `clock`.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        Self::over(MemoryStoreBuilder::default().clock(clock))
    }

    /// Creates an empty store with the settings of `builder`.
    #[doc(hidden)]
    #[must_use]
    pub fn over(mut builder: MemoryStoreBuilder) -> Self {
        builder.volatile_claims = true;
        Self { memory: builder.build(), process: Arc::default() }
    }

    /// Makes the next call of this kind fail, so that nothing is done.
    pub fn fail_next(&self, kind: StoreCall) {
        self.fault(kind, Fault::Fail);
    }

    /// Makes the next call of this kind lose its answer: it is done, but returns [`StoreError::Uncertain`].
    pub fn lose_answer(&self, kind: StoreCall) {
        self.fault(kind, Fault::LoseAnswer);
    }

    /// Holds up calls of this kind, before they are done, until the [`Stall`] is dropped. A claim that is held up for
    /// longer than its `timeout` is refused then, as in every store.
    pub fn stall(&self, kind: StoreCall) -> Stall {
        Stall { gate: gate(&self.process.stalls, kind) }
    }

    /// Lets calls of this kind be done, but holds up their answers until the [`Stall`] is dropped.
    pub fn hold_answers(&self, kind: StoreCall) -> Stall {
        Stall { gate: gate(&self.process.held_answers, kind) }
    }

    /// Kills the process: every call of this handle and its clones fails from now on. What is on disk stays.
    pub fn crash(&self) {
        self.process.crashed.write().get_or_insert_with(|| self.memory.now());
    }

    /// Crashes as [`crash`](Self::crash) does, and opens what is on disk. The runs under way were interrupted by the
    /// crash.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let crashed = *self.process.crashed.write().get_or_insert_with(|| self.memory.now());
        Self { memory: self.memory.reopened(crashed), process: Arc::default() }
    }

    fn fault(&self, kind: StoreCall, fault: Fault) {
        self.process.faults.lock().entry(kind).or_default().push_back(fault);
    }

    /// Does `call`, with the faults that were ordered. It is done when this function is called, or, if it is stalled,
    /// when the stall ends. `call` is passed whether its answer will be lost.
    fn call<F, T>(&self, kind: StoreCall, call: F) -> impl Future<Output = Result<T, StoreError>> + Send + use<F, T>
    where
        F: FnOnce(&Self, bool) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (gate, held) = (closed_for(&self.process.stalls, kind), closed_for(&self.process.held_answers, kind));
        let (done, answer) = oneshot::channel();
        let store = self.clone();
        let act = move || {
            let _ = done.send(store.act(kind, call));
        };
        match gate {
            None => act(),
            Some(gate) => drop(tokio::spawn(async move {
                // This returns an error once the gate is open. It gives no permit.
                let _ = gate.acquire().await;
                act();
            })),
        }
        async move {
            let answer = answer.await.unwrap_or_else(|_| Err(uncertain()));
            if let Some(held) = held {
                let _ = held.acquire().await;
            }
            answer
        }
    }

    /// Does `call` now, or the fault that was ordered for it. A process that crashed meanwhile does nothing.
    fn act<T>(
        &self,
        kind: StoreCall,
        call: impl FnOnce(&Self, bool) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let crashed = self.process.crashed.read();
        if crashed.is_some() {
            return Err(StoreError::unavailable("the process crashed"));
        }
        let fault = self.process.faults.lock().get_mut(&kind).and_then(|faults| faults.pop_front());
        match fault {
            Some(Fault::Fail) => Err(StoreError::unavailable("the test said so")),
            Some(Fault::LoseAnswer) => call(self, true).and_then(|_| Err(uncertain())),
            None => call(self, false),
        }
    }

    /// Applies a transition. An end whose answer was lost gets that answer when it is passed again.
    fn take(&self, id: RecordId, transition: Transition, is_lost: bool) -> Result<Stepped, StoreError> {
        // A claim and a question are asked anew.
        if matches!(transition, Transition::Claim(_) | Transition::Reclaim(..) | Transition::Inquire { .. }) {
            return now(self.memory.apply(id, transition));
        }
        let before = self.process.lost.lock().get(&id).filter(|(lost, _)| *lost == transition).cloned();
        let applied = match before {
            Some((_, applied)) => applied,
            None => now(self.memory.apply(id, transition.clone()))?,
        };
        let mut lost = self.process.lost.lock();
        if is_lost {
            lost.insert(id, (transition, applied.clone()))
        } else {
            lost.remove(&id)
        };
        Ok(applied)
    }
}

/// Returns the gate that holds up calls of this kind, if there is one and it is not open yet.
fn closed_for(gates: &Gates, kind: StoreCall) -> Option<Arc<Semaphore>> {
    gates.lock().get(&kind).filter(|gate| !gate.is_closed()).cloned()
}

/// Makes a gate that is closed for this kind of call from now on.
fn gate(gates: &Gates, kind: StoreCall) -> Arc<Semaphore> {
    let gate = Arc::new(Semaphore::new(0));
    gates.lock().insert(kind, Arc::clone(&gate));
    gate
}

fn uncertain() -> StoreError {
    StoreError::uncertain("the answer was lost")
}

/// Returns the answer of a future that is ready at once.
fn now<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    answer.now_or_never().unwrap_or_else(|| Err(uncertain()))
}

impl Sealed for TestStore {}

impl Records for TestStore {
    fn slots(&self) -> &Arc<Slots> {
        self.memory.slots()
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        self.call(StoreCall::Load, move |store, _| now(store.memory.load(id)))
    }

    fn apply(&self, id: RecordId, transition: Transition) -> impl Future<Output = Result<Stepped, StoreError>> + Send {
        let kind = StoreCall::of(&transition);
        // A claim that is held up is refused when its requester no longer waits. A claim that is not held up is done at
        // once.
        let is_held_up = closed_for(&self.process.stalls, kind).is_some();
        let timeout = transition.claim().map(|claim| claim.timeout).filter(|_| is_held_up);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.call(kind, move |store, is_lost| match deadline {
            Some(deadline) if deadline <= Instant::now() => Err(StoreError::unavailable("the claim came too late")),
            _ => store.take(id, transition, is_lost),
        })
    }

    fn list(
        &self,
        list: List,
        after: Option<Cursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send {
        self.call(StoreCall::List, move |store, _| now(store.memory.list(list, after, limit)))
    }

    fn now(&self) -> Timestamp {
        self.memory.now()
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        self.call(StoreCall::Sweep, move |store, _| now(store.memory.sweep(limit)))
    }
}

impl Store for TestStore {
    fn name(&self) -> &'static str {
        "test"
    }

    fn health(&self) -> Health {
        if self.process.crashed.read().is_some() { Health::Closed } else { self.memory.health() }
    }

    fn gauges(&self) -> Gauges {
        self.memory.gauges()
    }

    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }
}
