//! A store with a table of the application's, and handlers that charge in the transaction of their answer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::any;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Response, StatusCode};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_idempotency::engine::{EffectError, OnceContext, OnceError, Outcome};
use tower_idempotency::server::Committed;
use tower_idempotency::store::CommitError;
use tower_idempotency::store::{Abort, OpenError, Store, TransactionError};
use tower_idempotency::{Fingerprint, IdempotencyContext, IdempotencyLayer, OnInFlight, OnInterrupted, Once};

use super::app::{Lab, id};
use super::disk::{Disk, DiskBuilder as _, Table as _, View};
use crate::{Answer, Gate};

/// The result of a transaction of these tests.
pub type Commit<T> = Result<T, CommitError<&'static str>>;
/// A transaction that was sent, and its answer.
pub type Committing<T> = BoxFuture<'static, Commit<T>>;
/// The result of a message of these tests.
pub type Delivered = Result<Outcome<String>, OnceError<&'static str>>;

/// The answer of a handler that did not commit.
pub const OWN: (StatusCode, &str) = (StatusCode::PAYMENT_REQUIRED, "the handler's own");

/// Values that handlers leave for the test.
pub type Left<T> = Arc<Mutex<Vec<T>>>;

pub fn take<T>(left: &Left<T>) -> Vec<T> {
    std::mem::take(&mut *left.lock().expect("no handler panics with it"))
}

/// The time for which a test waits for an event, such as a directory that becomes free, and the time between two looks.
const GIVE_UP: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(2);

/// A store in a directory of its own.
pub struct Home<D: Disk> {
    directory: TempDir,
    builder: D::Builder,
    pub store: D,
}

#[allow(clippy::new_without_default, reason = "it makes a directory")]
impl<D: Disk> Home<D> {
    pub fn new() -> Self {
        Self::with(D::builder())
    }

    pub fn with(builder: D::Builder) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = builder.clone().open(place(&directory)).expect("a new store");
        // Made beforehand: to make one waits for a transaction under way.
        store.table("charges");
        Self { directory, builder, store }
    }

    /// Closes the store for all handles and opens it again.
    pub async fn reopened(self) -> Self {
        self.store.close().await.expect("no table is held");
        let store = self.builder.clone().open(place(&self.directory)).expect("it was closed");
        Self { store, ..self }
    }

    /// Drops the store without closing it, and opens it again. There may be no other handle.
    pub async fn dropped(self) -> Self {
        let Self { directory, builder, store } = self;
        drop(store);
        let opening = async {
            loop {
                match builder.clone().open(place(&directory)) {
                    Ok(store) => return store,
                    Err(OpenError::InUse { .. }) => tokio::time::sleep(LOOK).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let store = timeout(GIVE_UP, opening).await.expect("another handle holds the store");
        Self { directory, builder, store }
    }

    /// Returns how often `key` was charged.
    pub fn charged(&self, key: &str) -> u64 {
        charged(&self.store, key)
    }

    pub fn path(&self) -> PathBuf {
        place(&self.directory)
    }
}

fn place(directory: &TempDir) -> PathBuf {
    directory.path().join("payments.db")
}

/// The application's table.
pub fn charges<D: Disk>(store: &D) -> D::Table {
    store.table("charges")
}

/// Returns how often `key` was charged.
pub fn charged(store: &impl Disk, key: &str) -> u64 {
    charges(store).get(key).map_or(0, |count| number(&count))
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("a count has eight bytes"))
}

/// An effect that shows how often it took place: it counts under `key`.
pub fn charge(charges: &impl View, key: &str) -> Result<u64, TransactionError> {
    let count = charges.get(key)?.map_or(0, |count| number(&count)) + 1;
    charges.insert(key, count.to_be_bytes())?;
    Ok(count)
}

/// The answer of a charge: with a header that is replayed, and one that is not.
pub fn receipt(key: &str) -> Response<Bytes> {
    let response = Response::builder().status(201).header("location", format!("/charges/{key}"));
    response.header("set-cookie", "session=1").body(Bytes::from(format!("charged {key}"))).expect("a valid answer")
}

/// Charges and answers in one transaction.
pub fn commit(context: &IdempotencyContext, store: &impl Disk) -> Committing<Committed> {
    commit_with(context, store, |_| Ok(()))
}

/// Likewise, after what `then` does with the table.
pub fn commit_with<D: Disk>(
    context: &IdempotencyContext,
    store: &D,
    then: impl Fn(&D::View<'_>) -> Result<(), Abort<&'static str>> + Send + 'static,
) -> Committing<Committed> {
    let key = context.key().as_str().to_owned();
    store.complete_in(context, [&charges(store)], move |[charges]| {
        charge(&charges, &key)?;
        then(&charges)?;
        Ok(receipt(&key))
    })
}

/// Likewise, with a transaction that waits at a gate.
pub fn commit_behind(
    context: &IdempotencyContext,
    store: &impl Disk,
    pass: impl Fn() + Send + 'static,
) -> Committing<Committed> {
    commit_with(context, store, move |_| {
        pass();
        Ok(())
    })
}

/// Charges `key` and answers in one transaction, `after` having returned on the writer's thread.
pub fn commit_outcome(
    context: &OnceContext<String>,
    store: &impl Disk,
    key: &'static str,
    after: impl Fn() + Send + 'static,
) -> Committing<String> {
    store.complete_in(context, [&charges(store)], move |[charges]| {
        after();
        charge(&charges, key)?;
        Ok(format!("charged {key}"))
    })
}

/// A layer that waits for a run as long as it takes.
pub fn layer<St: Store>(store: St, policy: OnInterrupted) -> IdempotencyLayer<St> {
    IdempotencyLayer::new(store).on_interrupted(policy).on_in_flight(OnInFlight::Wait(GIVE_UP))
}

/// The policies of these tests. Under the first a claim is durable, under the second the slot is the claim.
pub const fn policies() -> [OnInterrupted; 2] {
    [OnInterrupted::Refuse, OnInterrupted::Rerun]
}

/// A handler that is given its context, behind `layer`.
pub fn serve<St, F, Fut, R>(layer: IdempotencyLayer<St>, handler: F) -> Lab
where
    St: Store,
    F: Fn(IdempotencyContext) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = R> + Send + 'static,
    R: IntoResponse + 'static,
{
    let handler = move |context: IdempotencyContext| handler(context);
    Lab::of(Router::new().fallback(any(handler)).layer(layer))
}

/// A handler that charges, and answers with what it committed.
pub fn charging(store: &impl Disk, policy: OnInterrupted) -> Lab {
    let store = store.clone();
    serve(layer(store.clone(), policy), move |context| {
        let committed = commit(&context, &store);
        async move { committed.await.expect("it can be committed") }
    })
}

/// An application whose handler must not run any more: it replays what was recorded.
pub fn replaying(store: &impl Disk, policy: OnInterrupted) -> Lab {
    serve(layer(store.clone(), policy), |_| async { "it ran again" })
}

/// Delivers a message by which `key` is charged as `effect` says.
pub async fn deliver<D, F, Fut>(once: &Once<D, String>, key: &str, effect: F) -> Delivered
where
    D: Disk,
    F: FnOnce(OnceContext<String>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<String, EffectError<&'static str>>> + Send + 'static,
{
    once.run(id(key), Fingerprint::of(b"m"), effect).await
}

/// An answer without the mark of a replay.
pub fn unmarked(mut answer: Answer) -> Answer {
    answer.headers.remove("idempotent-replayed");
    answer
}

/// Asserts that `answer` is the receipt of `key`, and whether it is a replay.
#[track_caller]
pub fn assert_receipt(answer: &Answer, key: &str, is_replay: bool) {
    assert_eq!((answer.status.as_u16(), answer.text()), (201, format!("charged {key}").as_str()));
    assert_eq!(answer.header("location"), Some(format!("/charges/{key}").as_str()));
    assert_eq!(answer.header("set-cookie"), None, "what is not kept is in no answer");
    assert_eq!(answer.is_replay(), is_replay);
}

/// Keeps the writer busy with a transaction of its own, until `gate` is opened: what is sent meanwhile is one batch.
pub async fn busy(store: &impl Disk, gate: &Gate) -> JoinHandle<Delivered> {
    let (once, store, pass) =
        (Once::new(store.clone()).on_interrupted(OnInterrupted::Rerun), store.clone(), gate.on_a_thread());
    let run = tokio::spawn(async move {
        deliver(&once, "busy", move |context| async move {
            commit_outcome(&context, &store, "busy", pass).await.map_err(|_| EffectError::MaybeStarted("not committed"))
        })
        .await
    });
    gate.arrival().await;
    run
}

/// The files in which sled keeps what it never syncs.
pub fn blobs(store: &Path) -> usize {
    store.join("blobs").read_dir().map_or(0, Iterator::count)
}
