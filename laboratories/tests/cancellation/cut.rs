//! Runs that are interrupted by the end of their runtime, and the answers to their retries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::dice::below;
use testkit::history::{self, ClientAnswer, History};
use testkit::lab::operator::{Operated as _, answer};
use testkit::lab::post;
use tokio::task::{JoinHandle, yield_now};
use tower::{Service as _, ServiceExt as _};
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::test_util::{Stall, StoreCall};
use tower_idempotency::{Key, RecordId};

use crate::handler::{Act, Handler, Layer, Phase, Policy, told};
use crate::home::{Home, Kind};
use crate::point::Point;

/// More polls than any run takes.
const MOST_POLLS: usize = 50;
/// The pause between two tries of a key, and the time after which the key counts as stuck.
const PAUSE: Duration = Duration::from_millis(5);
const GIVE_UP: Duration = Duration::from_secs(10);
const LISTED: usize = 1_000;

/// The runs that are interrupted together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) round: usize,
    pub(crate) kind: Kind,
    pub(crate) policy: Policy,
    /// The acts of the handler, call by call.
    pub(crate) script: &'static [Act],
    /// The call that the store no longer answers.
    pub(crate) stall: Option<StoreCall>,
}

impl Group {
    /// Returns every kind of store under every policy, and the store that stalls, which has phases that the others do
    /// not have.
    pub(crate) fn all(round: usize) -> Vec<Self> {
        let mut groups = Vec::new();
        for policy in Policy::ALL {
            let group = |kind| Self { round, kind, policy, script: &[], stall: None };
            groups.extend(Kind::all().into_iter().map(group));
            groups.extend(
                [StoreCall::Claim, StoreCall::Complete].map(|call| Self { stall: Some(call), ..group(Kind::Test) }),
            );
            if policy != Policy::Reconcile {
                // A run that was interrupted commits again.
                let commits = |kind| Self { script: &[Act::Commit; 4], ..group(kind) };
                groups.extend(Kind::all().into_iter().filter(|kind| kind.is_embedded()).map(commits));
            }
        }
        groups
    }

    fn commits(&self) -> bool {
        !self.script.is_empty()
    }

    fn history(&self) -> History {
        History::new(match self.policy {
            _ if self.commits() => history::Policy::Atomic,
            Policy::Refuse => history::Policy::Refuse,
            Policy::Rerun => history::Policy::Rerun,
            Policy::Reconcile => history::Policy::Reconcile,
        })
    }
}

/// The figures of the interrupted runs.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) cut: BTreeMap<Phase, usize>,
    pub(crate) by_hand: usize,
    pub(crate) keys: usize,
    pub(crate) violations: Vec<String>,
}

/// One key, and the point at which its run was interrupted.
pub(crate) struct Cut {
    key: String,
    handler: Handler,
    point: Arc<Point>,
    phase: Phase,
}

/// The keys of one group.
pub(crate) struct Lab {
    pub(crate) group: Group,
    home: Home,
    history: History,
    cuts: Vec<Cut>,
    stall: Option<Stall>,
}

impl Lab {
    pub(crate) fn new(group: Group) -> Self {
        let home = Home::new(group.kind);
        let stall = group.stall.map(|call| home.test.as_ref().expect("this one stalls").stall(call));
        Self { group, home, history: group.history(), cuts: Vec::new(), stall }
    }

    fn cut(&self, way: &str, point: Arc<Point>) -> Cut {
        let Group { round, kind, policy, stall, .. } = self.group;
        let (commits, number) = (self.group.commits(), self.cuts.len());
        let key = format!("{round}-{way}-{}-{policy:?}-{commits}-{stall:?}-{number}", kind.name());
        let handler = Handler::new(&key, self.group.script, &self.history);
        point.begin();
        Cut { key, handler, point, phase: Phase::Asking }
    }

    fn layer(&self, cut: &Cut) -> Layer {
        cut.handler.set_policy(self.home.layer(), self.group.policy)
    }

    /// Sends the request in a task of its own. The cut's point counts the polls of the task.
    async fn send(&self, cut: &Cut, layer: Layer) -> JoinHandle<ClientAnswer> {
        let (history, ticket) = (self.history.clone(), self.history.sent(&cut.key, "owner"));
        let (point, mut app) = (Arc::clone(&cut.point), cut.handler.behind(layer, &self.home));
        let answer = app.ready().await.expect("it is ready").call(post(&cut.key, "amount=1000"));
        tokio::spawn(async move {
            let told = told(point.counted(answer).await).await;
            history.answered(ticket, told.clone());
            told
        })
    }

    /// Brings one run after the other to a point of its own, and holds it there.
    pub(crate) async fn hold_all(&mut self) {
        loop {
            let polls = self.cuts.len();
            assert!(polls < MOST_POLLS, "a run that never ends");
            let mut cut = self.cut("runtime", Point::holding(polls));
            let mut sent = self.send(&cut, self.layer(&cut).wrap_run(cut.point.counting())).await;
            tokio::select! {
                biased;
                () = cut.point.reached() => {}
                _ = &mut sent => {}
                () = turns(), if self.stall.is_some() => {}
            }
            cut.phase = cut.handler.phase(&cut.point, 0);
            let is_last = !cut.point.is_reached();
            self.cuts.push(cut);
            if is_last {
                return;
            }
        }
    }

    /// Sends all requests at once, and returns while their runs go on, after a random number of their polls.
    pub(crate) async fn run_all(&mut self) {
        // Each run takes at least three polls, unless it stalls at its first call.
        let most = if self.group.stall.is_some() { MOST_POLLS } else { 3 * MOST_POLLS };
        let bell = Point::passing(below(most));
        bell.begin();
        for _ in 0..MOST_POLLS {
            let cut = self.cut("running", Point::passing(usize::MAX));
            let layer = self.layer(&cut).wrap_run({
                let (own, all) = (cut.point.counting(), bell.counting());
                move |run| all(own(run))
            });
            drop(self.send(&cut, layer).await);
            self.cuts.push(cut);
        }
        bell.reached().await;
    }

    /// Notes the phase in which each run was interrupted.
    pub(crate) fn look(&mut self) {
        self.stall = None;
        self.cuts.iter_mut().for_each(|cut| cut.phase = cut.handler.phase(&cut.point, 0));
    }
}

// The part after the runtime's end.
impl Lab {
    /// Retries in this process and then after a restart, and settles what is still refused then, as an operator does.
    pub(crate) async fn settle(mut self, figures: &mut Figures) {
        for cut in &self.cuts {
            *figures.cut.entry(cut.phase).or_default() += 1;
            let told = self.retry(cut, self.may_be_unknown(cut)).await;
            figures.violations.extend(told.err());
        }
        if let Some(home) = self.home.reopened().await {
            self.home = home;
            self.history.crashed();
        }
        let committed = self.home.committed();
        for cut in &self.cuts {
            let is_recorded = committed.contains(&cut.key) || self.is_recorded(cut);
            let may_be_unknown = self.group.policy == Policy::Refuse && !is_recorded;
            match self.retry(cut, may_be_unknown).await {
                Ok(ClientAnswer::Refused(_)) => {
                    figures.by_hand += 1;
                    figures.violations.extend(self.settle_by_hand(cut, &committed).await.err());
                }
                Ok(_) => {}
                Err(stuck) => figures.violations.push(stuck),
            }
        }
        self.home.committed().iter().for_each(|key| self.history.effect(key));
        figures.keys += self.history.keys();
        figures.violations.extend(self.history.violations());
    }

    /// Returns whether this process may refuse the key from now on.
    fn may_be_unknown(&self, cut: &Cut) -> bool {
        match cut.phase {
            Phase::Asking | Phase::Over => false,
            Phase::Claiming | Phase::Running => self.group.policy == Policy::Refuse,
            // The outcome that the store shows may not be durable.
            Phase::Recording => true,
        }
    }

    /// Returns whether the run's outcome was sent to the store, or nothing at all.
    fn is_recorded(&self, cut: &Cut) -> bool {
        match cut.phase {
            Phase::Asking | Phase::Over => true,
            Phase::Claiming | Phase::Running => false,
            Phase::Recording => self.group.kind.is_embedded(),
        }
    }

    /// Retries until the answer is an outcome, or `outcome-unknown` if `may_be_unknown`.
    async fn retry(&self, cut: &Cut, may_be_unknown: bool) -> Result<ClientAnswer, String> {
        let began = Instant::now();
        loop {
            let ticket = self.history.sent(&cut.key, "owner");
            let app = cut.handler.behind(self.layer(cut), &self.home);
            let told = told(app.oneshot(post(&cut.key, "amount=1000")).await).await;
            self.history.answered(ticket, told.clone());
            let is_unknown = told == ClientAnswer::refused("outcome-unknown");
            if matches!(told, ClientAnswer::Outcome { .. }) || (is_unknown && may_be_unknown) {
                return Ok(told);
            }
            if began.elapsed() > GIVE_UP {
                return Err(format!("{}, interrupted while {:?}: stuck: {told:?}", cut.key, cut.phase));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Settles the key as an operator does, who looks the effect up. The next retry gets an outcome.
    async fn settle_by_hand(&self, cut: &Cut, committed: &[String]) -> Result<ClientAnswer, String> {
        let layer = self.layer(cut);
        let listed = layer.interrupted(LISTED).await.map_err(|error| error.to_string())?;
        let Some(listed) = listed.iter().find(|listed| listed.id == RecordId::new(None, &Key::new(&cut.key).unwrap()))
        else {
            return Err(format!("{}: refused, and it can't be freed", cut.key));
        };
        let took_place = cut.handler.effects() > 0 || committed.contains(&cut.key);
        let action = if took_place { answer("by hand") } else { Action::Release };
        match layer.resolve(listed.id, listed.fence, action).await {
            Ok(Applied::Done) => self.retry(cut, false).await,
            other => Err(format!("{}: an operator is told {other:?}", cut.key)),
        }
    }
}

/// Yields, so that all that can go on does so.
async fn turns() {
    for _ in 0..300 {
        yield_now().await;
    }
}
