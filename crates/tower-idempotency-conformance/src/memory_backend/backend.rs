//! One process's way to the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;
use tower_idempotency::RecordId;
use tower_idempotency::clock::{Clock, SystemClock, Timestamp};
use tower_idempotency_shared::{Answer, Backend, BackendError, Clocks, Guarantee, Row, Write};

use super::call::{Call, Counts, Fault};
use super::database::MemoryDatabase;
use super::hold::Hold;
use super::link::OVERHEAD;
use super::random::FaultRates;
use super::state::{Replication, Rows};
use super::table::Key;
use super::way::Way;

/// A database in memory, as one process reaches it: see the [module](super).
///
/// A handle; clones are the same process, and share its faults.
#[derive(Debug, Clone)]
pub struct MemoryBackend {
    database: MemoryDatabase,
    namespace: Arc<str>,
    process: u64,
    processes: Arc<AtomicU64>,
    way: Arc<Way>,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::with_clock(SystemClock::default())
    }
}

impl MemoryBackend {
    /// A way to a new database, which is empty and has the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A way to a new database whose clock is `clock`'s [wall clock](Clock::wall).
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        Self {
            database: MemoryDatabase::new(Arc::new(clock)),
            namespace: "".into(),
            process: 1,
            processes: Arc::new(AtomicU64::new(2)),
            way: Arc::default(),
        }
    }

    /// Another process's way to the same namespace of the same database. Nothing fails on it to begin with.
    #[must_use]
    pub fn another_process(&self) -> Self {
        let process = self.processes.fetch_add(1, Ordering::Relaxed);
        Self { process, way: Arc::default(), ..self.clone() }
    }

    /// The same process's way to another namespace of the same database. That of [`new`](Self::new) is `""`.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.into(), ..self.clone() }
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &MemoryDatabase {
        &self.database
    }

    /// The process's number, counted from 1.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.process
    }

    /// The calls that this process has sent so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.way.counts()
    }

    /// The next call of this kind that has no fault yet suffers this one.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.way.fail_next(call, fault);
    }

    /// From now on each call suffers a fault at random. What is drawn for the first, the second, … call depends on
    /// `seed` alone. A fault that was ordered by [`fail_next`](Self::fail_next) goes first.
    pub fn fail_at_random(&self, seed: u64, rates: FaultRates) {
        self.way.fail_at_random(Some((seed, rates)));
    }

    /// Ends [`fail_at_random`](Self::fail_at_random). Calls that are late are so still.
    pub fn fail_no_more(&self) {
        self.way.fail_at_random(None);
    }

    /// Returns how many calls are late: see [`Fault::Late`] and [`Fault::Double`].
    #[must_use]
    pub fn late(&self) -> usize {
        self.way.late()
    }

    /// Lets the calls that are late arrive, in their order, and says how many there were.
    pub fn deliver_late(&self) -> usize {
        self.way.deliver_late()
    }

    /// Holds calls up before they arrive, from now on. One whose future was dropped arrives all the same.
    pub fn hold(&self, call: Call) -> Hold {
        self.way.hold(call)
    }

    /// Holds up the answers of calls that are sent from now on. They are done when they arrive.
    pub fn hold_answers(&self, call: Call) -> Hold {
        self.way.hold_answers(call)
    }

    /// Cuts the way: calls are refused, and those that wait for an answer get [`Uncertain`](BackendError::Uncertain).
    /// Calls that are held up stay so, and arrive when they are let go on.
    pub fn cut(&self) {
        self.way.cut(true);
    }

    /// Mends the way.
    pub fn mend(&self) {
        self.way.cut(false);
    }

    /// From now on this process's calls share a link that carries so many bytes a second there, and as many back: the
    /// states of rows, and a little for each row. A call whose future was dropped goes on. `None`: any number of bytes
    /// takes no time.
    pub fn link(&self, bytes_per_second: Option<u64>) {
        self.way.link(bytes_per_second);
    }

    pub(super) fn key(&self, id: RecordId) -> Key {
        (Arc::clone(&self.namespace), id)
    }
}

impl Backend for MemoryBackend {
    async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Result<Rows, BackendError> {
        self.way.count(|counts| counts.gets += 1);
        let (database, asked) = (self.database.clone(), ids.iter().map(|id| self.key(*id)).collect::<Vec<_>>());
        let bytes = |answer: &Rows| answer.rows.iter().flatten().map(|row| OVERHEAD + row.state.len()).sum();
        self.way.send_bytes(Call::Get, 0, bytes, move |reply| database.get(clocks, &asked, reply)).await
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Result<Rows, BackendError> {
        let bytes: usize = writes.iter().map(|write| write.state.len()).sum();
        self.way.count(|counts| {
            counts.puts += 1;
            counts.writes += writes.len() as u64;
            counts.bytes += bytes as u64;
        });
        let Self { database, namespace, process, .. } = self.clone();
        let writes = writes.to_vec();
        // What was written is not sent back.
        let tokens: Vec<_> = writes.iter().map(|write| write.token).collect();
        let answered = move |answer: &Rows| {
            let rows = answer.rows.iter().zip(tokens);
            rows.map(|(row, token)| row.as_ref().filter(|row| row.token != token).map_or(0, |row| row.state.len()))
                .sum()
        };
        let bytes = bytes + writes.len() * OVERHEAD;
        let arrive = move |reply| database.put(clocks, process, &namespace, &writes, reply);
        self.way.send_bytes(Call::Put, bytes, answered, arrive).await
    }

    async fn sessions(&self, clocks: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        self.way.count(|counts| counts.sessions += 1);
        let Self { database, namespace, .. } = self.clone();
        self.way.send(Call::Sessions, move |reply| database.sessions(clocks, &namespace, reply)).await
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        self.way.count(|counts| counts.lists += 1);
        let Self { database, namespace, .. } = self.clone();
        let alive = alive.to_vec();
        self.way.send(Call::List, move |reply| database.list(clocks, &namespace, &alive, after, limit, reply)).await
    }

    async fn scan(
        &self,
        clocks: Clocks,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        self.way.count(|counts| counts.lists += 1);
        let Self { database, namespace, .. } = self.clone();
        self.way.send(Call::List, move |reply| database.scan(clocks, &namespace, after, limit, reply)).await
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
        self.way.count(|counts| counts.sweeps += 1);
        let Self { database, namespace, .. } = self.clone();
        let delete = move |reply| database.delete_expired(clocks, &namespace, limit, reply);
        self.way.send(Call::DeleteExpired, delete).await
    }

    async fn adopt(&self, clocks: Clocks, rows: &[Row]) -> Result<Answer<Vec<RecordId>>, BackendError> {
        self.way.count(|counts| counts.puts += 1);
        let Self { database, namespace, .. } = self.clone();
        let rows = rows.to_vec();
        self.way.send(Call::Put, move |reply| database.adopt(clocks, &namespace, &rows, reply)).await
    }

    /// Some are missing if the stream is not polled for long.
    fn changes(&self) -> BoxStream<'static, RecordId> {
        let own = Arc::clone(&self.namespace);
        let changes = stream::unfold(self.database.changes(), |mut changes| async move {
            loop {
                match changes.recv().await {
                    Ok(change) => return Some((change, changes)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        });
        changes.filter_map(move |(namespace, id)| std::future::ready((namespace == own).then_some(id))).boxed()
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        let database = self.database.clone();
        let replication = self.way.send(Call::Guarantee, move |reply| database.guarantee(reply)).await?;
        let mut loses = vec!["everything at the end of the process".to_owned()];
        if replication == Replication::Behind {
            loses.push("at a failover, what the standby has not got yet".to_owned());
        }
        Ok(Guarantee { setup: format!("in memory, its standby {replication:?}"), loses })
    }
}
