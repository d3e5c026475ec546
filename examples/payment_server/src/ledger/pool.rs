//! Connections to PostgreSQL, one for each request that needs one. An application can use a pool such as
//! `deadpool-postgres` instead: see `examples/exactly_once_tokio_postgres`.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tower_idempotency_postgres::tokio_postgres::config::TargetSessionAttrs;
use tower_idempotency_postgres::tokio_postgres::{Client, Config, NoTls};

use super::error::LedgerError;

const CONNECTIONS: usize = 8;
/// The time for which a request waits for a connection.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The limits after which the database ends statements and transactions. A server that stalls within a transaction has
/// locked the record, and no other server can take the operation over meanwhile.
const LIMITS: &str = " -c statement_timeout=30s -c idle_in_transaction_session_timeout=30s";

pub(super) struct Pool {
    config: Config,
    idle: Mutex<Vec<Client>>,
    places: Semaphore,
}

/// A connection of the pool. If it is dropped and not [given back](Self::give_back), it is closed, and the database
/// rolls back the uncommitted transaction.
pub(super) struct Lent<'a> {
    client: Client,
    pool: &'a Pool,
    _place: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(mut config: Config) -> Self {
        let options = config.get_options().unwrap_or_default().to_owned() + LIMITS;
        config.options(options).target_session_attrs(TargetSessionAttrs::ReadWrite);
        Self { config, idle: Mutex::default(), places: Semaphore::new(CONNECTIONS) }
    }

    pub(super) async fn lend(&self) -> Result<Lent<'_>, LedgerError> {
        let lending = async {
            let place = self.places.acquire().await.map_err(LedgerError::away)?;
            let client = match self.take() {
                Some(client) => client,
                None => self.connect().await?,
            };
            Ok(Lent { client, pool: self, _place: place })
        };
        timeout(TIMEOUT, lending).await.map_err(LedgerError::away)?
    }

    /// Takes a connection that is idle and was not closed meanwhile.
    fn take(&self) -> Option<Client> {
        let mut idle = self.idle();
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Client, LedgerError> {
        let (client, connection) = self.config.connect(NoTls).await.map_err(LedgerError::away)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!("a connection of the ledger has ended: {}", crate::chain(&error));
            }
        });
        Ok(client)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent<'_> {
    /// Gives the connection back for the next request.
    pub(super) fn give_back(self) {
        self.pool.idle().push(self.client);
    }
}

impl Deref for Lent<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}
