//! The least code that keeps the same promise by hand: an engine, one thread that writes all queued records as one
//! batch and syncs it, and answers; and a handler that waits for it once or twice. No layer, no fingerprint, no
//! duplicates, no expiry, no interrupted runs.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use dashmap::DashMap;
use http::HeaderMap;
use tokio::sync::oneshot;

use super::exchange::KEY;

const MAX_BATCH: usize = 512;
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// The size of a claim's record: digests, fence, times.
const CLAIM: [u8; 128] = [1; 128];
/// The size of an outcome's record without the answer.
const HEAD: [u8; 160] = [2; 160];

/// Opens the engine of a store by hand, with its own settings, but for the size of the cache: [`on_sled`], or
/// [`on_fjall`] if tower-idempotency has the feature `fjall`.
pub type Engine = fn(&Path, Receiver<QueuedRecord>) -> JoinHandle<()>;

/// The number of times that the handler waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Before the answer.
    One,
    /// And before the effect.
    Two,
}

/// A store, by hand.
#[derive(Debug)]
pub struct Minimum {
    queue: Option<Sender<QueuedRecord>>,
    writer: Option<JoinHandle<()>>,
}

/// A record that waits for the thread that writes.
#[derive(Debug)]
pub struct QueuedRecord {
    key: Bytes,
    value: Bytes,
    done: oneshot::Sender<()>,
}

impl Minimum {
    pub fn open(engine: Engine, directory: &Path) -> Self {
        let (queue, puts) = channel();
        Self { queue: Some(queue), writer: Some(engine(directory, puts)) }
    }

    /// Returns when it is durable.
    pub async fn put(&self, key: Bytes, value: Bytes) {
        let (done, durable) = oneshot::channel();
        self.queue.as_ref().expect("it is open").send(QueuedRecord { key, value, done }).expect("the writer lives");
        durable.await.expect("the writer answers");
    }
}

impl Drop for Minimum {
    fn drop(&mut self) {
        drop(self.queue.take());
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

/// sled's `flush` syncs nothing by itself.
pub fn on_sled(directory: &Path, puts: Receiver<QueuedRecord>) -> JoinHandle<()> {
    let db = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES).open().expect("it opens");
    let disk = File::options().write(true).open(directory.join("db")).expect("sled has made it");
    std::thread::spawn(move || {
        write(&puts, |records| {
            let mut batch = sled::Batch::default();
            records.iter().for_each(|record| batch.insert(&*record.key, &*record.value));
            db.apply_batch(batch).expect("it is written");
            db.flush().expect("it is flushed");
            disk.sync_data().expect("it is synced");
        });
    })
}

tower_idempotency::with_fjall! {
    pub fn on_fjall(directory: &Path, puts: Receiver<QueuedRecord>) -> JoinHandle<()> {
        let db = tower_idempotency::fjall::Database::builder(directory).cache_size(CACHE_BYTES).open().expect("it opens");
        let keyspace = db.keyspace("records", tower_idempotency::fjall::KeyspaceCreateOptions::default).expect("it is made");
        std::thread::spawn(move || {
            write(&puts, |records| {
                let mut batch = db.batch().durability(Some(tower_idempotency::fjall::PersistMode::SyncData));
                records.iter().for_each(|record| batch.insert(&keyspace, &*record.key, &*record.value));
                batch.commit().expect("it is written and synced");
            });
        })
    }
}

/// Writes all queued records as one batch, again and again.
fn write(puts: &Receiver<QueuedRecord>, mut write: impl FnMut(&[QueuedRecord])) {
    while let Ok(first) = puts.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(puts.try_iter()).take(MAX_BATCH).collect();
        write(&batch);
        for record in batch {
            let _ = record.done.send(());
        }
    }
}

/// The handler, by hand, over [`Minimum`].
pub fn durable(length: usize, store: Arc<Minimum>, writes: Writes) -> Router {
    let body = Bytes::from(vec![b'x'; length]);
    let charge = async move |State(store): State<Arc<Minimum>>, headers: HeaderMap| {
        let key = Bytes::copy_from_slice(headers[KEY].as_bytes());
        if writes == Writes::Two {
            store.put(key.clone(), Bytes::from_static(&CLAIM)).await;
        }
        let answer = body.clone();
        store.put(key, [&HEAD[..], &answer].concat().into()).await;
        answer
    };
    Router::new().route("/charges", post(charge)).with_state(store)
}

/// The handler, by hand, over a map: a claim, and the outcome in its place.
pub fn volatile(length: usize) -> Router {
    let body = Bytes::from(vec![b'x'; length]);
    let records: Arc<DashMap<Bytes, Bytes>> = Arc::default();
    let charge = async move |State(records): State<Arc<DashMap<Bytes, Bytes>>>, headers: HeaderMap| {
        let key = Bytes::copy_from_slice(headers[KEY].as_bytes());
        records.insert(key.clone(), Bytes::from_static(&CLAIM));
        let answer = body.clone();
        records.insert(key, [&HEAD[..], &answer].concat().into());
        answer
    };
    Router::new().route("/charges", post(charge)).with_state(records)
}
