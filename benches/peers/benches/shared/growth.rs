//! New keys in a table of ten thousand records, and of a million; and the first page of each list.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::routing::post;
use peers::stores::postgres;
use testkit::bench::estimate::{Pairs, micros, pairs};
use testkit::bench::exchange::{layer, send};
use testkit::bench::lists;
use testkit::bench::load::key;
use testkit::bench::report::Report;
use testkit::lab::asked::leave_interrupted;
use tower_idempotency::OnInterrupted;
use tower_idempotency_postgres::PostgresStore;

use super::by_hand::client;

const FEW: i64 = 10_000;
const MANY: i64 = 1_000_000;
const MOST: f64 = 1.3;

/// The number of requests in a round, one after the other.
const REQUESTS: u64 = 100;

/// The statement that adds records like those of runs, under ids that are spread like digests.
const FILL: &str = "INSERT INTO idempotency.record (namespace, id, token, fence, kind, began, since, expires, state)
    SELECT r.namespace, sha256(int8send(n * 16 + r.kind)), md5(n::text)::uuid, r.fence + n, r.kind, r.began, r.since,
        r.expires + n * interval '1 ms', r.state
    FROM generate_series(1, $1::bigint) n, (SELECT * FROM idempotency.record WHERE kind = $2 LIMIT 1) r";

pub(crate) async fn measure(report: &mut Report, url: &str) {
    let databases = [Filled::new(url, "many", MANY).await, Filled::new(url, "few", FEW).await];
    // After the checkpoint, the data that filled the table is on the disk.
    client(url).await.batch_execute("CHECKPOINT").await.expect("a superuser");
    let mut serial = 1 << 53;
    let mut rounds = Vec::new();
    for turn in 0..=pairs() {
        let mut both = [[0.0; 2]; 2];
        for place in [turn % 2, 1 - turn % 2] {
            both[place] = databases[place].each(&mut serial).await;
        }
        if turn > 0 {
            rounds.push(both);
        }
    }
    lists::measure(report, &format!("lists, PostgreSQL, {MANY} records"), databases[0].store.clone()).await;
    for (what, name) in [(0, "claim"), (1, "first run")] {
        let pairs = Pairs {
            ours: rounds.iter().map(|[many, _]| many[what]).collect(),
            theirs: rounds.iter().map(|[_, few]| few[what]).collect(),
        };
        report.row("growth", &format!("{name}, among {MANY}"), "µs", pairs.ours());
        report.row("growth", &format!("{name}, among {FEW}"), "µs", pairs.theirs());
        report.row("growth", &format!("{name}, ratio"), "×", pairs.ratio());
        if what == 0 {
            report.at_most("growth/claim", pairs.ratio(), MOST);
        }
    }
}

/// A store over a filled table.
struct Filled {
    store: PostgresStore,
    app: Router,
    /// The time at which the handler was last entered.
    entered: Arc<Mutex<Instant>>,
}

impl Filled {
    async fn new(url: &str, name: &str, records: i64) -> Self {
        client(url).await.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a superuser");
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        let url = format!("{server}/{name}");
        let store = postgres(&url).await;
        let entered = Arc::new(Mutex::new(Instant::now()));
        let noted = Arc::clone(&entered);
        let charge = async move || {
            *noted.lock().expect("no holder panics") = Instant::now();
            "charged"
        };
        let app = Router::new().route("/charges", post(charge)).layer(layer(store.clone(), OnInterrupted::Refuse));
        let app = app.with_state(());
        send(&app, Some(&key(1))).await;
        leave_interrupted(&store, "interrupted").await;
        let client = client(&url).await;
        for (kind, records) in [(3_i16, records), (2, records / 100)] {
            client.execute(FILL, &[&records, &kind]).await.expect("there is room");
        }
        client.batch_execute("VACUUM ANALYZE idempotency.record").await.expect("its owner");
        Self { store, app, entered }
    }

    /// Returns the mean µs of a round until the handler is entered, and until the answer is there.
    async fn each(&self, serial: &mut u64) -> [f64; 2] {
        let mut sums = [0.0; 2];
        for _ in 0..REQUESTS {
            *serial += 1;
            let key = key(*serial);
            let began = Instant::now();
            send(&self.app, Some(&key)).await;
            let ended = Instant::now();
            let entered = *self.entered.lock().expect("no holder panics");
            sums[0] += micros(entered - began);
            sums[1] += micros(ended - began);
        }
        sums.map(|sum| sum / REQUESTS as f64)
    }
}
