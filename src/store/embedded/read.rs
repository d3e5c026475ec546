//! Reads. Those of a request do not pass through the writer. A batch uses `head`, of the writer or of an
//! opening, for the record that it changes, and `whole`, for an outcome that an earlier command of the batch has
//! recorded.
//!
//! What memory cannot answer is read on a few of the runtime's threads for blocking work. So a requester can give up
//! when a read takes too long, and the runtime's own threads go on however slow the disk is.
//!
//! A read may meet a batch that is half applied: a record whose chunks are not there yet, or not any more. It is then
//! tried once more, and refused if the chunks still do not fit.

use std::future::{Future, ready};
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::Either;

use super::layout::keys;
use super::layout::storage_engine::{ReadError, StorageEngine, scan};
use super::state::StoreState;
use crate::codec::{self, Stored};
use crate::key::RecordId;
use crate::record::Record;
use crate::store::StoreError;

/// Returns the live record of `id`, from memory or from disk.
pub(super) fn load<E: StorageEngine>(
    shared: &Arc<StoreState<E>>,
    id: RecordId,
) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
    match from_memory(shared, id) {
        Some(known) => Either::Left(ready(known)),
        None => {
            Either::Right(Box::pin(on_blocking_thread(shared, move |shared, engine| from_disk(shared, engine, id))))
        }
    }
}

/// Returns the record of `id` as memory has it, or `None` if it has to be read.
pub(super) fn from_memory<E: StorageEngine>(
    shared: &StoreState<E>,
    id: RecordId,
) -> Option<Result<Option<Record>, StoreError>> {
    // A record in the cache is durable, so even a poisoned store answers from it.
    if let Some(record) = shared.cache.get(&id) {
        return Some(Ok((*record).clone().live(shared.time.now())));
    }
    match shared.check() {
        Err(error) => Some(Err(error)),
        Ok(()) if shared.key_filter.may_have(&id) => None,
        Ok(()) => Some(Ok(None)),
    }
}

/// Calls `read` on a thread that may block.
pub(super) async fn on_blocking_thread<E: StorageEngine, T: Send + 'static>(
    shared: &Arc<StoreState<E>>,
    read: impl FnOnce(&StoreState<E>, &E) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let shared = Arc::clone(shared);
    // This never returns an error, because the semaphore is never closed.
    let reader = Arc::clone(&shared.readers).acquire_owned().await;
    let reading = tokio::task::spawn_blocking(move || {
        // The permit is held until the read ends, even if its caller has gone.
        let _reader = reader;
        let Some(engine) = shared.engine() else { return Err(StoreError::unavailable("closed")) };
        let result = shared.guarded(|| read(&shared, &engine));
        // This may be the last handle.
        shared.release_engine(engine);
        result
    });
    reading.await.unwrap_or_else(|_| Err(StoreError::unavailable("the runtime is shutting down")))
}

fn from_disk<E: StorageEngine>(shared: &StoreState<E>, engine: &E, id: RecordId) -> Result<Option<Record>, StoreError> {
    let now = shared.time.now();
    let read = || match head(engine, id)?.and_then(|record| record.live(now)) {
        Some(record) => whole(engine, id, &record).map(Some),
        None => Ok(None),
    };
    let result = match read() {
        // The writer may have been in the middle of a batch.
        Err(ReadError::Corrupt(_)) => read(),
        result => result,
    };
    result.map_err(|error| shared.read_failed(error, id))
}

/// Returns the record, past its expiry or not, without the chunks of its outcome.
pub(super) fn head<E: StorageEngine>(engine: &E, id: RecordId) -> Result<Option<Record<Stored>>, ReadError> {
    let Some(bytes) = engine.get(&keys::record(&id))? else { return Ok(None) };
    codec::decode(&id, bytes.as_ref()).map(Some).map_err(|error| ReadError::Corrupt(error.to_string()))
}

/// Returns the record with its outcome, which is put together from its chunks and checked by their digest.
pub(super) fn whole<E: StorageEngine>(engine: &E, id: RecordId, record: &Record<Stored>) -> Result<Record, ReadError> {
    record.form(|outcome| {
        let (length, digest) = match outcome {
            Stored::Inline(bytes) => return Ok(bytes.clone()),
            Stored::Chunked { length, digest } => (*length, *digest),
        };
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        // The chunks are stored side by side, so that looking for the first one finds most of them.
        let mut chunks = scan(engine, &keys::chunks_of(&id, record.fence));
        for expected in keys::chunks(id, record.fence, length) {
            match chunks.next().transpose()? {
                Some((key, chunk)) if *key.as_ref() == expected => bytes.extend_from_slice(chunk.as_ref()),
                _ => return Err(ReadError::Corrupt("a part of the outcome is missing".to_owned())),
            }
        }
        if bytes.len() as u64 != length || codec::digest(&bytes) != digest {
            return Err(ReadError::Corrupt("the outcome's digest does not fit its bytes".to_owned()));
        }
        Ok(bytes.freeze())
    })
}
