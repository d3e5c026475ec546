//! With each client, an order, its call and its record are committed together, or none of them is.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use sql_clients::{
    Failure, Order, with_diesel, with_diesel_async, with_sea_orm, with_sqlx_0_8, with_sqlx_0_9, with_tokio_postgres,
};
use testkit::postgres::shared_server;
use tower::ServiceExt as _;
use tower_idempotency::server::Committed;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInterrupted};
use tower_idempotency_outbox::deadpool_postgres::{Manager, Pool};
use tower_idempotency_outbox::{Call, PostgresOutbox};
use tower_idempotency_postgres::tokio_postgres::{self, Client, NoTls};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

/// What a module's function does, with a connection of its own to the database at a URL.
type Orders = fn(String, Order) -> Pin<Box<dyn Future<Output = Result<Committed, Failure>> + Send>>;

/// The statement, run before the order, after which the operation is another process's.
const TAKE_OVER: &str = "UPDATE idempotency.record SET fence = fence + 1 WHERE kind = 1";

/// A service with a database of its own.
#[derive(Clone)]
struct Service {
    store: PostgresStore,
    outbox: PostgresOutbox,
    client: Arc<Client>,
    url: String,
    orders: Orders,
    /// How many handlers have run, and how the last order failed.
    runs: Arc<AtomicUsize>,
    failure: Arc<Mutex<String>>,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Service {
    async fn new(name: &str, orders: Orders) -> Option<Self> {
        let server = shared_server(&format!("one transaction, {name}"))?;
        connect(&server.url()).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url = format!("postgres://postgres@{}/{name}", server.address());
        let database = PostgresBackend::from_url(&url).unwrap();
        database.migrate().await.unwrap();
        let store = PostgresStore::open(database.open().await.unwrap()).await.unwrap();
        let pool = Pool::builder(Manager::new(url.parse().unwrap(), NoTls)).build().unwrap();
        let outbox = PostgresOutbox::new(pool, "outbox").unwrap();
        outbox.migrate().await.unwrap();
        let client = Arc::new(connect(&url).await);
        client.batch_execute("CREATE TABLE orders (amount bigint NOT NULL)").await.unwrap();
        Some(Self { store, outbox, client, url, orders, runs: Arc::default(), failure: Arc::default() })
    }

    /// Runs an order after a statement.
    async fn order(self, context: IdempotencyContext, before: &str) -> Result<Committed, StatusCode> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        self.client.batch_execute(before).await.unwrap();
        let call = Request::post("http://api.example/charges");
        let call = call.header("idempotency-key", format!("{}:charge", context.key().as_str())).body("amount=500");
        let order = Order {
            store: self.store,
            outbox: self.outbox,
            context,
            answer: format!("run {run}"),
            call: Call::new(call.unwrap()).unwrap(),
        };
        (self.orders)(self.url, order).await.map_err(|error| {
            *self.failure.lock().unwrap() = format!("{error}: {error:?}");
            StatusCode::SERVICE_UNAVAILABLE
        })
    }

    /// Sends a request. Returns the status, the body, and whether it is a replay.
    async fn send(&self, key: &str, before: &'static str) -> (StatusCode, String, bool) {
        let service = self.clone();
        let order = move |context: IdempotencyContext| service.order(context, before);
        let layer = IdempotencyLayer::new(self.store.clone()).on_interrupted(OnInterrupted::Rerun);
        let request = Request::post("/orders").header("idempotency-key", key).body(Body::empty()).unwrap();
        let answer = Router::new().route("/orders", post(order)).layer(layer).oneshot(request).await.unwrap();
        let (status, replayed) = (answer.status(), answer.headers().contains_key("idempotent-replayed"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned(), replayed)
    }

    /// How many orders, records and calls there are.
    async fn counts(&self) -> [i64; 3] {
        let sql = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM idempotency.record WHERE kind = 3),
            (SELECT count(*) FROM outbox.call)";
        let row = self.client.query_one(sql, &[]).await.unwrap();
        [0, 1, 2].map(|column| row.get(column))
    }
}

// Seeded faults: the record, and the call, are written on a connection of their own.
async fn are_committed_together_or_not_at_all(name: &str, orders: Orders) {
    let Some(service) = Service::new(name, orders).await else { return };
    // All three are written, and the database refuses the commit.
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''the commit is refused''; END';
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse()";
    let (status, body, _) = service.send("order-1", refuse).await;
    assert_eq!((status, service.counts().await), (StatusCode::SERVICE_UNAVAILABLE, [0, 0, 0]), "{body}");
    // So the key is free, and a retry runs. The next one gets its answer.
    let answer = service.send("order-1", "DROP FUNCTION refuse CASCADE").await;
    assert_eq!(answer, (StatusCode::OK, "run 2".to_owned(), false), "{}", service.failure.lock().unwrap());
    assert_eq!(service.counts().await, [1, 1, 1]);
    assert_eq!(service.send("order-1", "").await, (StatusCode::OK, "run 2".to_owned(), true));
    assert_eq!(service.counts().await, [1, 1, 1]);
    // The record's query fails if another process has the operation, and with it all that came before.
    let (status, body, _) = service.send("order-2", TAKE_OVER).await;
    assert_ne!(status, StatusCode::OK, "{body}");
    let failure = service.failure.lock().unwrap().clone();
    assert!(failure.contains("is not this run's any more"), "{failure}");
    assert_eq!(service.counts().await, [1, 1, 1]);
}

/// Makes a test of each client.
macro_rules! clients {
    ($($name:ident: $orders:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            are_committed_together_or_not_at_all(stringify!($name), $orders).await;
        })*
    };
}

clients! {
    with_sqlx_0_8: |url, order| Box::pin(async move {
        with_sqlx_0_8::order(&sqlx08::PgPool::connect(&url).await?, order).await
    });
    with_sqlx_0_9: |url, order| Box::pin(async move {
        with_sqlx_0_9::order(&sqlx::PgPool::connect(&url).await?, order).await
    });
    with_sea_orm: |url, order| Box::pin(async move {
        with_sea_orm::order(&sea_orm::Database::connect(&url).await?, order).await
    });
    with_diesel_async: |url, order| Box::pin(async move {
        with_diesel_async::order(&mut AsyncPgConnection::establish(&url).await?, order).await
    });
    with_diesel: |url, order| Box::pin(async move {
        let orders = move || {
            let mut connection: AsyncConnectionWrapper<AsyncPgConnection> = diesel::Connection::establish(&url)?;
            with_diesel::order(&mut connection, order)
        };
        tokio::task::spawn_blocking(orders).await?
    });
    with_tokio_postgres: |url, order| Box::pin(async move {
        with_tokio_postgres::order(&mut connect(&url).await, order).await
    });
}
