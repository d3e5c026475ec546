//! The few connections that calls share. Each is one call's at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::connect::{Connection, Connector, Use};
use super::error::{leaves_the_connection_sound, nothing, of_a_statement, uncertain, words};
use crate::store::shared::BackendError;

/// Connections, made when they are needed.
pub(super) struct Pool {
    connector: Arc<Connector>,
    permits: Semaphore,
    idle: Mutex<Idle>,
    wait: Duration,
}

/// Connections that no call has.
#[derive(Default)]
struct Idle {
    /// The server of the connection that was made last. Those to another one are not kept: answers of one server say
    /// the same of it.
    server: u64,
    // The one that was used last is used first: those that aren't needed stay idle.
    connections: Vec<Connection>,
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
        Self { connector, permits: Semaphore::new(connections), idle: Mutex::default(), wait }
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
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connected = timeout(self.wait, self.connector.connect(Use::Calls, None)).await;
                let connected = connected.map_err(|_| late("the database did not answer to a new connection"))?;
                let connection = connected.map_err(|error| nothing(words(&error)))?;
                self.idle().is_of(connection.server);
                connection
            }
        };
        Ok(Taken { pool: self, connection, _permit: permit })
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// One that is free and not known to have ended.
    fn pop(&mut self) -> Option<Connection> {
        self.connections.retain(|connection| !connection.client.is_closed());
        self.connections.pop()
    }

    fn push(&mut self, connection: Connection) {
        if connection.server == self.server {
            self.connections.push(connection);
        }
    }

    /// Takes note of the server to which a connection was made.
    fn is_of(&mut self, server: u64) {
        if std::mem::replace(&mut self.server, server) != server {
            self.connections.clear();
        }
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
            pool.idle().push(connection);
        }
        answer.map_err(|error| of_a_statement(&error))
    }
}
