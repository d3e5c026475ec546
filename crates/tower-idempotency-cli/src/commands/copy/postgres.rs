//! The rows of a namespace in PostgreSQL.

use tower_idempotency::{Fence, RecordId};
use tower_idempotency_postgres::tokio_postgres::types::Type;

use crate::address::{DEFAULT_NAMESPACE, Database};
use crate::arguments::StoreOptions;
use crate::failure::Failure;
use crate::open::{Connected, check_namespace, connect};

/// The rows, past the store.
pub(super) struct PostgresRows {
    connected: Connected,
    name: String,
}

impl PostgresRows {
    pub(super) async fn of(database: &Database, options: &StoreOptions) -> Result<Self, Failure> {
        let connected = connect(database, options).await?;
        Ok(Self { connected, name: database.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()) })
    }

    /// The same, of a namespace that has some.
    pub(super) async fn existing(database: &Database, options: &StoreOptions) -> Result<Self, Failure> {
        let rows = Self::of(database, options).await?;
        check_namespace(&rows.connected.client, &rows.connected.schema, database.namespace.as_deref()).await?;
        Ok(rows)
    }

    /// Returns what tells this namespace from all others, whatever name its server was reached by.
    pub(super) async fn place(&self) -> Result<(String, u32, String, String), Failure> {
        let Connected { client, schema } = &self.connected;
        let place = "SELECT pg_postmaster_start_time()::text, oid FROM pg_database WHERE datname = current_database()";
        let row = client.query_typed_one(place, &[]).await.map_err(Failure::of)?;
        let (started, database) = (row.try_get(0).map_err(Failure::of)?, row.try_get(1).map_err(Failure::of)?);
        Ok((started, database, schema.clone(), self.name.clone()))
    }

    /// Returns the session of another process that has the latest lease, and for how many seconds.
    pub(super) async fn user(&self, own: Option<RecordId>) -> Result<Option<(String, i64)>, Failure> {
        let Connected { client, schema } = &self.connected;
        let found = format!(
            "SELECT left(encode(id, 'hex'), 8), ceil(extract(epoch FROM until - clock_timestamp()))::int8
             FROM {schema}.record WHERE namespace = $1 AND kind = 6 AND until > clock_timestamp() AND id <> $2
             ORDER BY until DESC LIMIT 1"
        );
        let own: &[u8] = own.as_ref().map_or(&[], |own| own.as_bytes());
        let rows =
            client.query_typed(&found, &[(&self.name, Type::TEXT), (&own, Type::BYTEA)]).await.map_err(Failure::of)?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some((row.try_get(0).map_err(Failure::of)?, row.try_get(1).map_err(Failure::of)?)))
    }

    /// Returns a fence that is above all of the rows, and above those that the clock gives until now.
    pub(super) async fn fence(&self) -> Result<Fence, Failure> {
        let Connected { client, schema } = &self.connected;
        let highest = format!(
            "SELECT greatest(max(fence), (extract(epoch FROM clock_timestamp()) * 1000000)::int8) + 1
             FROM {schema}.record WHERE namespace = $1"
        );
        let row = client.query_typed_one(&highest, &[(&self.name, Type::TEXT)]).await.map_err(Failure::of)?;
        let fence: i64 = row.try_get(0).map_err(Failure::of)?;
        Ok(Fence(u64::try_from(fence).unwrap_or(0)))
    }
}
