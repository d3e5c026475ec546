//! The one client of the database: every call goes through it. It batches reads and writes, sends a write again until
//! its result is known, keeps the time limits, and refuses claims while the database is away.

// - `reads.rs`, `writes.rs`: reads and writes on their way. `queue.rs`: the next writes, and the number of calls;
//   `resend.rs`: large writes that are sent again; `large.rs`: rows that take long; `snapshot.rs`: a row that was read.
// - `state.rs`: the state that every call uses and every answer changes: circuit breaker, servers and clocks.
// - `clocks.rs`: the clocks by which rows are judged and stamped.
// - `errors.rs`: converts errors of the database into the store's errors.

pub(crate) mod clocks;
pub(crate) mod errors;
pub(crate) mod large;
pub(crate) mod queue;
pub(crate) mod reads;
mod resend;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod writes;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::time::Instant;

use self::clocks::ThreeClocks;
use self::errors::away;
use self::reads::ReadBatcher;
use self::snapshot::RowSnapshot;
use self::state::DatabaseState;
use self::writes::{WriteError, WriteQueue, WriteResult};
use super::backend::{Answer, Backend, BackendError, Clocks, Guarantee, Row, ServerId, Write};
use crate::clock::Timestamp;
use crate::key::RecordId;
use crate::store::StoreError;

/// The client of a database.
#[derive(Debug)]
pub(crate) struct Database<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) state: Arc<DatabaseState>,
    reads: ReadBatcher,
    writes: WriteQueue<B>,
    /// The queue for the writes that keep this process alive, so that they do not wait behind other writes.
    urgent: WriteQueue<B>,
    guarantee: Mutex<Option<Guarantee>>,
}

/// Rows that one call has read.
#[derive(Debug)]
pub(crate) struct Rows<R> {
    pub(crate) server: ServerId,
    /// The time at which the call was sent.
    pub(crate) sent: Instant,
    /// The earliest time by which the rows are judged.
    pub(crate) earliest: Timestamp,
    pub(crate) rows: R,
}

impl<B: Backend> Database<B> {
    /// Creates a client that sends its calls in `runtime`, at most `calls` with writes at a time.
    pub(crate) fn new(backend: Arc<B>, state: Arc<DatabaseState>, calls: usize, runtime: &Handle) -> Self {
        let queue = |calls| WriteQueue::new(Arc::clone(&backend), Arc::clone(&state), calls, runtime);
        let reads = ReadBatcher::start(Arc::clone(&backend), Arc::clone(&state), runtime);
        let (writes, urgent) = (queue(calls), queue(1));
        Self { backend, state, reads, writes, urgent, guarantee: Mutex::default() }
    }

    pub(crate) fn clocks(&self) -> &ThreeClocks {
        &self.state.clocks
    }

    /// Reads the row of `id`.
    pub(crate) async fn read(&self, id: RecordId) -> Result<RowSnapshot, StoreError> {
        self.reads.get(id).await
    }

    /// Reads a row whose bytes the database has left out of an answer. This may take long.
    pub(crate) async fn read_large(&self, row: &Row) -> Result<RowSnapshot, StoreError> {
        self.reads.get_large(row).await
    }

    /// Sends a write. It is on its way when this returns; the future waits for its result.
    pub(crate) fn write(
        &self,
        write: Write,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<WriteResult, WriteError>> + Send + use<B> {
        self.writes.put(write, deadline)
    }

    /// Sends a write that may not be given up: it is sent again even if it certainly was not done.
    pub(crate) fn insist(&self, write: Write) -> impl Future<Output = Result<WriteResult, WriteError>> + Send + use<B> {
        self.writes.insist(write)
    }

    /// Sends a write that keeps this process alive, ahead of all others.
    pub(crate) fn write_urgently(
        &self,
        write: Write,
    ) -> impl Future<Output = Result<WriteResult, WriteError>> + Send + use<B> {
        self.urgent.put(write, None)
    }

    /// Returns whether so many writes have no answer yet that no new ones should come.
    pub(crate) fn is_behind(&self) -> bool {
        self.writes.is_behind()
    }

    /// Asks the database for its time. The answer sets the clocks.
    pub(crate) async fn ask_time(&self) -> Result<(), StoreError> {
        let asked = self.ask(|clocks| self.backend.put(clocks, &[])).await;
        asked.map(drop).map_err(|error| away(Arc::new(error)))
    }

    /// Reads the sessions.
    pub(crate) async fn sessions(&self) -> Result<Rows<Vec<Row>>, BackendError> {
        let sessions = self.ask(|clocks| self.backend.sessions(clocks)).await?;
        self.state.raise(&sessions.rows);
        Ok(sessions)
    }

    /// Reads rows in a call of their own.
    pub(crate) async fn rows(&self, ids: &[RecordId]) -> Result<Rows<Vec<Option<Row>>>, BackendError> {
        let rows = self.ask(|clocks| self.backend.get(clocks, ids)).await?;
        self.state.raise(rows.rows.iter().flatten());
        Ok(rows)
    }

    /// Reads a page of the rows that may need an operator.
    pub(crate) async fn list(
        &self,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Rows<Vec<Row>>, BackendError> {
        let page = self.ask(|clocks| self.backend.list(clocks, alive, after, limit)).await?;
        self.state.raise(&page.rows);
        Ok(page)
    }

    /// Reads with one call, and notes its answer.
    async fn ask<R, F>(&self, call: impl FnOnce(Clocks) -> F + Send) -> Result<Rows<R>, BackendError>
    where
        F: Future<Output = Result<Answer<R>, BackendError>> + Send,
    {
        let (clocks, sent) = (self.clocks().now(), Instant::now());
        let answer = self.state.call(|| call(clocks)).await;
        let Answer { now, server, rows } = answer.inspect_err(|error| self.state.failed(error))?;
        self.state.answered(server, now, sent, false, None);
        Ok(Rows { server, sent, earliest: clocks.at(now).earliest, rows })
    }

    /// Deletes at most `limit` rows that are past their expiry. Deletes none while the clocks can't be trusted for it.
    pub(crate) async fn delete_expired(&self, limit: usize) -> Result<usize, BackendError> {
        if !self.clocks().may_delete() {
            return Ok(0);
        }
        let clocks = self.clocks().now();
        self.state.call(|| self.backend.delete_expired(clocks, limit)).await
    }

    /// Asks what the database can lose, and logs it at the start and when it changes.
    pub(crate) async fn ask_guarantee(&self) {
        let Ok(guarantee) = self.state.call(|| self.backend.guarantee()).await else { return };
        let mut known = self.guarantee.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() == Some(&guarantee) {
            return;
        }
        let Guarantee { setup, loses } = &guarantee;
        if loses.is_empty() {
            tracing::info!(target: "tower_idempotency", setup, "the database loses nothing that it has answered");
        } else {
            let loses = loses.join("; ");
            tracing::warn!(target: "tower_idempotency", setup, loses, "the database can lose what it has answered");
        }
        *known = Some(guarantee);
    }

    /// Returns the last answer of the database about what it can lose.
    pub(crate) fn guarantee(&self) -> Option<Guarantee> {
        self.guarantee.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
