//! Measures the time from the owner's answer to the answer of a duplicate on another server.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use testkit::bench::estimate::{Estimate, micros, pairs, quantile};
use testkit::bench::exchange::{layer, send};
use testkit::bench::load::{key, round};
use testkit::bench::report::Report;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower_idempotency::OnInterrupted;
use tower_idempotency::store::Store;

const MOST_P50: f64 = 15.0;
const MOST_P99: f64 = 50.0;

/// The number of duplicates in a round.
const DUPLICATES: u64 = 20;
/// The least time that a duplicate waits before its run ends, and the most time that is added.
const WAITS: u64 = 10;
const MORE: u64 = 30;
/// The number of other runs, while the database is busy.
const OTHERS: usize = 16;

/// A run that waits at a gate.
pub struct Charge {
    key: String,
    gate: watch::Sender<bool>,
    began: watch::Receiver<bool>,
    owner: JoinHandle<Instant>,
}

impl Charge {
    /// Begins a run, and returns once its handler runs.
    pub async fn begin(store: &(impl Store + Clone), number: u64) -> Self {
        let ((gate, opened), (begins, mut began)) = (watch::channel(false), watch::channel(false));
        let charge = async move || {
            begins.send_replace(true);
            let _ = opened.clone().wait_for(|is_open| *is_open).await;
            "charged"
        };
        let app = behind(store, Router::new().route("/charges", post(charge)));
        let owner = answered(&app, key(number));
        began.wait_for(|began| *began).await.expect("it runs");
        Self { key: key(number), gate, began, owner }
    }

    /// Sends the same request to another server. Returns the time of its answer.
    pub fn duplicate(&self, store: &(impl Store + Clone)) -> JoinHandle<Instant> {
        let never = async || -> &'static str { panic!("it runs elsewhere") };
        answered(&behind(store, Router::new().route("/charges", post(never))), self.key.clone())
    }

    /// Ends the run. Returns the time of its answer.
    pub async fn end(self) -> Instant {
        self.gate.send_replace(true);
        let answered = self.owner.await.expect("it is answered");
        drop(self.began);
        answered
    }
}

fn behind(store: &(impl Store + Clone), app: Router) -> Router {
    app.layer(layer(store.clone(), OnInterrupted::Refuse)).with_state(())
}

fn answered(app: &Router, key: String) -> JoinHandle<Instant> {
    let app = app.clone();
    tokio::spawn(async move {
        send(&app, Some(&key)).await;
        Instant::now()
    })
}

/// Measures it with two stores over one database: when it is idle, and while `busy` serves others over it.
pub async fn measure<St: Store + Clone>(report: &mut Report, stores: &[St; 2], busy: Router) {
    let mut serial = 1 << 51;
    let (quiet, all) = delays(stores, &mut serial).await;
    tell(report, "waiting elsewhere", quiet, &all);
    report.at_most("waiting elsewhere/p50", quiet, MOST_P50);
    report.at_most("waiting elsewhere/p99", Estimate::exact(p99(&all)), MOST_P99);

    let others = tokio::spawn(async move {
        let mut serial = 1 << 52;
        loop {
            round(&busy, OTHERS, OTHERS * 8, &mut serial).await;
        }
    });
    let (busy, all) = delays(stores, &mut serial).await;
    others.abort();
    tell(report, &format!("waiting elsewhere, {OTHERS} others"), busy, &all);
}

fn tell(report: &mut Report, group: &str, p50: Estimate, all: &[Duration]) {
    report.row(group, "p50 after the owner's answer", "ms", p50);
    report.row(group, "p99 after the owner's answer", "ms", Estimate::exact(p99(all)));
}

fn p99(sorted: &[Duration]) -> f64 {
    micros(quantile(sorted, 0.99)) / 1e3
}

/// Returns the medians of rounds, in ms, and all delays together, sorted.
async fn delays<St: Store + Clone>([here, there]: &[St; 2], serial: &mut u64) -> (Estimate, Vec<Duration>) {
    let (mut medians, mut all) = (Vec::new(), Vec::new());
    for turn in 0..=pairs() {
        let mut times = Vec::new();
        for _ in 0..DUPLICATES {
            *serial += 1;
            let charge = Charge::begin(here, *serial).await;
            let duplicate = charge.duplicate(there);
            let more = testkit::dice::seed() % MORE;
            sleep(Duration::from_millis(WAITS + more)).await;
            let owner = charge.end().await;
            let told = duplicate.await.expect("it is answered");
            times.push(told.saturating_duration_since(owner));
        }
        times.sort();
        if turn > 0 {
            medians.push(micros(quantile(&times, 0.5)) / 1e3);
            all.append(&mut times);
        }
    }
    all.sort();
    (Estimate::of(medians), all)
}
