//! Measures the cost of many requests at once.
//!
//! `cargo bench --bench contention`. A thousand requests have one key, and wait or are refused; ten thousand have keys
//! of their own, all under way. The requests run in process, with a store in memory, so that no disk decides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use futures_util::future::poll_fn;
use testkit::Gate;
use testkit::bench::estimate::{Estimate, pairs};
use testkit::bench::exchange::request;
use testkit::bench::report::Report;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight};

const DUPLICATES: usize = 1_000;
const KEYS: usize = 10_000;
/// A time longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An app whose handler waits until the gate opens.
struct Gated {
    app: Router,
    gate: Gate,
    /// The number of handlers that have begun, and of futures that have had to wait.
    begun: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
    layer: IdempotencyLayer<MemoryStore>,
}

impl Gated {
    fn new(on_in_flight: OnInFlight) -> Self {
        let gate = Gate::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let (let_through, count) = (gate.clone(), Arc::clone(&begun));
        let charge = async move || {
            count.fetch_add(1, Ordering::SeqCst);
            let_through.pass().await;
            "charged"
        };
        let layer = IdempotencyLayer::new(MemoryStore::new()).on_in_flight(on_in_flight);
        let app = Router::new().route("/charges", post(charge)).layer(layer.clone()).with_state(());
        Self { app, gate, begun, waiting: Arc::default(), layer }
    }

    /// Sends a request, and returns its status and how often its task was woken.
    fn send(&self, key: &str) -> impl Future<Output = (u16, usize)> + Send + use<> {
        let exchange = self.app.clone().oneshot(request(Some(key)));
        let waiting = Arc::clone(&self.waiting);
        async move {
            let mut exchange = pin!(exchange);
            let (wakes, mut response) = (Arc::new(Wakes::default()), None);
            poll_fn(|cx| {
                *wakes.task.lock().unwrap() = Some(cx.waker().clone());
                let waker = Waker::from(Arc::clone(&wakes));
                let polled = exchange.as_mut().poll(&mut Context::from_waker(&waker));
                waiting.fetch_add(usize::from(polled.is_pending()), Ordering::SeqCst);
                polled.map(|answer| response = Some(answer))
            })
            .await;
            (response.unwrap().unwrap().status().as_u16(), wakes.count.load(Ordering::SeqCst))
        }
    }

    /// Waits until `handlers` handlers have begun.
    async fn until(&self, handlers: usize) {
        while self.begun.load(Ordering::SeqCst) < handlers {
            tokio::task::yield_now().await;
        }
    }
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes {
    task: std::sync::Mutex<Option<Waker>>,
    count: AtomicUsize,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if let Some(task) = &*self.task.lock().unwrap() {
            task.wake_by_ref();
        }
    }
}

/// The figures of a thousand duplicates.
struct Crowd {
    millis: f64,
    runs: u64,
    /// The wake-ups of the task that was woken most often, and of all together.
    most_wakes: usize,
    wakes: usize,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let question = "What does it cost when everybody comes at once?";
    let mut report = Report::new("contention", "cargo bench --bench contention", question);
    for (name, policy) in [("reject", OnInFlight::Reject), ("wait", OnInFlight::Wait(TIMEOUT))] {
        let crowds: Vec<_> = (0..pairs()).map(|_| runtime.block_on(crowd(policy, name == "wait"))).collect();
        let group = format!("{DUPLICATES} duplicates of one key, {name}");
        let most = |what: fn(&Crowd) -> f64| Estimate::exact(crowds.iter().map(what).fold(0.0, f64::max));
        report.row(&group, "until all are answered", "ms", Estimate::of(crowds.iter().map(|c| c.millis).collect()));
        report.row(&group, "runs", "", most(|crowd| crowd.runs as f64));
        report.row(&group, "wake-ups, all", "", most(|crowd| crowd.wakes as f64));
        report.row(&group, "wake-ups, the most of one", "", most(|crowd| crowd.most_wakes as f64));
        report.at_most(&format!("{name}/runs"), most(|crowd| crowd.runs as f64), 1.0);
        report.at_most(&format!("{name}/wake-ups"), most(|crowd| crowd.most_wakes as f64), 1.0);
    }
    let group = format!("{KEYS} keys at once");
    let all: Vec<_> = (0..pairs()).map(|_| runtime.block_on(everybody())).collect();
    let column = |which: usize| Estimate::of(all.iter().map(|times| times[which]).collect());
    report.row(&group, "until all are under way", "ms", column(0));
    report.row(&group, "from then until all are answered", "ms", column(1));
    report.finish();
}

/// Sends a thousand duplicates: one runs, and the others wait or are refused.
async fn crowd(policy: OnInFlight, waits: bool) -> Crowd {
    let gated = Gated::new(policy);
    let first = tokio::spawn(gated.send("the-same"));
    gated.until(1).await;
    let sent = Instant::now();
    let mut duplicates: JoinSet<_> = (1..DUPLICATES).map(|_| gated.send("the-same")).collect();
    let mut millis = 0.0;
    let mut answers = Vec::new();
    if waits {
        // All duplicates have met the run once all of them wait; the first one waits too.
        while gated.waiting.load(Ordering::SeqCst) < DUPLICATES {
            tokio::task::yield_now().await;
        }
        gated.gate.open();
        let first = first.await.unwrap();
        answers.extend(duplicates.join_all().await);
        millis += millis_since(sent);
        answers.push(first);
        assert!(answers.iter().all(|(status, _)| *status == 200));
    } else {
        while let Some(answer) = duplicates.join_next().await {
            answers.push(answer.unwrap());
        }
        millis += millis_since(sent);
        assert!(answers.iter().all(|(status, _)| *status == 409));
        gated.gate.open();
        assert_eq!(first.await.unwrap().0, 200);
    }
    let wakes = answers.iter().map(|(_, wakes)| *wakes);
    Crowd { millis, runs: gated.layer.stats().runs, most_wakes: wakes.clone().max().unwrap(), wakes: wakes.sum() }
}

async fn everybody() -> [f64; 2] {
    let gated = Gated::new(OnInFlight::Reject);
    let began = Instant::now();
    let running: JoinSet<_> = (0..KEYS).map(|number| gated.send(&format!("key-{number}"))).collect();
    gated.until(KEYS).await;
    let under_way = millis_since(began);
    let began = Instant::now();
    gated.gate.open();
    let answers = running.join_all().await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    [under_way, millis_since(began)]
}

fn millis_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
