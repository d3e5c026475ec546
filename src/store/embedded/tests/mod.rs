//! The promises of every embedded engine's store, tested on sled, on fjall and on the smallest engine.

mod cleared;
mod health;
mod lost;
mod map_engine;
mod recovery;
mod sweep;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::batches::batch::Batch;
use super::batches::sweep::sweep;
use super::builder::EmbeddedStoreBuilder;
use super::command::{Command, Submitted};
use super::layout::keys;
use super::layout::storage_engine::{StorageEngine, scan_keys};
use super::layout::writes::Writes;
use super::read;
use super::state::StoreState;
use super::store::EmbeddedStore;
use super::transact::{AppValue, Purpose, Transact};
use super::writer::{SWEPT_IDLE, decide};
use crate::clock::{ManualClock, Timestamp};
use crate::fingerprint::Fingerprint;
use crate::key::{Key, RecordId};
use crate::record::{
    self, Claim, ClaimPolicy, Completion, Fence, Operation, Origin, ReclaimReason, Record, Reply, Resolution,
    RunResult, State, Stepped, Transition,
};
use crate::store::contract::Records as _;
#[cfg(feature = "fjall")]
use crate::store::fjall_engine::{self, FjallEngine, TransactionKeyspace};
use crate::store::sled_engine::{self, SledEngine};
use crate::store::{Health, OpenError, Store as _, StoreError};
use map_engine::MapEngine;

/// An engine that these tests run on.
trait Tested: StorageEngine {
    /// Makes an effect that has this outcome and writes nothing.
    fn nothing_but(outcome: Bytes) -> Self::Transaction;

    /// Makes an effect that panics when it is dropped.
    fn touchy() -> Self::Transaction;
}

/// A value of the application that panics when it is dropped.
struct Touchy;

impl AsRef<[u8]> for Touchy {
    fn as_ref(&self) -> &[u8] {
        b"touchy"
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        panic!("on purpose")
    }
}

impl Tested for SledEngine {
    fn nothing_but(outcome: Bytes) -> Self::Transaction {
        let closure = move |[]: [sled_engine::TransactionTree<'_>; 0]| Ok::<_, super::Abort<()>>(outcome.clone());
        sled_engine::transaction([], closure)
    }

    fn touchy() -> Self::Transaction {
        let touchy = Touchy;
        let closure = move |[]: [sled_engine::TransactionTree<'_>; 0]| {
            Ok::<_, super::Abort<()>>(Bytes::copy_from_slice(touchy.as_ref()))
        };
        sled_engine::transaction([], closure)
    }
}

#[cfg(feature = "fjall")]
impl Tested for FjallEngine {
    fn nothing_but(outcome: Bytes) -> Self::Transaction {
        let closure = move |[]: [TransactionKeyspace<'_>; 0]| Ok::<_, super::Abort<()>>(outcome.clone());
        fjall_engine::transaction([], closure)
    }

    fn touchy() -> Self::Transaction {
        let touchy = Touchy;
        let closure =
            move |[]: [TransactionKeyspace<'_>; 0]| Ok::<_, super::Abort<()>>(Bytes::copy_from_slice(touchy.as_ref()));
        fjall_engine::transaction([], closure)
    }
}

impl Tested for MapEngine {
    fn nothing_but(outcome: Bytes) -> Self::Transaction {
        AppValue::new(outcome)
    }

    fn touchy() -> Self::Transaction {
        AppValue::new(Bytes::from_owner(Touchy))
    }
}

/// Runs a test on each engine.
macro_rules! on_each {
    ($engine:ident, $test:block) => {{
        fn on<$engine: Tested>() $test
        on::<SledEngine>();
        #[cfg(feature = "fjall")]
        on::<FjallEngine>();
        on::<MapEngine>();
    }};
    (async $engine:ident, $test:block) => {{
        async fn on<$engine: Tested>() $test
        on::<SledEngine>().await;
        #[cfg(feature = "fjall")]
        on::<FjallEngine>().await;
        on::<MapEngine>().await;
    }};
}
use on_each;

const HOUR: Duration = Duration::from_secs(3_600);

fn id(name: &str) -> RecordId {
    RecordId::new(None, &Key::new(name).unwrap())
}

/// The right of a run, and the operation that it is for.
#[derive(Debug, Clone, Copy)]
struct Hold {
    id: RecordId,
    fence: Fence,
    attempt: u32,
}

fn wish() -> Claim {
    // Stores take the id that the transition is applied to.
    let (id, fingerprint) = (RecordId::from_bytes([0; 32]), Fingerprint::of(b"m"));
    let (may_repeat, bound, interrupted_retention, timeout) = (false, HOUR, HOUR, HOUR);
    Claim {
        operation: Operation { id, fingerprint, origin: Origin::default() },
        policy: ClaimPolicy::Refuse,
        may_repeat,
        bound,
        interrupted_retention,
        timeout,
    }
}

fn completion(hold: Hold, outcome: impl Into<Bytes>) -> Completion {
    let result = RunResult::Outcome(outcome.into());
    ending(hold, result)
}

/// Returns the completion of the run that has `hold`.
fn ending<O>(hold: Hold, result: RunResult<O>) -> Completion<O> {
    let Hold { id, fence, attempt } = hold;
    let (operation, hold) = (Operation { id, ..wish().operation }, record::Hold { fence, attempt });
    Completion { operation, hold, result, retention: HOUR, began: None }
}

/// Makes a transaction for this purpose, whose answer is not awaited.
fn transact<E: StorageEngine>(purpose: Purpose, effect: E::Transaction) -> Command<E> {
    Command::Transact(Box::new(Transact { purpose, effect, answer: Box::new(drop) }))
}

/// Makes a transaction of the application's own.
fn own<E: StorageEngine>(effect: E::Transaction) -> Command<E> {
    transact(Purpose::Own(Instant::now() + HOUR), effect)
}

/// Makes a command that applies a transition, and the receiver of its answer.
fn sent<E: StorageEngine>(
    id: RecordId,
    transition: Transition,
) -> (Command<E>, oneshot::Receiver<Result<Stepped, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    (Command::Apply(Submitted::new(id, transition, reply)), answer)
}

fn step<E: StorageEngine>(
    batch: &mut Batch<'_, E>,
    id: RecordId,
    transition: Transition,
) -> oneshot::Receiver<Result<Stepped, StoreError>> {
    let (command, answer) = sent(id, transition);
    decide(batch, command);
    answer
}

fn claimed(id: RecordId, answer: Result<Stepped, StoreError>) -> Hold {
    match answer.unwrap() {
        Stepped { reply: Reply::Taken, record: Some(record) } => {
            Hold { id, fence: record.fence, attempt: record.attempt }
        }
        other => panic!("{other:?}"),
    }
}

async fn run<E: StorageEngine>(store: &EmbeddedStore<E>, name: &str) {
    let id = id(name);
    let hold = claimed(id, store.apply(id, Transition::Claim(wish())).await);
    let applied = store.apply(id, Transition::Complete(completion(hold, "done"))).await.unwrap();
    assert_eq!(applied.reply, Reply::Taken);
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_000_000))
}

fn setup<E: Tested>(clock: &ManualClock) -> EmbeddedStoreBuilder<E> {
    EmbeddedStoreBuilder::default().clock(clock.clone())
}

/// Sets a key past the store.
fn set<E: StorageEngine>(engine: &E, key: &[u8], value: Option<Bytes>) {
    let mut writes = Writes::default();
    match value {
        Some(value) => writes.insert(key, value),
        None => writes.remove(key),
    }
    engine.write(writes).unwrap();
}

/// A store without its writer's thread, in which nothing happens by itself.
struct Still<E: Tested> {
    // This field comes before the engine, so that the engine is released with the last handle.
    shared: StoreState<E>,
    engine: E,
    clock: ManualClock,
    _directory: tempfile::TempDir,
}

impl<E: Tested> Still<E> {
    fn new() -> Self {
        let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
        let shared = setup::<E>(&clock).prepare(&directory.path().join("s")).unwrap();
        Self { engine: shared.engine().unwrap(), shared, clock, _directory: directory }
    }

    fn batch(&self) -> Batch<'_, E> {
        Batch::new(&self.shared, &self.engine)
    }

    /// Sweeps a slice, and returns how many records were deleted.
    fn sweep(&self) -> usize {
        let mut batch = self.batch();
        let swept = sweep(&mut batch, SWEPT_IDLE).unwrap().records;
        batch.commit().unwrap();
        swept
    }

    /// Reads what is stored, past the cache.
    fn load(&self, id: RecordId) -> Option<Record> {
        let head = read::head(&self.engine, id).expect("it can be read")?;
        Some(read::whole(&self.engine, id, &head).expect("it is whole"))
    }

    /// Returns how many keys of a kind there are.
    fn count(&self, kind: &str) -> usize {
        scan_keys(&self.engine, kind.as_bytes()).count()
    }

    fn set(&self, key: &[u8], value: Option<Bytes>) {
        set(&self.engine, key, value);
    }
}

/// Opens a store without its threads. sled's threads may hold the file of a store that was dropped a little longer, so
/// this waits for them.
fn prepared<E: Tested>(setup: EmbeddedStoreBuilder<E>, path: &Path) -> Result<StoreState<E>, OpenError> {
    let began = Instant::now();
    loop {
        match setup.clone().prepare(path) {
            Err(OpenError::InUse { .. }) if began.elapsed() < Duration::from_secs(10) => thread::yield_now(),
            opened => return opened,
        }
    }
}

/// Opens a store in a directory of the test's, at the same time as the last.
fn opened<E: Tested>(directory: &tempfile::TempDir) -> Still<E> {
    let clock = clock();
    let shared = prepared(setup(&clock), &directory.path().join("s")).unwrap();
    Still { engine: shared.engine().unwrap(), shared, clock, _directory: tempfile::tempdir().unwrap() }
}

fn complete<E: Tested>(still: &Still<E>, batch: &mut Batch<'_, E>, name: &str, outcome: Bytes) -> RecordId {
    let hold = Hold { id: id(name), fence: still.shared.next_fence().unwrap(), attempt: 1 };
    let _answer = step(batch, hold.id, Transition::Complete(completion(hold, outcome)));
    hold.id
}

fn claim<E: Tested>(still: &Still<E>, names: &[&str]) -> Vec<Hold> {
    let mut batch = still.batch();
    let sent: Vec<_> =
        names.iter().map(|name| (id(name), step(&mut batch, id(name), Transition::Claim(wish())))).collect();
    batch.commit().unwrap();
    sent.into_iter().map(|(id, mut answer)| claimed(id, answer.try_recv().unwrap())).collect()
}

fn end<E: StorageEngine>(batch: &mut Batch<'_, E>, hold: Hold) {
    let _answer = step(batch, hold.id, Transition::Complete(completion(hold, vec![7; 500])));
}
