//! One request whose future is dropped, and the answers to its retries.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use testkit::history::{ClientAnswer, History};
use testkit::lab::post;
use tokio::task::{JoinHandle, yield_now};
use tower::{Service as _, ServiceExt as _};
use tower_idempotency::test_util::Stall;

use crate::case::{Before, Case, End, Meanwhile, Shape};
use crate::handler::{Handler, Layer, Phase, Policy, chunks, told};
use crate::home::Home;
use crate::point::Point;

/// The number of tries after which a key counts as stuck.
const TRIES: usize = 10;
/// A time longer than the timeout of the store.
const STALL: Duration = Duration::from_secs(6);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) case: &'static Case,
    policy: Policy,
    key: String,
    handler: Handler,
    history: History,
    home: Home,
}

/// The end of the request.
#[derive(Debug)]
pub(crate) enum Fate {
    Dropped(Phase),
    Answered(ClientAnswer),
}

/// The task that causes the event of the case. It returns what went wrong.
pub(crate) type Helper = JoinHandle<Option<String>>;

impl Attempt {
    pub(crate) fn new(case: &'static Case, policy: Policy, key: String, history: &History, home: &Home) -> Self {
        let handler = Handler::new(&key, case.script, history);
        Self { case, policy, key, handler, history: history.clone(), home: home.clone() }
    }

    /// Sends the request, and drops its future at the point.
    pub(crate) async fn drop_at(&self, point: &Arc<Point>) -> (Fate, Helper) {
        let layer = self.layer().wrap_run(point.counting());
        self.prepare(&layer).await;
        point.begin();
        // The run of a duplicate is the one that it waits for.
        let before = if self.case.before == Before::Running { 0 } else { self.handler.begun() };
        let helper = tokio::spawn(self.clone().help(self.layer(), self.trouble()));

        let mut app = self.handler.behind(layer, &self.home);
        let app = app.ready().await.expect("it is ready");
        let ticket = self.history.sent(&self.key, name(self.case.shape));
        let mut answer = Box::pin(app.call(self.request(self.case.shape)));
        let answered = tokio::select! {
            biased;
            () = point.reached() => None,
            answered = Arc::clone(point).counted(&mut answer) => Some(answered),
        };
        let dropped = Fate::Dropped(self.handler.phase(point, before));
        drop(answer);
        point.pass();
        match answered {
            Some(answered) if !point.is_reached() => {
                let told = told(answered).await;
                self.history.answered(ticket, told.clone());
                (Fate::Answered(told), helper)
            }
            // An answer that came at this very poll is dropped unread.
            _ => (dropped, helper),
        }
    }

    /// Retries until the key is settled, and checks that it is settled correctly.
    pub(crate) async fn settle(&self, helper: Helper) -> Vec<String> {
        let mut wrong = self.retry(false).await;
        if !wrong.is_empty() {
            // The event that the helper waits for may never come.
            helper.abort();
        }
        match helper.await {
            Ok(seen) => wrong.extend(seen),
            Err(error) => assert!(error.is_cancelled(), "the helper panicked"),
        }
        if !self.home.is_quiet().await {
            wrong.push(format!("{}: a slot is never freed", self.key));
        }
        wrong.extend(self.retry(false).await);
        wrong
    }

    /// Retries once more, after a restart.
    pub(crate) async fn settle_again(&self, home: &Home) -> Vec<String> {
        Self { home: home.clone(), ..self.clone() }.retry(true).await
    }

    async fn retry(&self, restarted: bool) -> Vec<String> {
        let (mut wrong, mut runs) = (Vec::new(), 0);
        for (shape, end) in self.case.ends(self.policy, restarted) {
            if let Err(told) = self.retry_until(shape, end).await {
                wrong.push(format!("{}: stuck, restarted {restarted}: {told:?} instead of {}", self.key, end.told));
            }
            runs = end.runs;
        }
        let (begun, ended) = (self.handler.begun(), self.handler.ended());
        if (begun, ended) != (runs, runs) {
            wrong.push(format!("{}: {begun} runs, {ended} to their end, instead of {runs}", self.key));
        }
        wrong
    }

    async fn retry_until(&self, shape: Shape, end: End) -> Result<(), ClientAnswer> {
        let mut last = ClientAnswer::Nothing;
        for _ in 0..TRIES {
            last = self.send(shape, self.layer()).await;
            if end.is(&last) {
                return Ok(());
            }
            self.home.is_quiet().await;
        }
        Err(last)
    }

    async fn send(&self, shape: Shape, layer: Layer) -> ClientAnswer {
        let ticket = self.history.sent(&self.key, name(shape));
        let told = told(self.handler.behind(layer, &self.home).oneshot(self.request(shape)).await).await;
        self.history.answered(ticket, told.clone());
        told
    }

    fn layer(&self) -> Layer {
        (self.case.options)(self.handler.set_policy(self.home.layer(), self.policy))
    }

    fn request(&self, shape: Shape) -> Request<Body> {
        match shape {
            Shape::Whole => post(&self.key, "amount=1000"),
            Shape::Chunks => post(&self.key, chunks(&["amount", "=", "1000"])),
            Shape::Other => post(&self.key, "amount=2000"),
            Shape::Malformed => post(&format!("\"{}", self.key), "amount=1000"),
        }
    }

    /// Brings about the state that the case has before the request.
    async fn prepare(&self, counted: &Layer) {
        let layer = self.layer();
        match self.case.before {
            Before::Nothing => {}
            Before::Answered | Before::AnsweredAndDrained => {
                self.send(Shape::Whole, layer.clone()).await;
            }
            Before::Running => {
                let (owner, counted) = (self.clone(), counted.clone());
                tokio::spawn(async move { owner.send(Shape::Whole, counted).await });
                self.handler.gate.arrival().await;
            }
            Before::Interrupted => {
                self.send(Shape::Whole, self.home.layer()).await;
            }
            Before::Drained => {}
        }
        if matches!(self.case.before, Before::Drained | Before::AnsweredAndDrained) {
            assert!(layer.drain(HOUR).await.is_complete());
        }
    }

    /// Makes the store behave as the case says. The store goes on once the value is dropped.
    fn trouble(&self) -> Option<Stall> {
        let store = self.home.test.as_ref();
        let store = || store.expect("only this store fails on command");
        match self.case.meanwhile {
            Meanwhile::Slow(call) | Meanwhile::Stalled(call) => Some(store().stall(call)),
            Meanwhile::Held(call) => Some(store().hold_answers(call)),
            Meanwhile::Lost(call) => {
                store().lose_answer(call);
                None
            }
            Meanwhile::Fails(call) => {
                store().fail_next(call);
                None
            }
            Meanwhile::Nothing | Meanwhile::Gate | Meanwhile::Duplicate | Meanwhile::Drain => None,
        }
    }

    async fn help(self, layer: Layer, stall: Option<Stall>) -> Option<String> {
        match self.case.meanwhile {
            Meanwhile::Nothing | Meanwhile::Lost(_) | Meanwhile::Fails(_) => None,
            Meanwhile::Slow(_) => {
                turns().await;
                drop(stall);
                None
            }
            Meanwhile::Stalled(_) | Meanwhile::Held(_) => {
                tokio::time::sleep(STALL).await;
                drop(stall);
                None
            }
            Meanwhile::Gate | Meanwhile::Duplicate | Meanwhile::Drain => self.open_gate(layer).await,
        }
    }

    async fn open_gate(self, layer: Layer) -> Option<String> {
        // A run that was under way before has arrived at the gate already.
        if self.case.before != Before::Running {
            self.handler.gate.arrival().await;
        }
        let (waits, drains) = (self.case.meanwhile == Meanwhile::Duplicate, self.case.meanwhile == Meanwhile::Drain);
        let open = async {
            turns().await;
            self.handler.gate.open();
        };
        let told = async { if waits { Some(self.send(Shape::Whole, layer.clone()).await) } else { None } };
        let left = async { if drains { layer.drain(HOUR).await.runs } else { 0 } };
        match tokio::join!(told, left, open) {
            (Some(ClientAnswer::Refused(slug)), _, ()) => Some(format!("{}: a waiter was told {slug}", self.key)),
            (_, 1.., ()) => Some(format!("{}: runs are left after a drain", self.key)),
            _ => None,
        }
    }
}

impl End {
    fn is(&self, told: &ClientAnswer) -> bool {
        is(self.told, told)
    }
}

/// Returns whether `told` is the answer of this name.
pub(crate) fn is(name: &str, told: &ClientAnswer) -> bool {
    match told {
        ClientAnswer::Outcome { .. } => name == "outcome",
        ClientAnswer::Refused(slug) => name == slug,
        ClientAnswer::Nothing => name == "nothing",
    }
}

/// Returns the history's name of a request of this shape. The key belongs to `owner`, and never to `other`.
fn name(shape: Shape) -> &'static str {
    if shape == Shape::Other { "other" } else { "owner" }
}

/// Yields, so that all that can go on does so for a while.
async fn turns() {
    for _ in 0..20 {
        yield_now().await;
    }
}
