//! The namespace of a database, past the store: who uses it, and its fences.

use std::time::{Duration, Instant};

use tower_idempotency::{Fence, RecordId};

use super::postgres::PostgresRows;
use super::redis::RedisRows;
use crate::address::DEFAULT_NAMESPACE;
use crate::failure::Failure;

/// A namespace of a database.
pub(super) struct Namespace {
    rows: Rows,
    name: String,
    /// The session of this process there.
    pub(super) own: Option<RecordId>,
}

/// The rows of a namespace.
pub(super) enum Rows {
    Postgres(PostgresRows),
    Redis(Box<RedisRows>),
}

impl Namespace {
    /// Returns the namespace, once no other process has a lease there. Fails if one has it still after `wait`.
    pub(super) async fn unused(rows: Rows, name: Option<&str>, wait: Option<Duration>) -> Result<Self, Failure> {
        let namespace = Self { rows, name: name.unwrap_or(DEFAULT_NAMESPACE).to_owned(), own: None };
        let began = Instant::now();
        while wait.is_some_and(|wait| began.elapsed() < wait) && namespace.user().await?.is_some() {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        namespace.require_unused("is in use").await?;
        Ok(namespace)
    }

    /// Fails if another process has a lease here.
    pub(super) async fn require_unused(&self, said: &str) -> Result<(), Failure> {
        let Some((session, seconds)) = self.user().await? else { return Ok(()) };
        Err(Failure::Store(format!(
            "the namespace {:?} {said}: the server with the session {session} has a lease. Stop it first; if it was killed, \
             its lease is over in {seconds} s, which --wait waits for",
            self.name
        )))
    }

    /// Returns the session of another process that has the latest lease, and for how many seconds.
    async fn user(&self) -> Result<Option<(String, i64)>, Failure> {
        match &self.rows {
            Rows::Postgres(rows) => rows.user(self.own).await,
            Rows::Redis(rows) => rows.user(self.own).await,
        }
    }

    /// Returns a fence that is above all that were given here, those of deleted rows included: a row outlives its fence
    /// by the clock.
    pub(super) async fn fence(&self) -> Result<Fence, Failure> {
        match &self.rows {
            Rows::Postgres(rows) => rows.fence().await,
            Rows::Redis(rows) => rows.fence().await,
        }
    }
}
