//! Handlers and bodies that stall: for minutes, past `max_run`, for ever. What they do late changes nothing.
//!
//! Time is the test's own: it does not advance while a task can go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use testkit::history::{History, Told};
use tokio::time::{sleep, timeout};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::Fence;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, OnInterrupted};

use crate::late::Policy;
use crate::sent::{App, send};

const SECOND: Duration = Duration::from_secs(1);
const MAX_RUN: Duration = Duration::from_secs(60);
/// How long clients wait before they give up, and come again a second later.
const PATIENCES: [Duration; 3] = [SECOND, Duration::from_secs(4), Duration::from_secs(300)];

/// What the handler does the first time; afterwards it charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// Charges, after so long.
    Dawdles(Duration),
    /// Hangs after its charge.
    HangsCharged,
    /// Hangs, and what it has begun elsewhere charges long after `max_run`.
    ChargesLate,
    /// Answers with a body that never ends.
    EndlessAnswer,
}

pub(crate) const FIRSTS: [First; 5] = [
    First::Dawdles(Duration::from_secs(3)),
    First::Dawdles(Duration::from_secs(59)),
    First::HangsCharged,
    First::ChargesLate,
    First::EndlessAnswer,
];
pub(crate) const POLICIES: [Policy; 3] = [Policy::Refuse, Policy::Rerun, Policy::Reconcile];

/// The ledger of the effects. It refuses every change under an older fence than the latest.
#[derive(Debug, Default)]
struct Ledger {
    fence: u64,
    charged: bool,
}

#[derive(Clone)]
pub(crate) struct Key {
    first: First,
    policy: Policy,
    name: String,
    history: History,
    calls: Arc<AtomicUsize>,
    ledger: Arc<Mutex<Ledger>>,
    /// The end of the body that never ends.
    open: Arc<Mutex<Option<http_body_util::channel::Sender<Bytes>>>>,
}

impl Key {
    pub(crate) fn new(first: First, policy: Policy, history: &History) -> Self {
        let (name, history) = (format!("handler-{first:?}-{policy:?}").replace(['(', ')'], "-"), history.clone());
        Self { first, policy, name, history, calls: Arc::default(), ledger: Arc::default(), open: Arc::default() }
    }

    fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.ledger.lock().expect("nothing panics under this lock"))
    }

    /// One effect, unless a later run or question has been there.
    fn charge(&self, fence: Fence) {
        let is_new = self.ledger(|ledger| {
            let is_new = fence.0 >= ledger.fence;
            ledger.fence = ledger.fence.max(fence.0);
            ledger.charged |= is_new;
            is_new
        });
        if is_new {
            self.history.effect(&self.name);
        }
    }

    async fn handle(self, context: IdempotencyContext) -> Response<Body> {
        let (number, fence) = (self.calls.fetch_add(1, Ordering::SeqCst) + 1, context.fence());
        match self.first {
            First::Dawdles(time) => sleep(time).await,
            First::HangsCharged if number == 1 => {
                self.charge(fence);
                std::future::pending::<()>().await;
            }
            First::ChargesLate if number == 1 => {
                let elsewhere = self.clone();
                tokio::spawn(async move {
                    sleep(3 * MAX_RUN).await;
                    elsewhere.charge(fence);
                });
                std::future::pending::<()>().await;
            }
            First::EndlessAnswer => {
                self.charge(fence);
                let (mut sender, body) = Channel::<Bytes>::new(2);
                sender.send_data("begun, ".into()).await.expect("the body is there");
                *self.open.lock().expect("nothing panics under this lock") = Some(sender);
                return ([("x-no-outcome", "passed-on")], Body::new(body)).into_response();
            }
            First::HangsCharged | First::ChargesLate => {}
        }
        self.charge(fence);
        format!("charged by call {number}").into_response()
    }

    pub(crate) fn app(&self, store: &TestStore) -> App {
        let key = self.clone();
        let look = move |run: tower_idempotency::store::InterruptedRun| {
            let charged = key.ledger(|ledger| {
                ledger.fence = ledger.fence.max(run.fence.0);
                ledger.charged
            });
            let found = Reconciled::Outcome(Response::new("charged, as the ledger says".into()));
            async move { if charged { found } else { Reconciled::RunAgain } }
        };
        let layer = IdempotencyLayer::new(store.clone()).max_run(MAX_RUN);
        let layer = match self.policy {
            Policy::Refuse => layer.on_interrupted(OnInterrupted::Refuse),
            Policy::Rerun => layer.on_interrupted(OnInterrupted::Rerun),
            Policy::Reconcile => layer.reconcile_with(Reconciler::<Response<Body>>::new(look)),
        };
        let key = self.clone();
        let handler = service_fn(move |mut request: Request<Body>| {
            let context = request.extensions_mut().remove().expect("the layer has put it there");
            key.clone().handle(context).map(Ok)
        });
        BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(handler))
    }

    /// Sends a request, and gives up after a while.
    async fn send(&self, app: App, body: Body, patience: Duration) -> Told {
        send(&self.history, &self.name, app, body, patience).await
    }

    /// What is said in the end.
    fn is_settled(&self, told: &Told) -> bool {
        match (self.first, self.policy) {
            (First::EndlessAnswer, _) => *told == Told::refused("not-replayable"),
            (First::HangsCharged | First::ChargesLate, Policy::Refuse) => *told == Told::refused("outcome-unknown"),
            _ => matches!(told, Told::Outcome { .. }),
        }
    }

    fn runs(&self) -> usize {
        match (self.first, self.policy) {
            (First::HangsCharged, Policy::Rerun) | (First::ChargesLate, Policy::Rerun | Policy::Reconcile) => 2,
            _ => 1,
        }
    }

    /// Comes again until it is settled; says how often it was not.
    async fn insist(&self, store: &TestStore, patience: Duration) -> usize {
        let mut put_off = 0;
        while !self.is_settled(&self.send(self.app(store), Body::from("amount=1000"), patience).await) {
            put_off += 1;
            // Until the test gives up by itself.
            sleep(SECOND).await;
        }
        put_off
    }
}

/// Lets clients come and go while a handler stalls; says how often they were put off, and what went wrong.
pub(crate) async fn stand_still(key: &Key) -> (usize, Vec<String>) {
    let store = TestStore::new();
    let clients = join_all(PATIENCES.map(|patience| key.insist(&store, patience)));
    let Ok(put_off) = timeout(60 * MAX_RUN, clients).await else {
        return (0, vec![format!("{}: stuck", key.name)]);
    };
    // Whatever comes late has come.
    sleep(10 * MAX_RUN).await;
    *key.open.lock().expect("nothing panics under this lock") = None;
    let mut wrong = Vec::new();
    for restarted in [false, true] {
        let store = if restarted { store.reopen() } else { store.clone() };
        let told = key.send(key.app(&store), Body::from("amount=1000"), SECOND).await;
        if !key.is_settled(&told) {
            wrong.push(format!("{}: {told:?} in the end, restarted {restarted}", key.name));
        }
    }
    let calls = key.calls.load(Ordering::SeqCst);
    if calls != key.runs() {
        wrong.push(format!("{}: {calls} runs instead of {}", key.name, key.runs()));
    }
    (put_off.into_iter().sum(), wrong)
}

/// An upload that stalls holds no key: others with the same key run meanwhile. After a while it is refused.
pub(crate) async fn endless_upload(history: &History) -> Vec<String> {
    let (store, key) = (TestStore::new(), Key::new(First::Dawdles(SECOND), Policy::Refuse, history));
    let key = Key { name: "upload".to_owned(), ..key };
    let (mut sender, body) = Channel::<Bytes>::new(2);
    sender.send_data("amount".into()).await.expect("the body is there");
    let app = key.app(&store);
    let (slow, quick) = (key.clone(), key.clone());
    let (late, ()) =
        tokio::join!(slow.send(app.clone(), Body::new(body.map_err(axum::Error::new)), 99 * MAX_RUN), async {
            sleep(10 * MAX_RUN).await;
            quick.send(app, Body::from("amount=1000"), MAX_RUN).await;
            sleep(10 * MAX_RUN).await;
            drop(sender);
        });
    let calls = key.calls.load(Ordering::SeqCst);
    if late == Told::refused("body-incomplete") && calls == 1 {
        return Vec::new();
    }
    vec![format!("upload: {calls} runs, and at its end {late:?}")]
}
