//! Opens a database as a backend.

use std::sync::Arc;

use futures_util::TryFutureExt as _;
use tokio::time::Instant;
use tower_idempotency_shared::for_backends::{NotOpen, Task, tried};

use super::backend::PostgresBackend;
use super::builder::PostgresBackendBuilder;
use super::connection::connect::{Connector, Use};
use super::connection::pool::Pool;
use super::error::{NotConnected, PostgresError, words};
use super::limits::Limits;
use super::notifications::listen::{ChangeFeed, channel, listen};
use super::notifications::notify::Notifier;
use super::rights;

impl PostgresBackendBuilder {
    /// Opens the backend: connects, checks that the table is there, and tries what the store does with it in a
    /// transaction that is rolled back. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`PostgresError::Away`] for a database that can't be reached for [as long as it is tried](Self::open_within),
    /// [`PostgresError::Schema`] for one without the table, and [`PostgresError::Refused`] at once for one that will
    /// refuse again. That error names a right that the role lacks, and the `GRANT` to run.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing was written.
    pub async fn open(self) -> Result<PostgresBackend, PostgresError> {
        let connector = Arc::new(Connector::new(&self));
        let deadline = Instant::now() + self.open_within;
        let found = self.tried(&connector, deadline, || async {
            // Such a connection prepares no statements, which would fail without the table.
            let connection = connector.connect(Use::ChangeFeed, None).await?;
            rights::check(&connection.client, &self.schema).await?;
            Ok(self.schema.version(&connection.client).await?)
        });
        self.schema.check(found.await?)?;
        // A connection for calls prepares the statements, so this also shows that the functions are there.
        let first = self.tried(&connector, deadline, || async {
            let connection = connector.connect(Use::Calls, None).await?;
            rights::try_out(&connection.client, &self.schema, &self.namespace).await?;
            Ok(connection)
        });
        let pool = Pool::new(Arc::clone(&connector), first.await?);

        let channel = channel(&self.schema.to_string(), &self.namespace);
        let changes = Arc::new(ChangeFeed::default());
        // `sending` is the task that sends notifications, and `listening` the one that receives them.
        let (notifier, sending) = Notifier::new(Arc::clone(&connector), channel.clone());
        let listening = listen(connector, channel, notifier.clone(), Arc::clone(&changes));
        Ok(PostgresBackend {
            pool,
            namespace: self.namespace,
            limits: Limits::new(self.max_records, self.max_bytes),
            notifier,
            changes,
            _tasks: [Task(tokio::spawn(sending)), Task(tokio::spawn(listening))],
        })
    }

    /// Makes the table, its indexes and its functions, or what is missing of them, and the schema that they are in.
    /// Several processes may do so at once: one does, and the others wait for it. Where all is there, nothing is
    /// locked.
    ///
    /// The role needs the right to make tables. Where these are there, and only the view `operation` for people is
    /// missing, which no store needs, a role without that right succeeds too. [`migrations`](Self::migrations) has
    /// the same as text.
    ///
    /// # Errors
    /// As of [`open`](Self::open). Nothing was changed then.
    ///
    /// # Cancel safety
    /// If the future is dropped, all or nothing was made.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        let (connector, deadline) = (Connector::new(self), Instant::now() + self.open_within);
        let connection = self.tried(&connector, deadline, || connector.connect(Use::Migration, None)).await?;
        self.schema.migrate(&connection.client).await.map_err(|error| PostgresError::Refused { reason: words(&error) })
    }

    /// Returns the SQL that [`migrate`](Self::migrate) runs, for a team that applies it by itself: one text for each
    /// version of the schema, from 1 on. The last one also gives `role` the rights that a service needs. Nothing is
    /// sent to the database.
    ///
    /// Each text is plain SQL without parameters, for one transaction. It may run again, and leaves the transaction's
    /// search path as it was. `migrate` finds nothing to do after the last one.
    #[must_use]
    pub fn migrations(&self, role: Option<&str>) -> Vec<(i32, String)> {
        let mut migrations = self.schema.migrations();
        // A later version may add what needs rights.
        if let (Some(role), Some((_, last))) = (role, migrations.last_mut()) {
            last.push_str(&rights::grants(&self.schema, role));
        }
        migrations
    }

    /// Tries something until `deadline`, unless it is refused for good.
    async fn tried<T, F: Future<Output = Result<T, NotConnected>>>(
        &self,
        connector: &Connector,
        deadline: Instant,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, PostgresError> {
        // The reason for a database that has not failed yet, but hangs.
        let hangs = format!("{}: it does not answer", connector.places());
        let refused = |error: NotConnected| match error.is_for_good() {
            true => NotOpen::ForGood(error.to_string()),
            false => NotOpen::Away(error.to_string()),
        };
        tried(deadline, hangs, || attempt().map_err(refused)).await.map_err(|error| match error {
            NotOpen::Away(reason) => PostgresError::Away { waited: self.open_within, reason },
            NotOpen::ForGood(reason) => PostgresError::Refused { reason },
        })
    }
}
