//! Alerts fire in a real Prometheus against the payment server, each under its fault, and the dashboard's queries have
//! values.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use laboratories::small_disk::Small;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use serde_json::json;
use testkit::dice::free_address;
use testkit::payment_server::{Server, Setup};
use testkit::postgres::{FakeClock, own_server};
use testkit::process::{Process, until};
use testkit::{Connection, redis, skipped};
use tower::{BoxError, service_fn};
use tower_idempotency_outbox::{
    Call, Metrics as OutboxMetrics, Observer, OpenCalls, Outbox as _, Relay, SledOutbox, State,
};

use crate::prometheus::{Prometheus, queries, variables};

/// What an outbox has, a shared store, and fjall.
const OF_OUTBOX: [&str; 1] = ["idempotency_outbox_"];
const OF_SHARED: [&str; 2] = ["idempotency_store_lease_seconds", "idempotency_store_connections"];
const OF_FJALL: [&str; 2] = ["idempotency_store_written_bytes_total", "idempotency_store_merged_bytes_total"];

async fn charge(server: &Server, key: &str, source: &str) -> u16 {
    server.send(&testkit::Call::charge(key, source)).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_operations_and_handlers_fire_and_the_dashboard_draws() {
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let clock = match FakeClock::new(directory.path()) {
        Ok(clock) => clock,
        Err(error) => return skipped("that alerts fire", &error),
    };
    let setup = Setup::new(&directory).listening(address);
    let mut server = setup.start();
    let Some(prometheus) = Prometheus::of(address, "that alerts fire").await else { return };
    for _ in 0..2 {
        assert_eq!(charge(&server, "quiet", "tok_visa").await, 200);
    }
    assert!(prometheus.firing().await.is_empty());
    charge(&server, "unknown-0", "tok_timeout").await;
    prometheus.fires(&["IdempotencyOperationInterrupted"]).await;
    assert!(!prometheus.firing().await.contains("IdempotencyManyInterrupted"));
    for number in 1..10 {
        charge(&server, &format!("unknown-{number}"), "tok_timeout").await;
    }
    charge(&server, "panic", "tok_panic").await;
    prometheus.fires(&["IdempotencyManyInterrupted", "IdempotencyHandlerBroken"]).await;
    // Each query is understood, and shows the evening.
    for (title, query) in queries() {
        let result = prometheus.query(&query).await.unwrap_or_else(|| panic!("{title}: {query}"));
        let is_of_sled = ![&OF_OUTBOX[..], &OF_SHARED, &OF_FJALL].concat().iter().any(|name| query.contains(name));
        assert_eq!(!result.as_array().unwrap().is_empty(), is_of_sled, "{title}: {query}: {result}");
    }
    // The variables find the server.
    let mut values = Vec::new();
    for variable in variables() {
        let found = prometheus.values(&variable).await.unwrap_or_else(|| panic!("{}", variable.name));
        values.push((variable.name, found));
    }
    let expected = [("job", json!(["pay"])), ("instance", json!([address.to_string()]))];
    assert_eq!(values, expected.map(|(name, found)| (name.to_owned(), found)));
    // A day later, none is settled.
    server.kill();
    prometheus.fires(&["IdempotencyMetricsMissing"]).await;
    clock.set(25 * 60 * 60);
    let later = setup.under(clock.wrapper()).start();
    prometheus.fires(&["IdempotencyInterruptedForADay"]).await;
    until("the metrics are there again", async || !prometheus.firing().await.contains("IdempotencyMetricsMissing"))
        .await;
    drop(later);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_a_full_store_fire() {
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let full = ["env", "PAYMENTS_SLED__MAX_RECORDS=1"].map(OsString::from);
    let server = Setup::new(&directory).listening(address).under(full).start();
    let Some(prometheus) = Prometheus::of(address, "that a full store is noticed").await else { return };
    charge(&server, "first", "tok_visa").await;
    let alerts = ["IdempotencyRequestsRefused", "IdempotencyStoreUnhealthy"];
    until("the alerts fire", async || {
        charge(&server, "another", "tok_visa").await;
        let firing = prometheus.firing().await;
        alerts.iter().all(|alert| firing.contains(*alert))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_draws_what_fjall_writes() {
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let server = Setup::new(&directory).listening(address).with("--store fjall").start();
    let Some(prometheus) = Prometheus::of(address, "that the dashboard shows what fjall writes").await else { return };
    assert_eq!(charge(&server, "first", "tok_visa").await, 200);
    prometheus.draws(&OF_FJALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_a_database_that_is_away_and_of_a_server_that_stalls_fire() {
    let promise = "that a database which is away is noticed";
    let Some(mut database) = own_server(promise, &[]) else { return };
    let url = database.url();
    let switch = |is_on| if is_on { database.start_again() } else { database.kill() };
    the_alerts_of_a_database_fire(promise, &url, switch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_a_redis_that_is_away_and_of_a_server_that_stalls_fire() {
    let promise = "that a Redis which is away is noticed";
    let Some(mut database) = redis::own_server(promise, &["appendonly yes", "appendfsync always"]) else { return };
    let url = database.url();
    let switch = |is_on| if is_on { database.start_again() } else { database.kill() };
    the_alerts_of_a_database_fire(promise, &url, switch).await;
}

/// `switch` turns the database off and on.
async fn the_alerts_of_a_database_fire(promise: &str, url: &str, mut switch: impl FnMut(bool)) {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = format!("--store {url} --namespace alarms --lease 12");
    let (address, other) = (free_address(), free_address());
    let server = Setup::new(&directories[0]).listening(address).with(&store).start();
    let Some(prometheus) = Prometheus::of(address, promise).await else { return };
    let second = Setup::new(&directories[1]).listening(other).with(&store).start();

    // The first one stalls in the middle of a charge, and an operator settles it at the second one.
    let call = testkit::Call::charge("stalled", "tok_slow");
    let connection = server.charging_slowly(&call).await;
    server.pause().await;
    until("the operation shows as interrupted", async || !second.interrupted().await.is_empty()).await;
    assert_eq!(second.release(&second.interrupted().await[0]).await, "done");
    server.resume();
    prometheus.fires(&["IdempotencyLeaseLost", "IdempotencyDisputed"]).await;
    drop(connection);
    prometheus.draws(&OF_SHARED).await;

    // The database goes away in the middle of another charge.
    let mut connection = Connection::http1(address).await.unwrap();
    let begun = server.log.text().matches("a charge begins source=tok_slow").count() + 1;
    let slow = tokio::spawn(async move { drop(connection.send(&testkit::Call::charge("unsaved", "tok_slow")).await) });
    server.charge_begun("tok_slow", begun).await;
    // One that hangs would let scrapes hang, which have a fifth of a second here.
    switch(false);
    prometheus.fires(&["IdempotencyUnrecorded", "IdempotencyBreakerOpen", "IdempotencyStoreUnhealthy"]).await;
    switch(true);
    slow.await.unwrap();
    let calm = async || !prometheus.firing().await.contains("IdempotencyBreakerOpen");
    until("the database is used again", calm).await;
    tokio::time::timeout(Duration::from_secs(60), second.stop()).await.unwrap();
}

/// Serves what a scrape of a process reads.
async fn scraped<F: Future<Output = String> + Send + 'static>(
    scrape: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(free_address()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/metrics", get(scrape));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_of_a_process_without_gauges_fires() {
    let directory = tempfile::tempdir().unwrap();
    let server = Arc::new(Setup::new(&directory).start());
    charge(&server, "first", "tok_visa").await;
    // As of a process that never calls `metrics::update`.
    let counters = move || {
        let server = Arc::clone(&server);
        async move {
            let text = server.get("/metrics").await.text().to_owned();
            text.split_inclusive('\n').filter(|line| !line.contains("idempotency_store_")).collect()
        }
    };
    let Some(prometheus) = Prometheus::of(scraped(counters).await, "that missing gauges are noticed").await else {
        return;
    };
    prometheus.fires(&["IdempotencyGaugesMissing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_of_a_disk_that_fills_up_fires_before_it_is_full() {
    let promise = "that a disk which fills up is noticed";
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new(&directory);
    std::fs::create_dir(&setup.data).unwrap();
    let _disk = match Small::mounted(&setup.data, "512m") {
        Ok(disk) => disk,
        Err(obstacle) => return skipped(promise, &obstacle),
    };
    let address = free_address();
    let server = setup.clone().listening(address).start();
    let Some(prometheus) = Prometheus::of(address, promise).await else { return };
    let mut file = std::fs::File::create(setup.data.join("others")).unwrap();
    until("IdempotencyDiskFillsUp", async || {
        // Others write, too: some 20 MiB in the time that the alert looks back.
        std::io::Write::write_all(&mut file, &vec![1; 32 << 10]).unwrap();
        prometheus.firing().await.contains("IdempotencyDiskFillsUp")
    })
    .await;
    assert_eq!(charge(&server, "room", "tok_visa").await, 200);
    assert!(!prometheus.firing().await.contains("IdempotencyStoreUnhealthy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_of_a_sweep_that_lags_fires_while_the_disk_hangs() {
    let promise = "that a sweep which lags is noticed";
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let short = ["env", "PAYMENTS_LAYER__RETENTION=1s"].map(OsString::from);
    let server = Setup::new(&directory).listening(address).under(short).start();
    let Some(prometheus) = Prometheus::of(address, promise).await else { return };
    assert_eq!(charge(&server, "first", "tok_visa").await, 200);
    // The store sweeps, and there is a record that expires next, whenever the disk begins to hang.
    let first = testkit::Call::charge("first", "tok_visa");
    until("the first record has expired", async || !server.send(&first).await.is_replay()).await;
    let charging = tokio::spawn(async move {
        let Ok(mut connection) = Connection::http1(address).await else { return };
        for number in 0.. {
            let call = testkit::Call::charge(&format!("next-{number}"), "tok_visa");
            if connection.send(&call).await.is_err() {
                return;
            }
        }
    });
    let calls = "fsync,fdatasync,msync,sync_file_range";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &server.id().to_string()]);
    strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:delay_enter=120000000")]);
    strace.stderr(Stdio::null());
    let mut hangs = match strace.spawn() {
        Ok(child) => Process(child),
        Err(error) => return skipped(promise, &format!("strace: {error}")),
    };
    let mut ended = None;
    until("IdempotencySweepLags", async || {
        ended = hangs.0.try_wait().unwrap();
        ended.is_some() || prometheus.firing().await.contains("IdempotencySweepLags")
    })
    .await;
    charging.abort();
    // The server can't end while a call of it is held.
    drop(hangs);
    drop(server);
    if let Some(ended) = ended {
        skipped(promise, &format!("strace may not look at another process: {ended}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_an_outbox_fire() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = SledOutbox::open(directory.path()).await.unwrap();
    let recorder: &'static PrometheusRecorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    let handle = recorder.handle();
    let scraped_by_hand = handle.clone();
    let address = scraped(move || std::future::ready(handle.render())).await;
    for (number, host) in ["refusing", "failing"].into_iter().enumerate() {
        let request = http::Request::post(format!("http://{host}.example/canary"))
            .header("idempotency-key", format!("canary-{number}"));
        let call = Call::new(request.body("canary").unwrap()).unwrap().in_order_of(format!("canary-{number}"));
        outbox.put(&call.unwrap()).await.unwrap();
    }
    let client = service_fn(async |request: http::Request<Full<Bytes>>| {
        let is_refusing = request.uri().host() == Some("refusing.example");
        let mut answer = http::Response::new(Full::<Bytes>::default());
        // No redirect is followed; and 503 asks for another try.
        *answer.status_mut() = if is_refusing { StatusCode::SEE_OTHER } else { StatusCode::SERVICE_UNAVAILABLE };
        Ok::<_, BoxError>(answer)
    });
    let metrics = ::metrics::with_local_recorder(recorder, || Observed {
        metrics: Arc::new(OutboxMetrics::new("letters")),
        recorder,
    });
    let relay = Relay::new(outbox.clone(), client).observe(metrics.clone());
    let relay = tokio::spawn(relay.run(std::future::pending()));
    // A relay counts once a minute, which is a second here.
    let counting = tokio::spawn({
        let (outbox, metrics) = (outbox.clone(), metrics.clone());
        async move {
            loop {
                metrics.counted(&outbox.open_calls().await.unwrap());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    let Some(prometheus) = Prometheus::of(address, "that calls which wait for an operator are noticed").await else {
        return;
    };
    until("both alerts fire", async || {
        let firing = prometheus.firing().await;
        ["IdempotencyOutboxCallsGivenUp", "IdempotencyOutboxLate"].iter().all(|alert| firing.contains(*alert))
    })
    .await;
    assert!(!prometheus.firing().await.contains("IdempotencyOutboxNotCounted"));
    for (title, query) in queries().into_iter().filter(|(_, query)| query.contains("idempotency_outbox_")) {
        let result = prometheus.query(&query).await.unwrap();
        assert!(result[0]["metric"]["destination"].as_str().unwrap().ends_with(".example"), "{title}: {result}");
    }
    let scrape = scraped_by_hand.render();
    assert!(scrape.contains("failing.example") && !scrape.contains("canary"), "{scrape}");
    // No relay counts them any more.
    relay.abort();
    counting.abort();
    prometheus.fires(&["IdempotencyOutboxNotCounted"]).await;
}

/// The metrics of an outbox over a recorder of this test alone.
#[derive(Clone)]
struct Observed {
    metrics: Arc<OutboxMetrics>,
    recorder: &'static PrometheusRecorder,
}

impl Observer for Observed {
    fn tried(&self, destination: &str, state: State) {
        ::metrics::with_local_recorder(self.recorder, || self.metrics.tried(destination, state));
    }

    fn counted(&self, open: &[OpenCalls]) {
        ::metrics::with_local_recorder(self.recorder, || self.metrics.counted(open));
    }
}
