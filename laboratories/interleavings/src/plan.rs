//! What happens in one execution. When it happens is for the schedule to say.

use std::time::Duration;

use shuttle::rand::Rng as _;
use testkit::history::Policy;
use tower_idempotency::OnInFlight;
use tower_idempotency::test_util::StoreCall;

pub const KEYS: [&str; 2] = ["k", "l"];
pub const REQUESTS: [&str; 2] = ["a", "b"];
/// How long a handler may run, and the application may think, where a plan has it that one takes longer.
pub const MAX_RUN: Duration = Duration::from_secs(600);
/// More time than passes in any execution.
pub const LONG: Duration = Duration::from_secs(30 * 86_400);

/// Who asks, how runs end, what fails, who goes away.
#[derive(Clone, Debug)]
pub struct Plan {
    pub store: Kind,
    pub policy: Policy,
    pub on_in_flight: OnInFlight,
    /// A run of the first key that ended so before anything else happens.
    pub before: Option<Ending>,
    pub clients: Vec<Client>,
    /// How runs end, in the order in which they begin. All later ones have an outcome.
    pub endings: Vec<Ending>,
    /// Whether runs commit their effects together with their records.
    pub commits: bool,
    /// What becomes of their transactions, in the order in which they are sent. All later ones are committed.
    pub fates: Vec<Fate>,
    /// At how many places a handler waits.
    pub breaths: usize,
    /// Runs that are dropped, by their number, and how many breaths after they began.
    pub cuts: Vec<(usize, usize)>,
    /// Calls that are held up until an [`Act::GoOn`].
    pub stalls: Vec<StoreCall>,
    /// What fails from the beginning.
    pub faults: Vec<Act>,
    /// What else happens, and after how many breaths.
    pub acts: Vec<(usize, Act)>,
    /// What the application says when it is asked about a run; later, what is true.
    pub knows: Vec<Knows>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `MemoryStore`: a claim leaves a record.
    Memory,
    /// `TestStore`: a claim that need not be durable leaves no trace; and it fails on command.
    Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Outcome,
    /// It says that it had no effect.
    NotStarted,
    /// It does not say whether it had one.
    Unknown {
        effect: bool,
    },
    /// After its effect.
    Panic,
    /// After its effect it goes on for longer than `max_run`.
    Hang,
}

impl Ending {
    pub fn has_effect(self) -> bool {
        !matches!(self, Self::NotStarted | Self::Unknown { effect: false })
    }
}

/// What becomes of a transaction.
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
    /// Breaths before the first time.
    pub after: usize,
    /// Goes away after so many breaths.
    pub gone: Option<usize>,
}

impl Client {
    pub const fn new(key: &'static str, request: &'static str) -> Self {
        Self { key, request, times: 1, after: 0, gone: None }
    }
}

/// What else happens.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Time passes.
    Pass(Duration),
    /// The calls that were held up go on.
    GoOn,
    /// The next call of a call fails.
    Fail(StoreCall),
    /// The next call of a call is done, but its answer is lost.
    LoseAnswer(StoreCall),
    /// The process is shutting down.
    Drain,
    /// An operator settles what was interrupted, or goes away before the answer.
    Resolve { stays: bool },
    /// The application is asked about all that was interrupted.
    ReconcileAll,
}

/// What the application says when it is asked.
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

    /// Returns whether something goes on only after a while.
    pub fn takes_time(&self) -> bool {
        let hangs = self.endings().any(|ending| ending == Ending::Hang);
        hangs || self.store_fails() || self.knows.iter().any(|knows| matches!(knows, Knows::Hangs))
    }

    /// Where nothing is to take too long, nothing does, however late its turn comes.
    pub fn max_run(&self) -> Duration {
        let hangs = self.endings().any(|ending| ending == Ending::Hang);
        let too_long = hangs || self.acts(|act| matches!(act, Act::Pass(time) if time >= MAX_RUN));
        if too_long { MAX_RUN } else { LONG }
    }

    /// The same, for what the application is asked.
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

    /// Returns whether a client may be refused so.
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
        (self.policy == Policy::Refuse && self.may_refuse("outcome-unknown")) || self.may_linger()
    }

    /// Returns whether a slot may be held for ever: its run was dropped while its end was being recorded, or its end is
    /// unknown.
    pub fn may_linger(&self) -> bool {
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

    /// After how many tries a key must be settled.
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

    /// Some, at most `most`, each by `draw`.
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
