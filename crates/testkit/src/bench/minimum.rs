//! The least code that keeps the same promise by hand: sled, one thread that writes all queued records as one batch,
//! flushes and syncs it, and answers; and a handler that waits for it once or twice. No layer, no fingerprint, no
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

struct QueuedRecord {
    key: Bytes,
    value: Bytes,
    done: oneshot::Sender<()>,
}

impl Minimum {
    pub fn open(directory: &Path) -> Self {
        let db = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES).open().expect("it opens");
        let disk = File::options().write(true).open(directory.join("db")).expect("sled has made it");
        let (queue, puts) = channel();
        let writer = std::thread::spawn(move || write(&db, &disk, &puts));
        Self { queue: Some(queue), writer: Some(writer) }
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

fn write(db: &sled::Db, disk: &File, puts: &Receiver<QueuedRecord>) {
    while let Ok(first) = puts.recv() {
        let mut batch = sled::Batch::default();
        let mut done = Vec::new();
        for put in std::iter::once(first).chain(puts.try_iter()).take(MAX_BATCH) {
            batch.insert(put.key.as_ref(), put.value.as_ref());
            done.push(put.done);
        }
        db.apply_batch(batch).expect("it is written");
        db.flush().expect("it is flushed");
        disk.sync_data().expect("it is synced");
        for done in done {
            let _ = done.send(());
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
