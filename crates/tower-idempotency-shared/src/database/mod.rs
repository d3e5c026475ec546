//! The one client of the database: every call goes through it. It batches reads and writes, sends a write again until
//! its result is known, keeps the time limits, and refuses claims while the database is away.

// - `reads.rs`, `writes.rs`: reads and writes on their way. `queue.rs`: the next writes, and the number of calls;
//   `snapshot.rs`: a row that was read.
// - `state.rs`: the state that every call uses and every answer changes: circuit breaker, servers, clocks, fences.
// - `clocks.rs`: the clocks by which rows are judged and stamped.
// - `errors.rs`: converts errors of the database into the store's errors.

pub(crate) mod clocks;
pub(crate) mod errors;
pub(crate) mod queue;
pub(crate) mod reads;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod writes;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::StoreError;

use self::clocks::ThreeClocks;
use self::errors::away;
use self::reads::{ReadBatcher, Reads};
use self::snapshot::Rows;
use self::state::DatabaseState;
use self::writes::WriteQueue;
use super::backend::{Answer, Backend, BackendError, Clocks, Guarantee, Row};

/// The most bytes of a row that a scan or a list reads.
const SCANNED_BYTES: usize = 2 * 1024;

/// The client of a database.
#[derive(Debug)]
pub(crate) struct Database<B> {
    pub(crate) backend: Arc<B>,
    /// The time limits, the circuit breaker, the clocks and the fences, for all calls.
    pub(crate) state: Arc<DatabaseState>,
    pub(crate) reads: ReadBatcher,
    /// The reads that get no bytes of large rows.
    pub(crate) meets: ReadBatcher,
    pub(crate) writes: WriteQueue<B>,
    /// The queue for the writes that keep this process alive, so that they do not wait behind other writes.
    pub(crate) urgent: WriteQueue<B>,
    /// The runtime of the store's tasks.
    pub(crate) runtime: Handle,
    /// The last answer to `ask_guarantee`, which logs it only if it changes.
    guarantee: Mutex<Option<Guarantee>>,
}

impl<B: Backend> Database<B> {
    /// Creates a client that sends its calls in `runtime`, at most `calls` with writes at a time.
    pub(crate) fn new(backend: Arc<B>, state: Arc<DatabaseState>, calls: usize, runtime: &Handle) -> Self {
        let queue = |calls| WriteQueue::new(Arc::clone(&backend), Arc::clone(&state), calls, runtime);
        let reads = |of| ReadBatcher::start(of, Arc::clone(&backend), Arc::clone(&state), runtime);
        let (reads, meets) = (reads(Reads::Whole), reads(Reads::WithoutLargeBytes));
        // One urgent call at a time: the session has one renewal under way, and the other urgent writes are few.
        let (writes, urgent) = (queue(calls), queue(1));
        Self { backend, state, reads, meets, writes, urgent, runtime: runtime.clone(), guarantee: Mutex::default() }
    }

    pub(crate) fn clocks(&self) -> &ThreeClocks {
        &self.state.clocks
    }

    /// Asks the database for its time. The answer sets the clocks.
    pub(crate) async fn ask_time(&self) -> Result<(), StoreError> {
        let asked = self.state.ask(0, |clocks| self.backend.put(clocks, &[])).await;
        asked.map(drop).map_err(away)
    }

    /// Reads the sessions.
    pub(crate) async fn sessions(&self) -> Result<Rows<Vec<Row>>, BackendError> {
        self.page(0, |clocks| self.backend.sessions(clocks)).await
    }

    /// Reads rows in a call of their own. They have at most this many bytes.
    pub(crate) async fn rows(&self, ids: &[RecordId], bytes: usize) -> Result<Rows<Vec<Option<Row>>>, BackendError> {
        let rows = self.state.ask(bytes, |clocks| self.backend.get(clocks, ids)).await?;
        self.state.note_fences(rows.rows.iter().flatten());
        Ok(rows)
    }

    /// Reads a page of the rows that may need an operator.
    pub(crate) async fn list(
        &self,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Rows<Vec<Row>>, BackendError> {
        self.page(limit, |clocks| self.backend.list(clocks, alive, after, limit)).await
    }

    /// Reads a page of the rows of operations, in the order of their ids.
    pub(crate) async fn scan(&self, after: Option<RecordId>, limit: usize) -> Result<Rows<Vec<Row>>, BackendError> {
        self.page(limit, |clocks| self.backend.scan(clocks, after, limit)).await
    }

    /// Reads rows for whose bytes a slow link needs the time of so many rows that are scanned.
    async fn page<F>(&self, rows: usize, call: impl FnOnce(Clocks) -> F + Send) -> Result<Rows<Vec<Row>>, BackendError>
    where
        F: Future<Output = Result<Answer<Vec<Row>>, BackendError>> + Send,
    {
        let page = self.state.ask(rows.saturating_mul(SCANNED_BYTES), call).await?;
        self.state.note_fences(&page.rows);
        Ok(page)
    }

    /// Writes rows of another store as they are, and returns the ids of those that were written.
    pub(crate) async fn adopt(&self, rows: &[Row]) -> Result<Vec<RecordId>, BackendError> {
        let bytes = rows.iter().map(|row| row.state.len()).sum();
        let written = self.state.ask(bytes, |clocks| self.backend.adopt(clocks, rows)).await?;
        self.state.note_fences(rows);
        Ok(written.rows)
    }

    /// Deletes at most `limit` rows that are past their expiry. Deletes none while the clocks can't be trusted for it.
    pub(crate) async fn delete_expired(&self, limit: usize) -> Result<usize, BackendError> {
        if !self.clocks().may_delete() {
            return Ok(0);
        }
        let clocks = self.clocks().now();
        let deleted = self.state.call(0, || self.backend.delete_expired(clocks, limit)).await?;
        Ok(self.state.slots.telemetry.count_swept(deleted))
    }

    /// Asks what the database can lose, and logs it at the start and when it changes.
    pub(crate) async fn ask_guarantee(&self) {
        // If this fails, the last answer is kept. `inner.rs` asks again in 30 seconds.
        let Ok(guarantee) = self.state.call(0, || self.backend.guarantee()).await else { return };
        let mut known = self.guarantee.lock();
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
        self.guarantee.lock().clone()
    }
}
