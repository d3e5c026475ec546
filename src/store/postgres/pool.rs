//! The few connections that calls share. Each is one call's at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::connect::{Connection, Connector, Use};
use super::error::{leaves_the_connection_sound, nothing, of_a_statement, uncertain};
use crate::store::shared::BackendError;

/// Connections, made when they are needed.
pub(super) struct Pool {
    connector: Arc<Connector>,
    permits: Semaphore,
    // The one that was used last is used first: those that aren't needed stay idle.
    idle: Mutex<Vec<Connection>>,
    wait: Duration,
}

/// A connection that one call has. Dropped before [`done`](Self::done), it is closed: the next call would wait for the
/// answer to this one.
pub(super) struct Taken<'a> {
    pool: &'a Pool,
    connection: Connection,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, connections: usize, wait: Duration) -> Self {
        Self { connector, permits: Semaphore::new(connections), idle: Mutex::new(Vec::new()), wait }
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Takes a connection that is free, or makes one. Nothing was sent where that fails.
    pub(super) async fn take(&self) -> Result<Taken<'_>, BackendError> {
        let late = |what: &str| nothing(format!("{what} within {} ms", self.wait.as_millis()));
        let permit = timeout(self.wait, self.permits.acquire()).await;
        let permit = permit.map_err(|_| late("no connection became free"))?;
        let permit = permit.map_err(|_| nothing("the store is closed"))?;
        let connection = match self.idle() {
            Some(connection) => connection,
            None => timeout(self.wait, self.connector.connect(Use::Calls, None))
                .await
                .map_err(|_| late("the database did not answer to a new connection"))?
                .map_err(|error| nothing(error.to_string()))?,
        };
        Ok(Taken { pool: self, connection, _permit: permit })
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
    pub(super) fn done<T>(self, answer: Result<T, tokio_postgres::Error>) -> Result<T, BackendError> {
        let Self { pool, connection, _permit } = self;
        if connection.take_unconfirmed() {
            return Err(uncertain("the database has committed without waiting for its standbys"));
        }
        let sound = answer.as_ref().err().is_none_or(leaves_the_connection_sound);
        if sound {
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        answer.map_err(|error| of_a_statement(&error))
    }
}
