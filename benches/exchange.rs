//! What does an exchange cost over the bare handler, in process?
//!
//! `cargo bench --bench exchange`. Look at the ratios: each row and the bare handler are measured in turns, in one run, and
//! the medians of their rounds are compared. Times move with the machine and its disk.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use futures_util::future::join_all;
use http::Request;
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInterrupted, SledStore};

const ROUNDS: usize = 25;
const BODY: &str = "amount=100&currency=eur&source=tok_visa";

/// Which key the requests of a round carry.
#[derive(Clone, Copy)]
enum Keys {
    None,
    Same,
    New,
}

struct Row {
    name: &'static str,
    app: Router,
    keys: Keys,
    concurrent: usize,
    requests: usize,
}

fn handler() -> Router {
    Router::new().route("/charges", post(|| async { "x".repeat(200) }))
}

fn request(key: Option<&str>) -> Request<Body> {
    let builder = Request::post("/charges").header("host", "pay.example");
    let builder = key.iter().fold(builder, |builder, key| builder.header("idempotency-key", *key));
    builder.body(Body::from(BODY)).unwrap()
}

impl Row {
    /// The time of one request, over a round.
    async fn round(&self, serial: &mut u64) -> Duration {
        let requests: Vec<_> = (0..self.requests)
            .map(|_| match self.keys {
                Keys::None => request(None),
                Keys::Same => request(Some("the-same")),
                Keys::New => {
                    *serial += 1;
                    request(Some(&format!("key-{serial}")))
                }
            })
            .collect();
        let mut requests = requests.into_iter();
        let began = Instant::now();
        loop {
            let slice: Vec<_> = requests.by_ref().take(self.concurrent).collect();
            if slice.is_empty() {
                break;
            }
            let answers = join_all(slice.into_iter().map(|request| self.app.clone().oneshot(request))).await;
            assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == 200));
        }
        began.elapsed() / u32::try_from(self.requests).unwrap()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let sled = |name: &str| SledStore::open(directory.path().join(name)).unwrap();
    let rerun = |layer: IdempotencyLayer<SledStore>| layer.on_interrupted(OnInterrupted::Rerun);
    let memory = || handler().layer(IdempotencyLayer::new(MemoryStore::new()));
    let refuse = handler().layer(IdempotencyLayer::new(sled("refuse")));
    let rerun = handler().layer(rerun(IdempotencyLayer::new(sled("rerun"))));
    let row =
        |name, app: &Router, keys, concurrent, requests| Row { name, app: app.clone(), keys, concurrent, requests };
    let bare = row("bare", &handler(), Keys::None, 1, 2_000);
    let rows = [
        row("no key", &memory(), Keys::None, 1, 2_000),
        row("replay, memory", &memory(), Keys::Same, 1, 2_000),
        row("replay, sled", &refuse, Keys::Same, 1, 2_000),
        row("first, memory", &memory(), Keys::New, 1, 500),
        row("first, sled, rerun, 1 at once", &rerun, Keys::New, 1, 50),
        row("first, sled, refuse, 1 at once", &refuse, Keys::New, 1, 50),
        row("first, sled, rerun, 64 at once", &rerun, Keys::New, 64, 640),
        row("first, sled, refuse, 64 at once", &refuse, Keys::New, 64, 640),
    ];
    let mut serial = 0;
    println!("{:<34} {:>12} {:>10}", "row", "median", "× bare");
    for row in rows {
        let (mut bares, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bares.push(bare.round(&mut serial).await);
            ours.push(row.round(&mut serial).await);
        }
        let (bare, ours) = (median(bares), median(ours));
        println!("{:<34} {:>12} {:>10.2}", row.name, format!("{ours:?}"), ours.as_secs_f64() / bare.as_secs_f64());
    }
}
