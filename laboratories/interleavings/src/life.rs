//! One execution: from an empty store, through the events of the plan, to a store at rest.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use shuttle::future::JoinHandle;
use testkit::history::{ClientAnswer, Policy};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::OnceContext;
use tower_idempotency::operations::{Action, Answer, Applied, Change, Filter, OperationRecord, StateKind};
use tower_idempotency::test_util::{ManualClock, Stall, TestStore};
use tower_idempotency::{AnyStore, Fingerprint, MemoryStore, OnInterrupted, Once};

use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::plan::{Act, Client, KEYS, Kind, LONG, Plan, REQUESTS};
use crate::runs;
use crate::work::{commit, handle, id, key_of, reconciler, recorded, told, wait};

/// A time that is longer than any of the crate's own time-outs, jitter included.
const A_WHILE: Duration = Duration::from_secs(90);
/// The number of whiles after which a request or a run counts as stuck.
const WHILES: usize = 400;

pub struct Life {
    plan: Plan,
    machine: Machine,
    once: Once<AnyStore, String>,
    /// Another layer over the same store.
    twin: Once<AnyStore, String>,
    /// The store, if it is one that fails on command.
    test: Option<TestStore>,
    stalls: Mutex<Vec<Stall>>,
    ledger: Ledger,
}

/// Runs the plan, and returns the ledger. Must be called inside an execution.
pub fn live(plan: Plan) -> Ledger {
    let life = Arc::new(Life::new(plan));
    let _machine = life.machine.enter();
    shuttle::future::block_on(life.live());
    life.ledger.clone()
}

impl Life {
    fn new(plan: Plan) -> Self {
        let ledger = Ledger::new(&plan);
        let clock = ManualClock::new(Timestamp::from_millis(1));
        let (store, test) = match plan.store {
            Kind::Memory => (AnyStore::new(MemoryStore::builder().clock(clock).build()), None),
            Kind::Test => {
                let test = TestStore::with_clock(clock);
                (AnyStore::new(test.clone()), Some(test))
            }
        };
        let once = Once::new(store).on_in_flight(plan.on_in_flight);
        let once = match plan.policy {
            Policy::Refuse => once.on_interrupted(OnInterrupted::Refuse),
            Policy::Rerun | Policy::Atomic => once.on_interrupted(OnInterrupted::Rerun),
            Policy::Reconcile => once.reconcile_with(reconciler(&ledger).timeout(plan.timeout())),
        };
        let once = once.retention(LONG).max_run(plan.max_run());
        let twin = once.clone().retention(LONG);
        Self { plan, machine: Machine::new(), once, twin, test, stalls: Mutex::default(), ledger }
    }

    async fn live(self: &Arc<Self>) {
        runs::count(self.plan.cuts.clone());
        if self.plan.before.is_some() {
            self.ask(&self.once, KEYS[0], REQUESTS[0]).await;
        }
        self.stall();
        for fault in self.plan.faults.clone() {
            self.clone().act(0, fault).await;
        }
        let acts = self.plan.acts.iter().map(|(after, act)| self.spawn(self.clone().act(*after, *act)));
        let clients = self.plan.clients.iter().enumerate().map(|(number, client)| self.client(number, *client));
        let all = acts.collect::<Vec<_>>().into_iter().chain(clients.flatten()).collect();
        if self.join(all).await > 0 {
            self.ledger.see("gone");
        }
        self.go_on();
        self.runs_end().await;
        for key in KEYS {
            self.settle(key).await;
        }
        self.runs_end().await;
        self.rest().await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        shuttle::future::spawn(task)
    }

    /// Waits until all have ended, and notes how many of them were dropped. Time passes only where it must.
    async fn join(&self, handles: Vec<JoinHandle<()>>) -> usize {
        if self.plan.takes_time() {
            for _ in 0..WHILES {
                if handles.iter().all(JoinHandle::is_finished) {
                    break;
                }
                shuttle::thread::yield_now();
                self.machine.pass(A_WHILE);
            }
            assert!(handles.iter().all(JoinHandle::is_finished), "violation: a task never ends: {:?}", self.once);
        }
        let mut dropped = 0;
        for handle in handles {
            dropped += usize::from(handle.await.is_err());
        }
        dropped
    }

    /// Waits until no run is left.
    async fn runs_end(&self) {
        loop {
            let runs = runs::take();
            if runs.is_empty() {
                return;
            }
            if self.join(runs).await > 0 {
                self.ledger.see("cut");
            }
        }
    }

    /// The task of a client, and the task that takes the client away.
    fn client(self: &Arc<Self>, number: usize, client: Client) -> Vec<JoinHandle<()>> {
        let life = self.clone();
        let handle = self.spawn(async move {
            wait(client.after).await;
            let once = if number.is_multiple_of(2) { &life.once } else { &life.twin };
            for _ in 0..client.times {
                life.ask(once, client.key, client.request).await;
                shuttle::future::yield_now().await;
            }
        });
        let Some(gone) = client.gone else { return vec![handle] };
        let abort = handle.abort_handle();
        let taking_away = self.spawn(async move {
            wait(gone).await;
            abort.abort();
        });
        vec![handle, taking_away]
    }

    /// Sends a request and notes its answer.
    async fn ask(&self, once: &Once<AnyStore, String>, key: &'static str, request: &'static str) -> ClientAnswer {
        let ticket = self.ledger.sent(key, request);
        let (ledger, breaths) = (self.ledger.clone(), self.plan.breaths);
        let store = self.plan.commits.then(|| once.store().clone());
        let effect = move |context: OnceContext<String>| async move {
            match store {
                None => handle(ledger, key, request, breaths).await,
                Some(store) => commit(ledger, key, request, breaths, context, store).await,
            }
        };
        let result = once.run(id(key), Fingerprint::of(request.as_bytes()), effect).await;
        let replayed = result.as_ref().is_ok_and(|outcome| outcome.replayed);
        let told = told(result);
        self.ledger.answered(ticket, told.clone(), replayed);
        told
    }

    async fn act(self: Arc<Self>, after: usize, act: Act) {
        wait(after).await;
        match act {
            Act::Pass(time) => self.machine.pass(time),
            Act::GoOn => self.go_on(),
            Act::Fail(call) => self.test().fail_next(call),
            Act::LoseAnswer(call) => self.test().lose_answer(call),
            Act::Drain => self.drain().await,
            Act::Resolve { stays } => {
                for listed in self.listed().await {
                    self.resolve(listed, stays).await;
                }
            }
            Act::ReconcileAll => {
                if self.once.operations().by("the process").reconcile_all().await.is_ok_and(|sum| sum.settled > 0) {
                    self.ledger.see("reconciled");
                }
            }
        }
    }

    fn test(&self) -> &TestStore {
        self.test.as_ref().expect("such plans are for the store that fails on command")
    }

    fn stall(&self) {
        let stalls = self.plan.stalls.iter().map(|call| self.test().stall(*call)).collect();
        *self.stalls.lock().expect("no holder panics") = stalls;
    }

    fn go_on(&self) {
        let stalls = std::mem::take(&mut *self.stalls.lock().expect("no holder panics"));
        drop(stalls);
        self.machine.go_on();
    }

    async fn drain(&self) {
        if self.once.stats().live > 0 {
            self.ledger.see("drain waits");
        }
        if self.once.drain(LONG).await.runs == 0 {
            self.ledger.drained();
        }
    }

    /// The interrupted operations that the store lists; none if the store fails.
    async fn listed(&self) -> Vec<OperationRecord> {
        let interrupted = Filter::all().in_state(StateKind::Interrupted);
        let listed = self.once.operations().list(&interrupted, None, KEYS.len()).await;
        listed.map(|listing| listing.operations).unwrap_or_default()
    }

    /// An operator looks up whether the run took effect, and settles it. Returns whether that counted.
    async fn resolve(&self, listed: OperationRecord, stays: bool) -> bool {
        let key = key_of(listed.id);
        let found = self.ledger.look_up(key);
        let action = match &found {
            Some((_, outcome)) => Action::Answer(Answer::Bytes(recorded(outcome.clone()))),
            None => Action::Release,
        };
        // The operator takes a while.
        wait(2).await;
        let ticket = found.map(|(request, outcome)| (self.ledger.sent(key, request), outcome));
        let operator = self.once.operations().by("the operator");
        let resolving = operator.apply(Change::new(listed.id, listed.fence, action));
        // If the operator goes away, the task of the call goes on.
        let settled = if stays { Some(resolving.await) } else { resolving.now_or_never() };
        let is_done = matches!(settled, Some(Ok(Applied::Done)));
        self.ledger.see(if is_done { "resolved" } else { "not resolved" });
        if let Some((ticket, outcome)) = ticket
            && is_done
        {
            // From here on every answer has this outcome.
            self.ledger.answered(ticket, ClientAnswer::outcome(outcome), true);
        }
        is_done
    }

    /// Sends the requests of a key once more, to check that it is not stuck.
    async fn settle(self: &Arc<Self>, key: &'static str) {
        for request in REQUESTS {
            if !self.plan.clients.iter().any(|client| (client.key, client.request) == (key, request)) {
                continue;
            }
            let told = self.settle_one(key, request).await;
            let is_settled = match &told {
                ClientAnswer::Outcome { .. } => true,
                ClientAnswer::Refused(slug) => match slug.as_str() {
                    "key-reused" => true,
                    "shutting-down" => self.plan.drains(),
                    "outcome-unknown" | "store-unavailable" => self.plan.may_keep_slots(),
                    _ => false,
                },
                ClientAnswer::Nothing => false,
            };
            if !is_settled {
                self.ledger.wrong(format!("{key}: {request} is stuck: {told:?}"));
            }
        }
    }

    /// Asks until there is an outcome. If it stays unknown, an operator settles it.
    async fn settle_one(self: &Arc<Self>, key: &'static str, request: &'static str) -> ClientAnswer {
        for _ in 0..self.plan.tries() {
            let told = self.finally(key, request).await;
            if told != ClientAnswer::refused("outcome-unknown") || !self.plan.may_stay_unknown() {
                return told;
            }
            let listed = self.listed().await.into_iter().find(|listed| listed.id == id(key));
            let Some(listed) = listed else { return told };
            let life = self.clone();
            let resolving = self.spawn(async move {
                life.resolve(listed, true).await;
            });
            self.join(vec![resolving]).await;
            self.runs_end().await;
        }
        ClientAnswer::refused("outcome-unknown")
    }

    async fn finally(self: &Arc<Self>, key: &'static str, request: &'static str) -> ClientAnswer {
        let answer = Arc::new(Mutex::new(ClientAnswer::Nothing));
        for _ in 0..self.plan.tries() {
            let (life, said) = (self.clone(), answer.clone());
            let asking = self.spawn(async move {
                let told = life.ask(&life.once, key, request).await;
                *said.lock().expect("no holder panics") = told;
            });
            self.join(vec![asking]).await;
            // A run that ends may still be in its slot, and a request meets it there.
            self.runs_end().await;
            if let ClientAnswer::Outcome { .. } = *answer.lock().expect("no holder panics") {
                break;
            }
        }
        answer.lock().expect("no holder panics").clone()
    }

    /// Checks that nothing is left: no run, no slot, no waiter.
    async fn rest(&self) {
        let left = self.once.drain(LONG).await.runs;
        let counts = self.once.stats();
        let begun = self.ledger.begun();
        if left > 0 || counts.live > 0 || counts.runs != begun as u64 {
            self.ledger.wrong(format!("{left} runs left, {begun} begun: {counts:?}"));
        }
        if counts.unsaved > 0 {
            self.ledger.see("unsaved");
        }
        let store = format!("{:?}", self.once.store());
        let mut empty = vec!["places: 0,", "waiters: 0,"];
        if !self.plan.may_keep_slots() {
            empty.push("unsaved: 0,");
        }
        for missing in empty.into_iter().filter(|empty| !store.contains(*empty)) {
            self.ledger.wrong(format!("at the end it is not so that {missing} in {store}"));
        }
    }
}
