//! A connection of the pool, and the time that a statement has on it. Each statement takes one.

use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::time::Instant;

use crate::OutboxError;

/// How long a statement may take, the wait for a connection included. The server gives it up before that.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Begins a transaction that the server ends before [`STATEMENT_TIMEOUT`] is over: a connection that is dropped stays
/// there as long as its statement, and is none of the pool's any more.
pub(super) fn begin(began: Instant, locked: Option<Duration>) -> String {
    let within = (STATEMENT_TIMEOUT.saturating_sub(began.elapsed()) * 3 / 4).as_millis().max(1);
    let locked = locked.map(|locked| format!("; SET LOCAL lock_timeout = {}", locked.as_millis()));
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {within}; \
        SET LOCAL idle_in_transaction_session_timeout = {within}; SET LOCAL search_path = pg_catalog, pg_temp{}",
        locked.unwrap_or_default()
    )
}

/// A connection of the pool. It is closed when this is dropped, unless it is given back.
pub(super) struct Connection(Option<Object>);

impl Connection {
    pub(super) async fn of(pool: &Pool) -> Result<Self, OutboxError> {
        Ok(Self(Some(pool.get().await.map_err(OutboxError::database)?)))
    }

    pub(super) fn client(&self) -> &Object {
        let Some(client) = &self.0 else { unreachable!("it is given away at the end") };
        client
    }

    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

#[cfg(test)]
mod tests;
