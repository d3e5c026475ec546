//! The namespace of a database, past the store: who uses it, and its fences.

use std::time::{Duration, Instant};

use tower_idempotency::{Fence, RecordId};
use tower_idempotency_postgres::tokio_postgres::Error;
use tower_idempotency_postgres::tokio_postgres::types::Type;

use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::open::{Connected, connect};
use crate::place::Database;

/// The namespace of a URL that names none.
const DEFAULT: &str = "default";

/// A namespace of a database.
pub(super) struct Namespace {
    pub(super) connected: Connected,
    name: String,
    /// The session of this process there.
    pub(super) own: Option<RecordId>,
}

impl Namespace {
    pub(super) async fn of(database: &Database, options: &StoreOptions) -> Result<Self, Failure> {
        let connected = connect(database, options).await?;
        let name = database.namespace.clone().unwrap_or_else(|| DEFAULT.to_owned());
        Ok(Self { connected, name, own: None })
    }

    /// Returns what tells this namespace from all others, whatever name its server was reached by.
    pub(super) async fn place(&self) -> Result<(String, u32, String, String), Failure> {
        let Connected { client, schema } = &self.connected;
        let place = "SELECT pg_postmaster_start_time()::text, oid FROM pg_database WHERE datname = current_database()";
        let row = client.query_typed_one(place, &[]).await.map_err(failed)?;
        let (started, database) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        Ok((started, database, schema.clone(), self.name.clone()))
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

    /// Fails if another process has a lease here, and has one still after `wait`.
    pub(super) async fn wait_until_unused(&self, wait: Option<Duration>) -> Result<(), Failure> {
        let began = Instant::now();
        while wait.is_some_and(|wait| began.elapsed() < wait) && self.user().await?.is_some() {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        self.require_unused("is in use").await
    }

    /// Returns the session of another process that has the latest lease, and for how many seconds.
    async fn user(&self) -> Result<Option<(String, i64)>, Failure> {
        let Connected { client, schema } = &self.connected;
        let found = format!(
            "SELECT left(encode(id, 'hex'), 8), ceil(extract(epoch FROM until - clock_timestamp()))::int8
             FROM {schema}.record WHERE namespace = $1 AND kind = 6 AND until > clock_timestamp() AND id <> $2
             ORDER BY until DESC LIMIT 1"
        );
        let own: &[u8] = self.own.as_ref().map_or(&[], |own| own.as_bytes());
        let rows =
            client.query_typed(&found, &[(&self.name, Type::TEXT), (&own, Type::BYTEA)]).await.map_err(failed)?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?)))
    }

    /// Returns a fence that is above all that were given here, those of deleted rows included: a row outlives its fence
    /// by the clock.
    pub(super) async fn fence(&self) -> Result<Fence, Failure> {
        let Connected { client, schema } = &self.connected;
        let highest = format!(
            "SELECT greatest(max(fence), (extract(epoch FROM clock_timestamp()) * 1000000)::int8) + 1
             FROM {schema}.record WHERE namespace = $1"
        );
        let row = client.query_typed_one(&highest, &[(&self.name, Type::TEXT)]).await.map_err(failed)?;
        let fence: i64 = row.try_get(0).map_err(failed)?;
        Ok(Fence(u64::try_from(fence).unwrap_or(0)))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: Error) -> Failure {
    Failure::of(&error)
}
