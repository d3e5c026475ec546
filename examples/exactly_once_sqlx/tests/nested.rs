//! A nested transaction of sqlx is a savepoint: the record belongs in the outermost transaction.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use sqlx::{Acquire as _, PgPool};
use testkit::postgres::own_server;
use tower::ServiceExt as _;
use tower_idempotency::server::Committed;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInterrupted};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore, TransactionRecord};

/// The transaction in which the record is written.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Nested,
    Outermost,
}

/// Pays in a nested transaction, like a function that has one of its own. A drop rolls everything back.
async fn pay(
    context: IdempotencyContext,
    store: PostgresStore,
    pool: PgPool,
    place: Place,
) -> Result<Committed, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let (record, committed) = store.record_for(&context, Response::new(Bytes::from("paid"))).unwrap();
    let record = store.backend().query(&record).unwrap();
    let mut nested = transaction.begin().await?;
    sqlx::query("INSERT INTO payment VALUES (1)").execute(&mut *nested).await?;
    if place == Place::Nested {
        sqlx::query(record.sql()).bind(record.bytes()).execute(&mut *nested).await?;
    }
    nested.commit().await?;
    if place == Place::Outermost {
        sqlx::query(record.sql()).bind(record.bytes()).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(committed)
}

fn app(store: &PostgresStore, pool: &PgPool, place: Place) -> Router {
    let layer = IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    let (store, pool) = (store.clone(), pool.clone());
    let paying = move |context: IdempotencyContext| {
        let (store, pool) = (store.clone(), pool.clone());
        async move {
            let paid = pay(context, store, pool, place).await;
            paid.map_err(|error| {
                let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
                assert_eq!(code, TransactionRecord::NESTED, "{error}");
                StatusCode::SERVICE_UNAVAILABLE
            })
        }
    };
    Router::new().route("/payments", post(paying)).layer(layer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_in_a_nested_transaction_is_refused_and_after_it_is_not() {
    let Some(server) = own_server("sqlx's nested transactions", &[]) else { return };
    let database = PostgresBackend::from_url(&server.url()).unwrap();
    database.migrate().await.unwrap();
    let store = PostgresStore::open(database.open().await.unwrap()).await.unwrap();
    let pool = PgPool::connect(&server.url()).await.unwrap();
    sqlx::query("CREATE TABLE payment (coins bigint)").execute(&pool).await.unwrap();
    let paid = async || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM payment").fetch_one(&pool).await.unwrap();
    let attempts = [
        (Place::Nested, StatusCode::SERVICE_UNAVAILABLE, 0),
        (Place::Nested, StatusCode::SERVICE_UNAVAILABLE, 0),
        (Place::Outermost, StatusCode::OK, 1),
        (Place::Outermost, StatusCode::OK, 1),
    ];
    for (place, status, payments) in attempts {
        let request = Request::post("/payments").header("idempotency-key", "order").body(Body::empty()).unwrap();
        let answer = app(&store, &pool, place).oneshot(request).await.unwrap();
        assert_eq!((answer.status(), paid().await), (status, payments));
    }
}
