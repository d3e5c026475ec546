//! The events of one execution. The schedule decides when each of them happens.

use std::time::Duration;

use shuttle::rand::Rng as _;
use testkit::history::Policy;
use tower_idempotency::OnInFlight;
use tower_idempotency::test_util::StoreCall;

pub const KEYS: [&str; 2] = ["k", "l"];
pub const REQUESTS: [&str; 2] = ["a", "b"];
/// The time that a handler may run, and the application may take for an answer, in plans in which one takes longer.
pub const MAX_RUN: Duration = Duration::from_secs(600);
/// A time that is longer than any execution.
pub const LONG: Duration = Duration::from_secs(30 * 86_400);

/// A plan: its requests, the ends of its runs, its faults, and its clients that go away.
#[derive(Clone, Debug)]
pub struct Plan {
    pub store: Kind,
    pub policy: Policy,
    pub on_in_flight: OnInFlight,
    /// The ending of a run of the first key that comes before all other events.
    pub before: Option<Ending>,
    pub clients: Vec<Client>,
    /// The endings of runs, in the order in which the runs begin. All later ones have an outcome.
    pub endings: Vec<Ending>,
    /// `true` if runs commit their effects together with their records.
    pub commits: bool,
    /// The fates of their transactions, in the order in which they are sent. All later ones are committed.
    pub fates: Vec<Fate>,
    /// The number of places at which a handler waits.
    pub breaths: usize,
    /// The runs that are dropped, by their number, and the number of breaths after they began.
    pub cuts: Vec<(usize, usize)>,
    /// Calls that are held up until an [`Act::GoOn`].
    pub stalls: Vec<StoreCall>,
    /// The faults from the beginning on.
    pub faults: Vec<Act>,
    /// The other events, each with the number of breaths after which it happens.
    pub acts: Vec<(usize, Act)>,
    /// The answers of the application about runs. All later ones are the truth.
    pub knows: Vec<Knows>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `MemoryStore`: a claim leaves a record.
    Memory,
    /// `TestStore`: a claim that need not be durable leaves no trace, and the store fails on command.
    Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Outcome,
    /// The run reports that it had no effect.
    NotStarted,
    /// The run does not report whether it had an effect.
    Unknown {
        effect: bool,
    },
    /// A panic after its effect.
    Panic,
    /// A run that goes on for longer than `max_run` after its effect.
    Hang,
}

impl Ending {
    pub fn has_effect(self) -> bool {
        !matches!(self, Self::NotStarted | Self::Unknown { effect: false })
    }
}

/// The fate of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Committed,
    Aborted,
    /// The writer never answers.
    Lost {
        done: bool,
    },
}

impl Fate {
    pub fn is_done(self) -> bool {
        matches!(self, Self::Committed | Self::Lost { done: true })
    }
}

/// A client that sends its request, and repeats it after every answer.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub key: &'static str,
    pub request: &'static str,
    pub times: usize,
    /// The number of breaths before the first request.
    pub after: usize,
    /// The number of breaths after which the client goes away.
    pub gone: Option<usize>,
}

impl Client {
    pub const fn new(key: &'static str, request: &'static str) -> Self {
        Self { key, request, times: 1, after: 0, gone: None }
    }
}

/// Another event.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Time passes.
    Pass(Duration),
    /// The calls that were held up go on.
    GoOn,
    /// The next call of this kind fails.
    Fail(StoreCall),
    /// The next call of this kind is done, but its answer is lost.
    LoseAnswer(StoreCall),
    /// The process is shutting down.
    Drain,
    /// An operator settles an interrupted run, or goes away before the answer.
    Resolve { stays: bool },
    /// The application is asked about all interrupted runs.
    ReconcileAll,
}

/// The application's answer when it is asked.
#[derive(Clone, Copy, Debug)]
pub enum Knows {
    NotYet,
    Panics,
    Hangs,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            store: Kind::Memory,
            policy: Policy::Refuse,
            on_in_flight: OnInFlight::Wait(Duration::from_secs(2)),
            before: None,
            clients: Vec::new(),
            endings: Vec::new(),
            commits: false,
            fates: Vec::new(),
            breaths: 0,
            cuts: Vec::new(),
            stalls: Vec::new(),
            faults: Vec::new(),
            acts: Vec::new(),
            knows: Vec::new(),
        }
    }
}

impl Plan {
    fn endings(&self) -> impl Iterator<Item = Ending> {
        self.endings.iter().copied().chain(self.before)
    }

    fn acts(&self, is: impl Fn(Act) -> bool) -> bool {
        self.acts.iter().any(|(_, act)| is(*act))
    }

    fn store_fails(&self) -> bool {
        let fails = self.acts(|act| matches!(act, Act::Fail(_) | Act::LoseAnswer(_)));
        fails || !self.faults.is_empty() || !self.stalls.is_empty()
    }

    /// Returns whether a run or a call goes on only after a while.
    pub fn takes_time(&self) -> bool {
        let hangs = self.endings().any(|ending| ending == Ending::Hang);
        hangs || self.store_fails() || self.knows.iter().any(|knows| matches!(knows, Knows::Hangs))
    }

    /// The time that a handler may run. If no handler is to take too long, none does, however late its turn comes.
    pub fn max_run(&self) -> Duration {
        let hangs = self.endings().any(|ending| ending == Ending::Hang);
        let too_long = hangs || self.acts(|act| matches!(act, Act::Pass(time) if time >= MAX_RUN));
        if too_long { MAX_RUN } else { LONG }
    }

    /// The time that the application may take for an answer, by the same rule.
    pub fn timeout(&self) -> Duration {
        if self.knows.iter().any(|knows| matches!(knows, Knows::Hangs)) { MAX_RUN } else { LONG }
    }

    fn settles(&self) -> bool {
        self.acts(|act| matches!(act, Act::Resolve { .. } | Act::ReconcileAll))
    }

    /// Returns whether a run ends without an effect because its transaction does.
    fn aborts(&self) -> bool {
        self.fates.contains(&Fate::Aborted)
    }

    fn reruns(&self) -> bool {
        matches!(self.policy, Policy::Rerun | Policy::Atomic)
    }

    fn cuts_short(&self) -> bool {
        let fails = self.endings().any(|ending| !matches!(ending, Ending::Outcome | Ending::NotStarted));
        fails || self.max_run() < LONG
    }

    /// Returns whether a waiter may get `in-flight`, whatever its request: the run ends without an effect, or not in
    /// time.
    pub fn may_wait_in_vain(&self) -> bool {
        let not_started = self.aborts() || self.endings().any(|ending| ending == Ending::NotStarted);
        let released = not_started || (self.cuts_short() && self.reruns()) || self.settles();
        released || self.takes_time() || self.acts(|act| matches!(act, Act::Pass(_)))
    }

    /// Returns whether a client may be refused with this slug.
    pub fn may_refuse(&self, slug: &str) -> bool {
        match slug {
            "in-flight" => self.on_in_flight == OnInFlight::Reject || self.may_wait_in_vain(),
            "outcome-unknown" => {
                let cuts = self.cuts_short() || !self.cuts.is_empty();
                cuts || !self.knows.is_empty() || self.loses() || self.loses_claims()
            }
            "store-unavailable" => self.store_fails() || !self.cuts.is_empty() || self.settles(),
            "shutting-down" => self.drains(),
            "key-reused" => self.clients.iter().any(|client| client.request != REQUESTS[0]),
            "effect-failed" => {
                self.aborts()
                    || self.endings().any(|ending| matches!(ending, Ending::NotStarted | Ending::Unknown { .. }))
            }
            _ => false,
        }
    }

    /// Returns whether a key may be refused as unknown until an operator settles it.
    pub fn may_stay_unknown(&self) -> bool {
        (self.policy == Policy::Refuse && self.may_refuse("outcome-unknown")) || self.may_keep_slots()
    }

    /// Returns whether a slot may be held for ever: its run was dropped while its end was being recorded, or its end is
    /// unknown.
    pub fn may_keep_slots(&self) -> bool {
        (!self.cuts.is_empty() && self.store_fails()) || self.loses()
    }

    /// Returns whether a transaction is never answered: its key is refused until the process ends.
    fn loses(&self) -> bool {
        self.fates.iter().any(|fate| matches!(fate, Fate::Lost { .. }))
    }

    /// Returns whether the store may hold a claim under which nothing ran.
    fn loses_claims(&self) -> bool {
        let faults = self.faults.iter().chain(self.acts.iter().map(|(_, act)| act));
        faults.copied().any(|act| matches!(act, Act::LoseAnswer(StoreCall::Claim | StoreCall::Reclaim)))
    }

    pub fn drains(&self) -> bool {
        self.acts(|act| matches!(act, Act::Drain))
    }

    /// The number of tries after which a key must be settled.
    pub fn tries(&self) -> usize {
        4 + self.endings.len() + self.knows.len() + self.acts.len() + self.faults.len()
    }
}

/// Numbers that belong to the schedule: the same schedule draws the same ones.
#[derive(Debug)]
pub struct Draw;

impl Draw {
    pub fn below(&self, bound: usize) -> usize {
        shuttle::rand::thread_rng().gen_range(0..bound)
    }

    pub fn one_in(&self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Draws some values, at most `most`, each by `draw`.
    pub fn some<T>(&self, most: usize, mut draw: impl FnMut() -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| draw()).collect()
    }

    /// Two to four clients of one key, a few of another.
    pub fn clients(&self) -> Vec<Client> {
        let key = || if self.one_in(5) { KEYS[1] } else { KEYS[0] };
        let client = |_| Client { times: 1 + self.below(3), after: self.below(4), ..Client::new(key(), REQUESTS[0]) };
        let clients = 2 + self.below(3);
        (0..clients).map(client).collect()
    }
}
