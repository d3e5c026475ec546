//! A store that fails on command.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::contract::{Health, InterruptedRecord, Sealed, Store};
use super::error::StoreError;
use super::memory::{MemoryStore, MemoryStoreBuilder};
use crate::clock::Clock;
use crate::key::RecordId;
use crate::record::{Claim, Claimed, Completion, Fence, Hold, Record, Resolution, Settled};
use crate::slots::Slots;

/// A verb of the store, to say which call shall fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// Looking a record up.
    Load,
    /// Claiming a new operation.
    Claim,
    /// Claiming an interrupted one.
    Reclaim,
    /// Taking a new fence for an interrupted one.
    Inquire,
    /// Recording an outcome.
    Complete,
    /// Freeing a key.
    Release,
    /// Saying that a run was cut short.
    Interrupt,
    /// Settling an interrupted operation.
    Resolve,
    /// Listing interrupted operations.
    Interrupted,
    /// Sweeping.
    Sweep,
}

/// A store for tests: it fails, stalls, loses answers, crashes and is opened again, each on command. Otherwise it
/// behaves as a store on disk does, with the disk in memory: a claim that need not be durable leaves no trace.
///
/// A handle; clones share the open store.
#[derive(Debug, Clone)]
pub struct TestStore {
    memory: MemoryStore,
    process: Arc<Process>,
}

/// One opening of the store, until its crash.
#[derive(Debug, Default)]
struct Process {
    crashed: AtomicBool,
    faults: Mutex<HashMap<Verb, VecDeque<Fault>>>,
    // Closed once the calls, or their answers, may go on, in the order in which they came.
    stalls: Gates,
    held_answers: Gates,
}

type Gates = Mutex<HashMap<Verb, Arc<Semaphore>>>;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Fail,
    LoseAnswer,
}

/// Calls of one verb, or their answers, are held up until this is dropped.
#[derive(Debug)]
#[must_use = "they go on as soon as this is dropped"]
pub struct Stall {
    gate: Arc<Semaphore>,
}

impl Stall {
    /// Lets them go on.
    pub fn release(self) {}
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.gate.close();
    }
}

impl Default for TestStore {
    fn default() -> Self {
        Self::over(MemoryStoreBuilder::default())
    }
}

impl TestStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that gets the time from `clock`.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        Self::over(MemoryStoreBuilder::default().clock(clock))
    }

    fn over(builder: MemoryStoreBuilder) -> Self {
        Self { memory: builder.volatile_claims().build(), process: Arc::default() }
    }

    /// The next call of `verb` fails, and nothing is done.
    pub fn fail_next(&self, verb: Verb) {
        self.fault(verb, Fault::Fail);
    }

    /// The next call of `verb` is done, but its answer is lost.
    pub fn lose_answer(&self, verb: Verb) {
        self.fault(verb, Fault::LoseAnswer);
    }

    /// Calls of `verb` are held up, undone, until the [`Stall`] is dropped. A claim that is held up for longer than its
    /// `patience` is refused then, as by every store.
    pub fn stall(&self, verb: Verb) -> Stall {
        Stall { gate: gate(&self.process.stalls, verb) }
    }

    /// Calls of `verb` are done, and answered when the [`Stall`] is dropped.
    pub fn hold_answers(&self, verb: Verb) -> Stall {
        Stall { gate: gate(&self.process.held_answers, verb) }
    }

    /// The process dies: every call of this handle and its clones fails from now on. What is on disk stays.
    pub fn crash(&self) {
        self.process.crashed.store(true, Ordering::SeqCst);
    }

    /// Another process opens what is on disk, after a [`crash`](Self::crash): the runs of the last one were cut short.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.crash();
        Self { memory: self.memory.reopened(), process: Arc::default() }
    }

    fn fault(&self, verb: Verb, fault: Fault) {
        lock(&self.process.faults).entry(verb).or_default().push_back(fault);
    }

    /// Does `call` as the faults that were ordered say. It is done when this is called, or, stalled, when it goes on.
    fn call<F, T>(&self, verb: Verb, call: F) -> impl Future<Output = Result<T, StoreError>> + Send + use<F, T>
    where
        F: FnOnce(&MemoryStore) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let closed_for = |gates: &Gates| lock(gates).get(&verb).filter(|gate| !gate.is_closed()).cloned();
        let (gate, held) = (closed_for(&self.process.stalls), closed_for(&self.process.held_answers));
        let (done, answer) = oneshot::channel();
        let store = self.clone();
        let act = move || {
            let _ = done.send(store.act(verb, call));
        };
        match gate {
            None => act(),
            Some(gate) => drop(tokio::spawn(async move {
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

    /// A call that takes an operation: refused once its claimer waits no more.
    fn take<F, T>(
        &self,
        verb: Verb,
        claim: Claim,
        call: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<F, T>
    where
        F: FnOnce(&MemoryStore, Claim) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        // What is not held up is done at once.
        let is_held_up = lock(&self.process.stalls).get(&verb).is_some_and(|gate| !gate.is_closed());
        let deadline = Instant::now().checked_add(claim.patience).filter(|_| is_held_up);
        self.call(verb, move |store| match deadline {
            Some(deadline) if deadline <= Instant::now() => Err(StoreError::unavailable("the claim came too late")),
            _ => call(store, claim),
        })
    }

    fn act<T>(&self, verb: Verb, call: impl FnOnce(&MemoryStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.process.crashed.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("the process crashed"));
        }
        let fault = lock(&self.process.faults).get_mut(&verb).and_then(|faults| faults.pop_front());
        match fault {
            Some(Fault::Fail) => Err(StoreError::unavailable("the test said so")),
            Some(Fault::LoseAnswer) => call(&self.memory).and_then(|_| Err(uncertain())),
            None => call(&self.memory),
        }
    }
}

/// A gate that is closed for `verb` from now on.
fn gate(gates: &Gates, verb: Verb) -> Arc<Semaphore> {
    let gate = Arc::new(Semaphore::new(0));
    lock(gates).insert(verb, Arc::clone(&gate));
    gate
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uncertain() -> StoreError {
    StoreError::uncertain("the answer was lost")
}

/// The answer of a future that is ready at once.
fn now<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    use futures_util::FutureExt as _;
    answer.now_or_never().unwrap_or_else(|| Err(uncertain()))
}

impl Sealed for TestStore {}

impl Store for TestStore {
    fn slots(&self) -> &Arc<Slots> {
        self.memory.slots()
    }

    fn load(&self, id: RecordId) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        self.call(Verb::Load, move |store| now(store.load(id)))
    }

    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Claimed, StoreError>> + Send {
        self.take(Verb::Claim, claim, |store, claim| now(store.claim(claim)))
    }

    fn reclaim(
        &self,
        claim: Claim,
        interrupted: Fence,
    ) -> impl Future<Output = Result<Option<Hold>, StoreError>> + Send {
        self.take(Verb::Reclaim, claim, move |store, claim| now(store.reclaim(claim, interrupted)))
    }

    fn inquire(
        &self,
        id: RecordId,
        interrupted: Fence,
    ) -> impl Future<Output = Result<Option<Fence>, StoreError>> + Send {
        self.call(Verb::Inquire, move |store| now(store.inquire(id, interrupted)))
    }

    fn complete(&self, completion: Completion) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        self.call(Verb::Complete, move |store| now(store.complete(completion)))
    }

    fn release(&self, id: RecordId, fence: Fence) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        self.call(Verb::Release, move |store| now(store.release(id, fence)))
    }

    fn interrupt(
        &self,
        id: RecordId,
        fence: Fence,
        status: Option<u16>,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        self.call(Verb::Interrupt, move |store| now(store.interrupt(id, fence, status)))
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: Fence,
        resolution: Resolution,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send {
        self.call(Verb::Resolve, move |store| now(store.resolve(id, fence, resolution)))
    }

    fn interrupted(
        &self,
        limit: usize,
        status: Option<u16>,
    ) -> impl Future<Output = Result<Vec<InterruptedRecord>, StoreError>> + Send {
        self.call(Verb::Interrupted, move |store| now(store.interrupted(limit, status)))
    }

    fn sweep(&self, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send {
        self.call(Verb::Sweep, move |store| now(store.sweep(limit)))
    }

    fn health(&self) -> Health {
        if self.process.crashed.load(Ordering::SeqCst) { Health::Closed } else { Health::Good }
    }
}
