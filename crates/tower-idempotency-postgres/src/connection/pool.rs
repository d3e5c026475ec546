//! The few connections that calls share. Each is one call's at a time: a call takes one here, and gives it back here.
//!
//! Rules:
//! 1. A call that has no connection in time is refused as crowded: the database may be well.
//! 2. There is always a connection for reading, if there may be more than one: puts may all wait for a standby.
//! 3. The session is renewed on an extra connection, if all are busy: large rows may have them for long.
//! 4. The connection of a call that was dropped is kept until the server has ended the call, or for an hour. Closing it
//!    would not end the call, so a server whose standby is lost would have more and more of them. As many such
//!    connections as there are for calls are kept in addition to those; beyond that, they count as those. A call that
//!    only reads waits for no standby, and may be answered with a large row: its connection is closed at once.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_postgres::{Error, Row as Columns};

use super::connect::{Connection, Connector, Use};
use super::place::Place;
use crate::error::{leaves_the_connection_sound, of_a_statement};
use crate::wire::row;
use tower_idempotency_shared::{Answer, BackendError, Row};

/// Of a call that is dropped: its connection is kept for a while, as rule 4 says.
const KEPT: bool = true;

/// Connections, made when they are needed.
pub(crate) struct Pool {
    pub(crate) connector: Arc<Connector>,
    /// Permits for the connections that may be in use for calls at once.
    calls: Arc<Semaphore>,
    /// The number of them that may be puts. A put takes its permit here before the one of `calls`.
    puts: Arc<Semaphore>,
    /// For renewals of the session.
    renewal: Arc<Semaphore>,
    /// The number of connections that are kept for dropped calls: see rule 4.
    dropped: Arc<Semaphore>,
    /// The one that was used last is used first: those that aren't needed stay idle.
    idle: Mutex<Vec<Connection>>,
    runtime: Handle,
}

/// A connection that one call has.
pub(crate) struct Taken<'a> {
    pool: &'a Pool,
    connection: Connection,
}

impl Pool {
    /// Makes a pool of so many connections as were chosen at most, `first` among them, and as many more for a while.
    /// Call it within a tokio runtime.
    pub(crate) fn new(connector: Arc<Connector>, first: Connection) -> Self {
        let connections = connector.settings.connections;
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (calls, puts) = (semaphore(connections), semaphore((connections - 1).max(1)));
        let renewal = semaphore(1);
        let (dropped, idle, runtime) = (semaphore(connections), Mutex::new(vec![first]), Handle::current());
        Self { connector, calls, puts, renewal, dropped, idle, runtime }
    }

    /// The number of connections that calls use now, without a renewal of the session.
    pub(crate) fn in_use(&self) -> usize {
        self.connector.settings.connections.saturating_sub(self.calls.available_permits())
    }

    /// Takes a connection for a call that waits for no standby and has a short answer. Nothing was sent where that
    /// fails.
    pub(crate) async fn take(&self) -> Result<Taken<'_>, BackendError> {
        self.take_with(&[&self.calls], KEPT).await
    }

    /// The same for a call that only reads.
    pub(crate) async fn take_to_read(&self) -> Result<Taken<'_>, BackendError> {
        self.take_with(&[&self.calls], !KEPT).await
    }

    /// The same for a renewal of the session, for which no other call is waited.
    pub(crate) async fn take_to_renew(&self) -> Result<Taken<'_>, BackendError> {
        self.take_with(&[&self.renewal], KEPT).await
    }

    /// The same for a put.
    pub(crate) async fn take_to_put(&self) -> Result<Taken<'_>, BackendError> {
        self.take_with(&[&self.puts, &self.calls], KEPT).await
    }

    /// Takes one that is free, or makes one. If the call is dropped, the connection may be kept.
    async fn take_with(&self, semaphores: &[&Arc<Semaphore>], is_kept: bool) -> Result<Taken<'_>, BackendError> {
        let mut permits = Vec::with_capacity(semaphores.len());
        let acquire = async {
            for semaphore in semaphores {
                permits.push(Arc::clone(semaphore).acquire_owned().await.ok()?);
            }
            Some(())
        };
        // Less than the time that a call may take: what follows is the database's.
        let wait = self.connector.settings.wait_for_connection / 3;
        let acquired = timeout(wait, acquire).await;
        let late = || BackendError::Crowded(format!("no connection became free within {} ms", wait.as_millis()).into());
        acquired.map_err(|_| late())?.ok_or_else(|| BackendError::Nothing("the store is closed".into()))?;
        let mut connection = loop {
            match self.idle() {
                Some(connection) => {
                    // One that fails has ended, and one that is late is of no use to a call.
                    if let Ok(Ok(())) = timeout(wait, connection.count_call()).await {
                        break connection;
                    }
                }
                None => break self.connect().await?,
            }
        };
        let (dropped, runtime) = (Arc::clone(&self.dropped), self.runtime.clone());
        connection.place = Some(Place { permits, dropped, runtime, is_kept });
        Ok(Taken { pool: self, connection })
    }

    async fn connect(&self) -> Result<Connection, BackendError> {
        let wait = self.connector.settings.wait_for_connection;
        let late = || {
            let (places, wait) = (self.connector.places(), wait.as_millis());
            BackendError::Nothing(
                format!("{places}: the database did not let a new connection in within {wait} ms").into(),
            )
        };
        // Boxed, as it is large and rare: what waits for a call is moved about.
        let connected = timeout(wait, Box::pin(self.connector.connect(Use::Calls, None))).await;
        connected.map_err(|_| late())?.map_err(|error| BackendError::Nothing(error.to_string().into()))
    }

    /// One that is free and not known to have ended.
    fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.client.is_closed());
        idle.pop()
    }
}

impl std::ops::Deref for Taken<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Taken<'_> {
    /// Ends the call: gives the connection back if the answer leaves it sound, and says what an error means.
    pub(crate) fn done<T>(self, answer: Result<T, Error>) -> Result<T, BackendError> {
        let Self { pool, mut connection } = self;
        // Given up when this returns.
        let _place = connection.place.take();
        if connection.take_unconfirmed() {
            return Err(BackendError::Uncertain("the database has committed without waiting for its standbys".into()));
        }
        // A connection that is not sound is dropped here, which closes it.
        let sound = answer.as_ref().err().is_none_or(leaves_the_connection_sound);
        if sound {
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        answer.map_err(|error| of_a_statement(&error))
    }

    /// The same for a query for rows, which this reads.
    pub(crate) fn rows(self, answer: Result<Vec<Columns>, Error>) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let system = self.connection.system;
        Ok(row::answer(&self.done(answer)?, system)?)
    }
}
