//! The few connections that calls share. Each is one call's at a time.
//!
//! Rules:
//! 1. A call that has no connection in time is refused as crowded: the database may be well.
//! 2. The session is renewed on an extra connection, if all are busy: large rows may have them for long.
//! 3. A connection is used again only after a whole answer. That of a call that was dropped, failed or was late is
//!    closed: an answer that is on its way would be taken for that of the next call.
//! 4. When a server is no primary any more, all connections are dropped, and the primary is asked for anew.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tower_idempotency_shared::BackendError;

use super::connect::{Connection, Connector};

/// Connections, made when they are needed.
pub(crate) struct Pool {
    pub(crate) connector: Arc<Connector>,
    connections: usize,
    calls: Semaphore,
    renewals: Semaphore,
    // The one that was used last is used first: those that aren't needed stay idle.
    idle: Mutex<Vec<Connection>>,
    /// Notified when all connections are dropped. The listener of changes connects anew then.
    pub(crate) dropped: Arc<Notify>,
}

/// A connection that one call has. It is closed when this is dropped.
pub(crate) struct Lent<'a> {
    pool: &'a Pool,
    pub(crate) connection: Connection,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(crate) fn new(connector: Arc<Connector>, connections: usize) -> Self {
        Self {
            connector,
            connections,
            calls: Semaphore::new(connections),
            renewals: Semaphore::new(1),
            idle: Mutex::default(),
            dropped: Arc::default(),
        }
    }

    /// The number of connections that calls use now, without a renewal of the session.
    pub(crate) fn in_use(&self) -> usize {
        self.connections.saturating_sub(self.calls.available_permits())
    }

    /// Takes a connection for a call, or for a renewal of the session. Nothing was sent where that fails.
    pub(crate) async fn take(&self, renews: bool) -> Result<Lent<'_>, BackendError> {
        let permits = if renews { &self.renewals } else { &self.calls };
        // Less than the time that a call may take: what follows is the database's.
        let wait = self.connector.within / 3;
        let late = || format!("no connection became free within {} ms", wait.as_millis());
        let permit = timeout(wait, permits.acquire()).await.map_err(|_| BackendError::Crowded(late().into()))?;
        let permit = permit.map_err(|error| BackendError::Nothing(error.into()))?;
        let connection = match self.idle() {
            Some(connection) => connection,
            None => self.connect().await.map_err(|reason| BackendError::Nothing(reason.into()))?,
        };
        Ok(Lent { pool: self, connection, _permit: permit })
    }

    async fn connect(&self) -> Result<Connection, String> {
        let wait = self.connector.within;
        let late = || format!("there is no new connection within {} ms", wait.as_millis());
        // Boxed, as it is large and rare: what waits for a call is moved about.
        let connected = timeout(wait, Box::pin(self.connector.connect())).await;
        connected.map_err(|_| late())?.map_err(|error| error.to_string())
    }

    /// One that is free and not known to have ended.
    fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.task.0.is_finished());
        idle.pop()
    }

    /// Drops all connections of this generation: the server is not the primary of the rows.
    pub(crate) fn drop_all(&self, generation: u64) {
        // Of several calls that find it out, the first one counts.
        if self.connector.generation.compare_exchange(generation, generation + 1, SeqCst, SeqCst).is_ok() {
            self.drop_idle();
            self.dropped.notify_waiters();
        }
    }

    /// Drops the connections that no call has.
    pub(crate) fn drop_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Lent<'_> {
    /// Gives the connection back, after a whole answer.
    pub(crate) fn give_back(self) {
        let Self { pool, connection, _permit } = self;
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Compared under the lock: `drop_all` clears what is there afterwards.
        if connection.generation == pool.connector.generation.load(SeqCst) {
            idle.push(connection);
        }
    }
}
