//! A transaction for each request: what becomes of it, and of the key, in each fault.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::post;
use exactly_once_sqlx::{Bank, request};
use futures_util::stream;
use http_body_util::BodyExt as _;
use sqlx::PgPool;
use testkit::exactly_once;
use testkit::postgres::{PostgresServer, own_server};
use tokio::sync::Notify;
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInterrupted};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

use request::Tx;

struct Lab {
    _server: PostgresServer,
    store: PostgresStore,
    pool: PgPool,
}

impl Lab {
    async fn new() -> Option<Self> {
        let server = own_server("a transaction for each request", &[])?;
        let database = PostgresBackend::from_url(&server.url()).unwrap();
        database.migrate().await.unwrap();
        let store = PostgresStore::open(database.open().await.unwrap()).await.unwrap();
        let pool = PgPool::connect(&server.url()).await.unwrap();
        sqlx::query("CREATE TABLE payment (id bigserial PRIMARY KEY, coins bigint)").execute(&pool).await.unwrap();
        Some(Self { _server: server, store, pool })
    }

    fn app<H: Handler<T, ()>, T: 'static>(&self, handler: H) -> Router {
        self.app_within(Duration::from_secs(600), handler)
    }

    fn app_within<H: Handler<T, ()>, T: 'static>(&self, max_run: Duration, handler: H) -> Router {
        let layer = IdempotencyLayer::new(self.store.clone()).on_interrupted(OnInterrupted::Rerun);
        let layer = layer.max_run(max_run);
        let transaction = from_fn_with_state((self.store.clone(), self.pool.clone()), request::transaction);
        Router::new().route("/", post(handler)).route_layer(transaction).route_layer(layer)
    }

    async fn paid(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM payment").fetch_one(&self.pool).await.unwrap()
    }

    /// The answer of a service that pays, which is the one that a retry gets too.
    async fn pays(&self) -> (StatusCode, String) {
        let paid = post_to(self.app(pay), "key").await;
        assert_eq!(post_to(self.app(pay), "key").await, paid, "the retry gets the same");
        paid
    }
}

async fn post_to(app: Router, key: &str) -> (StatusCode, String) {
    let request = Request::post("/").header("idempotency-key", key).body(Body::empty()).unwrap();
    let answer = app.oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn insert(tx: &mut Tx) {
    sqlx::query("INSERT INTO payment (coins) VALUES (1)").execute(&mut **tx.0).await.unwrap();
}

async fn pay(mut tx: Tx) -> (StatusCode, &'static str) {
    insert(&mut tx).await;
    (StatusCode::CREATED, "paid")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_is_committed_with_its_record_and_a_refusal_is_rolled_back() {
    let Some(lab) = Lab::new().await else { return };
    assert_eq!(lab.pays().await, (StatusCode::CREATED, "paid".to_owned()));
    assert_eq!(lab.paid().await, 1);
    // A redirect after a POST is a success.
    let redirects = async |mut tx: Tx| {
        insert(&mut tx).await;
        axum::response::Redirect::to("/orders/1")
    };
    assert_eq!(post_to(lab.app(redirects), "redirected").await.0, StatusCode::SEE_OTHER);
    assert_eq!(lab.paid().await, 2);
    let declines = async |mut tx: Tx| {
        insert(&mut tx).await;
        (StatusCode::PAYMENT_REQUIRED, "declined")
    };
    let declined = (StatusCode::PAYMENT_REQUIRED, "declined".to_owned());
    assert_eq!(post_to(lab.app(declines), "other").await, declined);
    assert_eq!(post_to(lab.app(pay), "other").await, declined, "a refusal is an outcome");
    assert_eq!(lab.paid().await, 2);
    // Without a key, there is no record.
    let request = || Request::post("/").body(Body::empty()).unwrap();
    for paid in [3, 4] {
        assert_eq!(lab.app(pay).oneshot(request()).await.unwrap().status(), StatusCode::CREATED);
        assert_eq!(lab.paid().await, paid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_or_is_too_late_has_done_nothing_and_its_retry_runs() {
    let Some(lab) = Lab::new().await else { return };
    let panics = async |mut tx: Tx| -> StatusCode {
        insert(&mut tx).await;
        panic!("before the end")
    };
    let is_late = async |mut tx: Tx| -> StatusCode {
        insert(&mut tx).await;
        pending().await
    };
    for (app, key) in [(lab.app(panics), "panics"), (lab.app_within(Duration::from_secs(2), is_late), "late")] {
        let before = lab.paid().await;
        let (status, body) = post_to(app, key).await;
        assert!(status.is_server_error(), "{key}: {status} {body}");
        assert_eq!(lab.paid().await, before, "{key}");
        assert_eq!(post_to(lab.app(pay), key).await, (StatusCode::CREATED, "paid".to_owned()), "{key}");
        assert_eq!(lab.paid().await, before + 1, "{key}");
    }
}

/// A service whose handler pays, notifies the first, and waits for the second.
fn pays_and_waits(lab: &Lab) -> ([Arc<Notify>; 2], Router) {
    let both = [(); 2].map(|()| Arc::new(Notify::new()));
    let [paid, goes_on] = both.clone();
    let waits = async move |mut tx: Tx| {
        insert(&mut tx).await;
        paid.notify_one();
        goes_on.notified().await;
        (StatusCode::CREATED, "paid")
    };
    (both, lab.app(waits))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_finds_its_payment_later() {
    let Some(lab) = Lab::new().await else { return };
    let ([paid, goes_on], app) = pays_and_waits(&lab);
    let client = tokio::spawn(post_to(app, "key"));
    paid.notified().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    goes_on.notify_one();
    assert_eq!(lab.pays().await, (StatusCode::CREATED, "paid".to_owned()));
    assert_eq!(lab.paid().await, 1);
}

/// Ends the connections whose statement, as here, waits for a standby after its commit, until there was one.
async fn end_what_waits(pool: &PgPool, statement: &str) {
    let ends =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = $1";
    let ended = async {
        while sqlx::query_scalar::<_, i64>(ends).bind(statement).fetch_one(pool).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ended).await.expect(statement);
}

// The server commits, and waits for a standby that there is none of; its connection ends meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_found_and_its_client_gets_what_was_recorded() {
    let Some(lab) = Lab::new().await else { return };
    let sql = async |sql: &'static str| sqlx::query(sql).execute(&lab.pool).await.unwrap();
    sql("CREATE TABLE probe ()").await;
    let ([paid, goes_on], app) = pays_and_waits(&lab);
    let client = tokio::spawn(post_to(app, "key"));
    paid.notified().await;
    sql("ALTER SYSTEM SET synchronous_standby_names = 'missing'").await;
    sql("SELECT pg_reload_conf()").await;
    // The setting gets to one process after the other. When the first commit waits, all do.
    const PROBE: &str = "INSERT INTO probe DEFAULT VALUES";
    let pool = lab.pool.clone();
    let probe = tokio::spawn(async move { while sqlx::query(PROBE).execute(&pool).await.is_ok() {} });
    end_what_waits(&lab.pool, PROBE).await;
    probe.await.unwrap();

    goes_on.notify_one();
    end_what_waits(&lab.pool, "COMMIT").await;
    sql("ALTER SYSTEM RESET synchronous_standby_names").await;
    sql("SELECT pg_reload_conf()").await;
    assert_eq!(client.await.unwrap(), (StatusCode::CREATED, "paid".to_owned()));
    assert_eq!(lab.pays().await, (StatusCode::CREATED, "paid".to_owned()));
    assert_eq!(lab.paid().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_the_handler_gives_away_or_takes_twice_commits_nothing() {
    let Some(lab) = Lab::new().await else { return };
    let gives_away = async |mut tx: Tx| {
        insert(&mut tx).await;
        tokio::spawn(async move {
            let _kept = tx;
            pending::<()>().await;
        });
        "paid"
    };
    let takes_two = async |mut tx: Tx, _: Tx| {
        insert(&mut tx).await;
        "paid"
    };
    for (app, key, said) in [
        (lab.app(gives_away), "away", "the handler has kept its transaction"),
        (lab.app(takes_two), "two", "its handler takes two"),
    ] {
        let (status, body) = post_to(app, key).await;
        assert_eq!((status, body.contains(said)), (StatusCode::SERVICE_UNAVAILABLE, true), "{body}");
        assert_eq!(lab.paid().await, 0, "{key}");
        assert_eq!(post_to(lab.app(pay), key).await.0, StatusCode::CREATED, "{key}");
        sqlx::query("DELETE FROM payment").execute(&lab.pool).await.unwrap();
    }
}

// Outside of the layer, the transaction would be committed after the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_outside_of_the_layer_is_refused() {
    let Some(lab) = Lab::new().await else { return };
    let layer = IdempotencyLayer::new(lab.store.clone()).on_interrupted(OnInterrupted::Rerun);
    let transaction = from_fn_with_state((lab.store.clone(), lab.pool.clone()), request::transaction);
    let app = Router::new().route("/", post(pay)).route_layer(layer).route_layer(transaction);
    assert_eq!(post_to(app, "key").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(lab.paid().await, 0);
}

// A text of the program's own as the answer: its type keeps the compiler from no `Send`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_completes_with_any_answer_of_axum() {
    let Some(lab) = Lab::new().await else { return };
    let pays = |State((store, pool)): State<(PostgresStore, PgPool)>, context: IdempotencyContext| async move {
        let mut transaction = pool.begin().await.unwrap();
        let answer = (StatusCode::CREATED, [("location", "/orders/1")], "paid");
        let committed = store
            .complete_with(&context, answer, |sql, record| sqlx::query(sql).bind(record).execute(&mut *transaction))
            .await
            .map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
        transaction.commit().await.unwrap();
        Ok::<_, (StatusCode, String)>(committed)
    };
    let layer = IdempotencyLayer::new(lab.store.clone()).on_interrupted(OnInterrupted::Rerun);
    let app = Router::new().route("/", post(pays)).route_layer(layer);
    let app = app.with_state((lab.store.clone(), lab.pool.clone()));
    for _ in 0..2 {
        assert_eq!(post_to(app.clone(), "key").await, (StatusCode::CREATED, "paid".to_owned()));
    }
}

// What can't be recorded is rolled back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_is_cut_or_fails_is_not_committed() {
    let Some(lab) = Lab::new().await else { return };
    let too_long = async |mut tx: Tx| {
        insert(&mut tx).await;
        vec![b'a'; 2 << 20]
    };
    let is_cut = async |mut tx: Tx| {
        insert(&mut tx).await;
        ([(CONTENT_LENGTH, "9")], Body::from_stream(stream::iter([Ok::<_, std::io::Error>("cut")])))
    };
    let fails = async |mut tx: Tx| {
        insert(&mut tx).await;
        Body::from_stream(stream::iter([Ok("half"), Err(std::io::Error::other("no more"))]))
    };
    for app in [lab.app(too_long), lab.app(is_cut), lab.app(fails)] {
        let (status, body) = post_to(app, "key").await;
        assert_eq!((status, lab.paid().await), (StatusCode::SERVICE_UNAVAILABLE, 0), "{body}");
    }
    assert_eq!(lab.pays().await.0, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_takes_place_once_though_the_server_is_killed() {
    exactly_once::pay_while_the_server_is_killed(async |url| Bank::open(url).await.unwrap().app_of_requests()).await;
}
