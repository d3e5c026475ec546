//! How a database becomes a backend.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::{Config, Error};

use super::backend::{PostgresBackend, Task};
use super::builder::PostgresBackendBuilder;
use super::connect::{Connection, Connector, Use};
use super::error::{PostgresError, words};
use super::listen::{News, channel, listen};
use super::notify::Notifier;
use super::pool::Pool;

/// How long lies between two tries.
const PAUSE: Duration = Duration::from_millis(200);

impl PostgresBackend {
    /// Connects to the database of `url`, such as `postgres://user:password@host/database`.
    ///
    /// # Errors
    /// [`PostgresError::Url`], which does not repeat the URL.
    pub fn from_url(url: &str) -> Result<PostgresBackendBuilder, PostgresError> {
        PostgresBackendBuilder::from_url(url)
    }

    /// Connects as `config` says, to a server that takes writes. Where `config` has several hosts, each is tried. One
    /// that does not answer has only its share of the
    /// [time for a connection](PostgresBackendBuilder::wait_for_connection).
    pub fn builder(config: Config) -> PostgresBackendBuilder {
        PostgresBackendBuilder::new(config)
    }
}

impl PostgresBackendBuilder {
    /// Opens the backend: connects, and checks that the table is there. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`PostgresError::Away`] for a database that can't be reached for [as long as it is tried](Self::tried_for),
    /// [`PostgresError::Schema`] for one without the table, [`PostgresError::Refused`] for one that lets nobody in.
    pub async fn open(self) -> Result<PostgresBackend, PostgresError> {
        let connector = Arc::new(Connector::new(&self));
        let deadline = Instant::now() + self.tried_for;
        let connection = self.reach(&connector, Use::News, deadline).await?;
        let found = self.schema.version(&connection.client).await.map_err(|error| refused(&error))?;
        self.schema.check(found)?;
        drop(connection);
        // A connection for calls prepares the statements, so this also shows that the functions are there.
        let first = self.reach(&connector, Use::Calls, deadline).await?;
        let pool = Pool::new(Arc::clone(&connector), first, self.connections, self.wait_for_connection);

        let channel = channel(&self.schema.to_string(), &self.namespace);
        let news = Arc::new(News::new());
        let (notifier, telling) = Notifier::new(Arc::clone(&connector), channel.clone());
        let listening = listen(connector, channel, notifier.clone(), Arc::clone(&news));
        Ok(PostgresBackend {
            pool,
            namespace: self.namespace,
            notifier,
            news,
            _tasks: [Task(tokio::spawn(telling)), Task(tokio::spawn(listening))],
        })
    }

    /// Makes the table, its indexes and its functions, or what is missing of them, and the schema that they are in.
    /// Several processes may do so at once: one does, and the others wait for it. Where all is there, nothing is
    /// locked.
    ///
    /// The role needs the right to make tables. The same SQL is in `src/store/postgres/schema.sql`.
    ///
    /// # Errors
    /// As of [`open`](Self::open). Nothing was changed then.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        let deadline = Instant::now() + self.tried_for;
        let connection = self.reach(&Connector::new(self), Use::Migration, deadline).await?;
        self.schema.migrate(&connection.client).await.map_err(|error| refused(&error))
    }

    /// Connects, and tries until `deadline` if the database is away.
    async fn reach(
        &self,
        connector: &Connector,
        what_for: Use,
        deadline: Instant,
    ) -> Result<Connection, PostgresError> {
        let mut reason = String::from("it does not answer");
        loop {
            match timeout_at(deadline, connector.connect(what_for, None)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if error.is_for_good() => {
                    return Err(PostgresError::Refused { reason: error.to_string() });
                }
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => return Err(PostgresError::Away { waited: self.tried_for, reason }),
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(PostgresError::Away { waited: self.tried_for, reason });
            }
            sleep(PAUSE).await;
        }
    }
}

fn refused(error: &Error) -> PostgresError {
    PostgresError::Refused { reason: words(error) }
}
