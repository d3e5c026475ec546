//! A store that answers late, by its gates: its clients give up and come again while it is held up, and what it does
//! when it goes on changes nothing.
//!
//! Time is the test's own: it does not advance while a task can go on.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use futures_util::future::join_all;
use http::{Request, Response};
use testkit::history::{History, Told};
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, OnInterrupted, Release};

use crate::sent::{App, send};

const SECOND: Duration = Duration::from_secs(1);
/// How long clients wait before they give up, and come again a second later.
const PATIENCES: [Duration; 3] = [SECOND, Duration::from_secs(4), Duration::from_secs(30)];
/// How often they come, at most.
const TRIES: usize = 300;
/// Within the store's timeout, past it, and past the patience of every requester.
const DELAYS: [Duration; 3] = [SECOND, Duration::from_secs(6), Duration::from_secs(100)];

/// What a retry gets when a run was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Refuse,
    Rerun,
    Reconcile,
}

/// What the handler does the first time; afterwards it charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Charges,
    /// Says that nothing happened.
    Releases,
    /// Panics before its effect.
    Panics,
    /// Panics after it.
    ChargesAndPanics,
}

/// Which call is held up, and what the key goes through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    call: StoreCall,
    policy: Policy,
    first: First,
    /// Whether the first call was before.
    interrupted: bool,
    delay: Duration,
}

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for policy in [Policy::Refuse, Policy::Rerun, Policy::Reconcile] {
            for delay in DELAYS {
                let case = |call, first, interrupted| Self { call, policy, first, interrupted, delay };
                let simple = [StoreCall::Load, StoreCall::Claim, StoreCall::Complete]
                    .map(|call| case(call, First::Charges, false));
                cases.extend(simple);
                match policy {
                    // Its claims leave no trace, so that there is nothing to release, to interrupt or to take over.
                    Policy::Rerun => {}
                    Policy::Refuse => {
                        cases.push(case(StoreCall::Release, First::Releases, false));
                        cases.push(case(StoreCall::Interrupt, First::Panics, false));
                    }
                    Policy::Reconcile => {
                        cases.push(case(StoreCall::Interrupt, First::Panics, false));
                        cases.push(case(StoreCall::Reclaim, First::Panics, true));
                        cases.push(case(StoreCall::Inquire, First::Panics, true));
                        cases.push(case(StoreCall::Inquire, First::ChargesAndPanics, true));
                        cases.push(case(StoreCall::Resolve, First::ChargesAndPanics, true));
                    }
                }
            }
        }
        cases
    }

    /// Returns whether the end stays unknown for ever.
    fn ends_unknown(&self) -> bool {
        self.policy == Policy::Refuse && self.first == First::Panics
    }

    /// Returns how often the handler is called.
    fn runs(&self) -> usize {
        match self.first {
            First::Charges | First::ChargesAndPanics => 1,
            First::Panics if self.policy == Policy::Refuse => 1,
            First::Panics | First::Releases => 2,
        }
    }
}

/// One key.
#[derive(Debug, Clone)]
struct Key {
    case: Case,
    name: String,
    history: History,
    calls: Arc<AtomicUsize>,
}

impl Key {
    async fn act(self) -> Result<Response<Body>, Infallible> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let first = if number == 1 { self.case.first } else { First::Charges };
        if matches!(first, First::Charges | First::ChargesAndPanics) {
            self.history.effect(&self.name);
        }
        Ok(match first {
            First::Charges => format!("charged by call {number}").into_response(),
            First::Releases => (Release, "x-released").into_response(),
            // Without a message in the log.
            First::Panics | First::ChargesAndPanics => std::panic::resume_unwind(Box::new("on purpose")),
        })
    }

    fn app(&self, store: &TestStore, policy: Policy) -> App {
        let ledger = self.clone();
        let look = move |_| {
            let charged = ledger.case.first == First::ChargesAndPanics;
            let found = Reconciled::Outcome(Response::new("charged, as the ledger says".into()));
            async move { if charged { found } else { Reconciled::RunAgain } }
        };
        let layer = IdempotencyLayer::new(store.clone());
        let layer = match policy {
            Policy::Refuse => layer.on_interrupted(OnInterrupted::Refuse),
            Policy::Rerun => layer.on_interrupted(OnInterrupted::Rerun),
            Policy::Reconcile => layer.reconcile_with(Reconciler::<Response<Body>>::new(look)),
        };
        let key = self.clone();
        let handler = service_fn(move |_: Request<Body>| key.clone().act());
        BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(handler))
    }

    /// Sends the request, and gives up after a while.
    async fn send(&self, app: &App, patience: Duration) -> Told {
        send(&self.history, &self.name, app.clone(), "amount=1000", patience).await
    }

    fn is_settled(&self, told: &Told) -> bool {
        let unknown = self.case.ends_unknown() && *told == Told::refused("outcome-unknown");
        unknown || matches!(told, Told::Outcome { .. })
    }

    /// Comes again until it is settled; says how often the answer was none, and what the last one was.
    async fn insist(&self, app: &App, patience: Duration) -> (usize, Told) {
        let mut put_off = 0;
        for _ in 0..TRIES {
            let told = self.send(app, patience).await;
            if self.is_settled(&told) {
                return (put_off, told);
            }
            put_off += 1;
            sleep(SECOND).await;
        }
        (put_off, Told::Nothing)
    }
}

/// Holds the call up while clients come and go; says how often they were put off, and what went wrong.
pub(crate) async fn hold_up(case: Case, number: usize, history: &History) -> (usize, Vec<String>) {
    let Case { call, policy, first, .. } = case;
    let name = format!("{number}-{call:?}-{policy:?}-{first:?}-{}s", case.delay.as_secs());
    let key = Key { case, name, history: history.clone(), calls: Arc::default() };
    let store = TestStore::new();
    if case.interrupted {
        key.send(&key.app(&store, Policy::Refuse), SECOND).await;
    }
    let app = key.app(&store, policy);
    let stall = store.stall(call);
    let release = async {
        sleep(case.delay).await;
        stall.release();
    };
    let (clients, ()) = tokio::join!(join_all(PATIENCES.map(|patience| key.insist(&app, patience))), release);
    // Whatever came late is over by now.
    sleep(2 * DELAYS[2]).await;
    let mut last: Vec<_> = clients.iter().map(|(_, told)| told.clone()).collect();
    last.push(key.send(&app, SECOND).await);
    last.push(key.send(&key.app(&store.reopen(), policy), SECOND).await);
    let mut wrong: Vec<_> =
        last.iter().filter(|told| !key.is_settled(told)).map(|told| format!("{}: stuck: {told:?}", key.name)).collect();
    let calls = key.calls.load(Ordering::SeqCst);
    if calls != case.runs() {
        wrong.push(format!("{}: {calls} runs instead of {}", key.name, case.runs()));
    }
    (clients.iter().map(|(put_off, _)| put_off).sum(), wrong)
}
