//! A ledger in a table of PostgreSQL, next to the records. All servers of a namespace share it.
//!
//! Charge and record are one transaction of this server's own, in which
//! `PostgresStore::complete_in` writes the record. A change without a key is committed alone.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use tokio::time::timeout;
use tower_idempotency::IdempotencyContext;
use tower_idempotency_postgres::PostgresStore;
use tower_idempotency_postgres::tokio_postgres::types::ToSql;
use tower_idempotency_postgres::tokio_postgres::{Client, Error, Row, Transaction};

use super::entry::{ChargeId, Entry, Intent, NotRefunded, Refund};
use super::error::LedgerError;
use super::ids::Ids;
use super::pool::Pool;
use crate::api::account::Account;
use crate::api::charges::Charge;
use crate::api::refunds::Answer;
use crate::json::json;

/// The statements that create the table.
const TABLE: &str = include_str!("table.sql");
const IS_THERE: &str = "SELECT to_regclass('payment_server.charge') IS NOT NULL";
/// The lock by which servers that create the table wait for each other. The number was drawn at random.
const LOCK: i64 = 0x3c91_e04d_77a2_5b18;

const ENTER: &str = "INSERT INTO payment_server.charge (namespace, account, id, entry, intents)
    VALUES ($1, $2, $3, $4::text::json, $5)";
const CHANGE: &str = "UPDATE payment_server.charge SET entry = $4::text::json, intents = intents || $5::bytea[]
    WHERE namespace = $1 AND account = $2 AND id = $3";
const GET: &str = "SELECT id, entry::text FROM payment_server.charge
    WHERE namespace = $1 AND account = $2 AND id = $3";
/// The query that locks the charge, so that its refunds come one after the other.
const GET_TO_CHANGE: &str = "SELECT id, entry::text FROM payment_server.charge
    WHERE namespace = $1 AND account = $2 AND id = $3 FOR UPDATE";
const INTENDED: &str = "SELECT id, entry::text FROM payment_server.charge
    WHERE namespace = $1 AND intents @> ARRAY[$2::bytea] ORDER BY id";
const NEWEST: &str = "SELECT id, entry::text FROM payment_server.charge
    WHERE namespace = $1 AND account = $2 ORDER BY id DESC LIMIT $3";

/// The time that reading the ledger may take.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct TableLedger {
    pool: Pool,
    store: PostgresStore,
    namespace: String,
    ids: Ids,
}

impl TableLedger {
    /// Opens the ledger, and creates the table if it does not exist. Several servers may do so at once.
    pub(super) async fn open(url: &str, store: PostgresStore, namespace: &str) -> Result<Self, LedgerError> {
        let pool = Pool::new(url.parse().map_err(LedgerError::away)?);
        let mut connection = pool.lend().await?;
        make_table(&mut connection).await.map_err(LedgerError::away)?;
        connection.give_back();
        Ok(Self { pool, store, namespace: namespace.to_owned(), ids: Ids::default() })
    }

    /// Enters a charge, with the record of its answer.
    pub(super) async fn charge(
        &self,
        context: Option<&IdempotencyContext>,
        account: Account,
        entry: Entry,
    ) -> Result<(ChargeId, Response), LedgerError> {
        let id = self.ids.fresh()?;
        let intent = Intent::of_step(context, "charge");
        let entry = Entry { intent, ..entry };
        let mut connection = self.pool.lend().await?;
        let transaction = connection.transaction().await.map_err(LedgerError::away)?;
        self.write(&transaction, ENTER, account, id, &entry, intent).await?;
        let answer = self.commit(transaction, context, &json(&Charge::of(id, entry))?).await?;
        connection.give_back();
        Ok((id, answer))
    }

    /// Refunds `amount`, or what is left, with the record of the answer.
    pub(super) async fn refund(
        &self,
        context: Option<&IdempotencyContext>,
        account: Account,
        id: ChargeId,
        amount: Option<u64>,
        refund: Refund,
    ) -> Result<Result<Response, NotRefunded>, LedgerError> {
        let mut connection = self.pool.lend().await?;
        let transaction = connection.transaction().await.map_err(LedgerError::away)?;
        let key: [&(dyn ToSql + Sync); 3] = [&self.namespace, &account.bytes().to_vec(), &id.0.to_vec()];
        let row = transaction.query_opt(GET_TO_CHANGE, &key).await.map_err(LedgerError::away)?;
        // A refusal leaves nothing to commit: the layer records it like any other answer.
        let Some(row) = row else { return Ok(Err(NotRefunded::NoSuchCharge)) };
        let (id, mut entry) = read(&row)?;
        let refunded = match entry.refund(amount, &refund) {
            Ok(refunded) => refunded,
            Err(refused) => return Ok(Err(refused)),
        };
        self.write(&transaction, CHANGE, account, id, &entry, refund.intent).await?;
        let answer = self.commit(transaction, context, &json(&Answer::of(id, refunded, &entry))?).await?;
        connection.give_back();
        Ok(Ok(answer))
    }

    /// Enters a charge, or changes it.
    async fn write(
        &self,
        transaction: &Transaction<'_>,
        statement: &str,
        account: Account,
        id: ChargeId,
        entry: &Entry,
        intent: Option<Intent>,
    ) -> Result<(), LedgerError> {
        let entry = serde_json::to_string(entry)?;
        let intents: Vec<_> = intent.map(|intent| intent.bytes().to_vec()).into_iter().collect();
        let (account, id) = (account.bytes().to_vec(), id.0.to_vec());
        let written = transaction.execute(statement, &[&self.namespace, &account, &id, &entry, &intents]).await;
        written.map(drop).map_err(LedgerError::away)
    }

    /// Commits the transaction, with the record of the answer if the request has a key. Whatever this returns then, the
    /// layer finds out whether the transaction was committed, and answers accordingly.
    async fn commit(
        &self,
        transaction: Transaction<'_>,
        context: Option<&IdempotencyContext>,
        answer: &http::Response<Bytes>,
    ) -> Result<Response, LedgerError> {
        let response = match context {
            Some(context) => {
                let committed = self.store.complete_in(context, &transaction, answer.clone()).await;
                committed.map_err(LedgerError::failed)?.into_response()
            }
            None => answer.clone().map(Into::into),
        };
        transaction.commit().await.map_err(LedgerError::failed)?;
        Ok(response)
    }

    /// Returns the charges that were made with this intent, or refunded in part.
    pub(super) async fn intended(&self, intent: Intent) -> Result<Vec<(ChargeId, Entry)>, LedgerError> {
        self.read(INTENDED, &[&self.namespace, &intent.bytes().to_vec()]).await
    }

    pub(super) async fn get(&self, account: Account, id: ChargeId) -> Result<Option<Entry>, LedgerError> {
        let found = self.read(GET, &[&self.namespace, &account.bytes().to_vec(), &id.0.to_vec()]).await?;
        Ok(found.into_iter().next().map(|(_, entry)| entry))
    }

    pub(super) async fn list(
        &self,
        account: Account,
        limit: usize,
    ) -> Result<(Vec<(ChargeId, Entry)>, bool), LedgerError> {
        let and_one = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let mut newest = self.read(NEWEST, &[&self.namespace, &account.bytes().to_vec(), &and_one]).await?;
        let has_more = newest.len() > limit;
        newest.truncate(limit);
        Ok((newest, has_more))
    }

    async fn read(
        &self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<(ChargeId, Entry)>, LedgerError> {
        let connection = self.pool.lend().await?;
        let rows = timeout(TIMEOUT, connection.query(query, parameters)).await.map_err(LedgerError::away)?;
        connection.give_back();
        rows.map_err(LedgerError::away)?.iter().map(read).collect()
    }
}

async fn make_table(client: &mut Client) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    if !transaction.query_one(IS_THERE, &[]).await?.try_get::<_, bool>(0)? {
        transaction.batch_execute(TABLE).await?;
    }
    transaction.commit().await
}

/// Reads a charge from a row, in the form that all queries have.
fn read(row: &Row) -> Result<(ChargeId, Entry), LedgerError> {
    let id: &[u8] = row.try_get(0).map_err(LedgerError::failed)?;
    let entry: &str = row.try_get(1).map_err(LedgerError::failed)?;
    Ok((ChargeId(id.try_into().map_err(LedgerError::failed)?), serde_json::from_str(entry)?))
}
