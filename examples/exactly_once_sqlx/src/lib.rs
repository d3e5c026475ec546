//! Payments in PostgreSQL, exactly once: effect and record are one transaction of sqlx.
//!
//! If this process or the database dies between the effect and the answer, both exist or neither does. A payment
//! without a record did not take place, so a retry may run: [`OnInterrupted::Rerun`].
//!
//! [`Bank::app`] ends its handler with the record. [`Bank::app_of_requests`] has a transaction for each request, and
//! its handler knows nothing of records.

pub mod request;

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::post;
use sqlx::PgPool;
use tower_idempotency::server::Committed;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInterrupted};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

use crate::request::{Tx, unavailable};

/// The error of an operation that failed as a whole.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The payments' table, and the store of their records next to it.
#[derive(Debug, Clone)]
pub struct Bank {
    store: PostgresStore,
    pool: PgPool,
}

impl Bank {
    /// Connects, and creates the tables.
    ///
    /// # Errors
    /// The database can't be reached, or refuses.
    pub async fn open(url: &str) -> Result<Self, Failure> {
        let database = PostgresBackend::from_url(url)?.namespace("bank")?;
        database.migrate().await?;
        let store = PostgresStore::open(database.open().await?).await?;
        // The application's own connections. The store has others.
        let pool = PgPool::connect(url).await?;
        let table = "CREATE TABLE IF NOT EXISTS payment (id bigserial PRIMARY KEY, coins bigint NOT NULL)";
        sqlx::query(table).execute(&pool).await?;
        Ok(Self { store, pool })
    }

    /// Returns the application: `POST /payments` with an `Idempotency-Key`.
    pub fn app(&self) -> Router {
        let layer = IdempotencyLayer::new(self.store.clone()).require_key(true).on_interrupted(OnInterrupted::Rerun);
        Router::new().route("/payments", post(pay)).route_layer(layer).with_state(self.clone())
    }

    /// Returns the same application with [a transaction for each request](request::transaction).
    pub fn app_of_requests(&self) -> Router {
        let layer = IdempotencyLayer::new(self.store.clone()).require_key(true).on_interrupted(OnInterrupted::Rerun);
        let transaction = from_fn_with_state((self.store.clone(), self.pool.clone()), request::transaction);
        // The layer is outside: it comes last.
        Router::new().route("/payments", post(pay_in_request)).route_layer(transaction).route_layer(layer)
    }

    async fn pay(&self, context: &IdempotencyContext) -> Result<Committed, Failure> {
        let mut transaction = self.pool.begin().await?;
        let paid = sqlx::query_scalar("INSERT INTO payment (coins) VALUES (1) RETURNING id");
        let id: i64 = paid.fetch_one(&mut *transaction).await?;
        // sqlx has connections of its own: the record is a statement that it runs.
        let answer = format!("payment {id}");
        let committed = self
            .store
            .complete_with(context, answer, |sql, record| sqlx::query(sql).bind(record).execute(&mut *transaction))
            .await?;
        transaction.commit().await?;
        Ok(committed)
    }
}

async fn pay(State(bank): State<Bank>, context: IdempotencyContext) -> Result<Committed, (StatusCode, String)> {
    // The transaction decides the client's answer. Before there is a transaction, 503 frees the key under `Rerun`.
    bank.pay(&context).await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

async fn pay_in_request(mut tx: Tx) -> Result<String, (StatusCode, String)> {
    let paid = sqlx::query_scalar("INSERT INTO payment (coins) VALUES (1) RETURNING id");
    let id: i64 = paid.fetch_one(&mut **tx.0).await.map_err(unavailable)?;
    Ok(format!("payment {id}"))
}
