//! The whole state of the model, with the truth that no process sees.

use tower_idempotency::internals::{ClaimPolicy, Owner};
use tower_idempotency_shared::Moment;

use crate::clocks::Span;
use crate::database::{Database, Put, Replication};
use crate::fault::Fault;
use crate::process::{At, Phase, Process};
use crate::rows::{Kept, Row, Run, Session};
use crate::sights::{Sight, Sights};
use crate::truth::Truth;

/// The policy of a process for an operation that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Refuses it.
    Refuse,
    /// Runs it again.
    Rerun,
    /// Asks for its result. The application fences its runs downstream before it looks.
    Ask,
}

/// The number of times that each event may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Requests, of any key.
    pub requests: u8,
    /// Processes that die.
    pub crashes: u8,
    /// Processes that are taken for dead and are alive: they stalled, or were cut off.
    pub lapses: u8,
    /// Processes that shut down, and finish their runs.
    pub closes: u8,
    /// Futures that are dropped: of a request whose claim is on its way, or of a run.
    pub drops: u8,
    /// Writes that are done and whose answers are lost.
    pub lost: u8,
    /// Writes that arrive, and once more later.
    pub late: u8,
    /// Effects that are asked for, and take place later.
    pub slow: u8,
    /// Operations that an operator settles.
    pub by_hand: u8,
    /// Records of done operations that an operator deletes.
    pub forgets: u8,
    /// Processes that an operator asks about an operation that was forgotten, and of which they have a copy.
    pub inspects: u8,
    /// Starts of the database.
    pub restarts: u8,
    /// Standbys that take over.
    pub failovers: u8,
    /// Times at which five minutes pass.
    pub ticks: u8,
    /// Times at which the database's clock is set, a quarter of an hour ahead or back.
    pub clocks: u8,
    /// Times at which a process's wall clock is set by the same amount.
    pub walls: u8,
    /// Processes that open the store later than at the beginning.
    pub opened: u8,
    /// Renewals of sessions that make a difference.
    pub renewals: u8,
}

/// The protocol that is explored.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// The number of processes that share the database.
    pub processes: usize,
    /// The number of keys.
    pub keys: usize,
    /// The policy of all processes.
    pub policy: Policy,
    /// The policy of the first process, if it differs: that process has not been deployed anew.
    pub first: Option<Policy>,
    /// The replication that the database waits for.
    pub replication: Replication,
    /// The number of times that each event may happen.
    pub budget: Budget,
    /// The fault that is seeded, if any.
    pub fault: Option<Fault>,
}

/// The state of a session, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    Alive,
    /// Its lease is over. It may be renewed.
    Lapsed,
    /// It was marked dead.
    Dead,
    /// Its process ended it.
    Ended,
}

/// The whole state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub(crate) database: Database,
    /// Writes that have not arrived, or will arrive once more.
    pub(crate) network: Vec<Put>,
    /// The last one is an operator's.
    pub(crate) processes: Vec<Process>,
    /// The sessions of each process, past ones included.
    pub(crate) sessions: Vec<Vec<Status>>,
    /// Effects that were asked for and have not taken place.
    pub(crate) calls: Vec<Call>,
    pub(crate) truths: Vec<Truth>,
    pub(crate) budget: Budget,
    pub(crate) sights: Sights,
}

/// An effect that was asked for downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) key: u8,
    pub(crate) fence: u64,
    pub(crate) run: Run,
}

impl Policy {
    /// The policy as records have it.
    pub(crate) fn claimed(self) -> ClaimPolicy {
        match self {
            Self::Refuse => ClaimPolicy::Refuse,
            Self::Rerun => ClaimPolicy::Rerun,
            Self::Ask => ClaimPolicy::Ask,
        }
    }
}

impl Protocol {
    /// The policy of this process.
    pub(crate) fn policy_of(&self, process: usize) -> Policy {
        self.first.filter(|_| process == 0).unwrap_or(self.policy)
    }
}

impl World {
    pub(crate) fn new(protocol: &Protocol) -> Self {
        let Protocol { processes, keys, replication, budget, .. } = *protocol;
        let database = Database::new(keys, replication);
        Self {
            processes: vec![Process::new(keys, database.floor()); processes + 1],
            sessions: vec![vec![Status::Alive]; processes + 1],
            database,
            network: Vec::new(),
            calls: Vec::new(),
            truths: vec![Truth::default(); keys],
            budget,
            sights: Sights::default(),
        }
    }

    pub(crate) fn saw(&mut self, sight: Sight) {
        self.sights.add(sight);
    }

    pub(crate) fn truth(&mut self, key: u8) -> &mut Truth {
        &mut self.truths[usize::from(key)]
    }

    pub(crate) fn status(&mut self, session: Session) -> &mut Status {
        &mut self.sessions[usize::from(session.process)][usize::from(session.number)]
    }

    pub(crate) fn status_of(&self, session: Session) -> Status {
        self.sessions[usize::from(session.process)][usize::from(session.number)]
    }

    pub(crate) fn is_alive(&self, session: Session) -> bool {
        self.status_of(session) == Status::Alive
    }

    /// The session under which a process claims.
    pub(crate) fn session(&self, process: usize) -> Session {
        Session { process: process as u8, number: self.processes[process].sessions }
    }

    /// The times by which a process judges and stamps now.
    pub(crate) fn times(&self, protocol: &Protocol, process: usize) -> Moment {
        self.moment(protocol, self.processes[process].clocks.span(), 0)
    }

    /// The times by which a statement judges and stamps that was given this span `age` units ago.
    pub(crate) fn moment(&self, protocol: &Protocol, span: Span, age: u8) -> Moment {
        span.moment(self.database.time(), self.database.ahead, age, protocol.fault)
    }

    /// The row that a process reads.
    pub(crate) fn read(&self, protocol: &Protocol, at: At) -> Option<Row> {
        self.database.read(at.key, self.times(protocol, at.process).earliest)
    }

    /// The latest true time by which a process may judge now.
    pub(crate) fn may_judge_by(&self, process: usize) -> u64 {
        self.processes[process].clocks.right().with(self.database.ahead, 0).may_judge_by(self.database.time())
    }

    /// Returns whether the bound of the latest run is over, or all clocks of this process say so.
    pub(crate) fn is_bound_over(&self, process: usize, key: u8) -> bool {
        self.may_judge_by(process) >= self.truths[usize::from(key)].bound
    }

    /// Returns whether the run of this fence has ended without an end, or as unknown, by this row, and may run again.
    pub(crate) fn is_over(&self, key: u8, row: Option<&Row>, fence: u64) -> bool {
        let is_repeatable = self.truths[usize::from(key)].policy == Some(ClaimPolicy::Rerun);
        let row = row.filter(|row| row.fence == fence && is_repeatable);
        row.is_some_and(|row| match (row.kept, row.session) {
            (Kept::Running, Some(session)) => matches!(self.status_of(session), Status::Lapsed | Status::Dead),
            (kept, _) => matches!(kept, Kept::Interrupted { .. }),
        })
    }

    /// Allows one more effect.
    pub(crate) fn allow(&mut self, key: u8) {
        self.truth(key).allowed += 1;
    }

    /// Makes the operation a new one from now on.
    pub(crate) fn begins_anew(&mut self, key: u8) {
        self.allow(key);
        self.truth(key).told = None;
    }

    /// The service downstream refuses older fences from now on.
    pub(crate) fn hears(&mut self, key: u8, fence: u64) {
        let truth = self.truth(key);
        truth.heard = truth.heard.max(fence);
    }

    pub(crate) fn granted(&mut self, key: u8, fence: u64) {
        if fence <= self.truth(key).last_granted {
            self.saw(Sight::FenceShrank);
        }
        if fence > self.database.floor() {
            self.saw(Sight::FenceAboveClock);
        }
        self.truth(key).last_granted = fence;
    }

    /// A client gets an outcome that was read or written.
    pub(crate) fn told(&mut self, protocol: &Protocol, key: u8, run: Run) {
        // The outcome was read before it was forgotten.
        if self.was_forgotten(key, run) {
            return;
        }
        let is_told = |row: &Row| row.kept == Kept::Completed(run);
        let stored = match protocol.replication {
            Replication::Behind => self.database.there(key),
            Replication::InStep | Replication::Awaited | Replication::Applied => self.database.durable(key),
        };
        if !stored.is_some_and(is_told) {
            self.saw(Sight::SaidBeforeDurable);
        }
        let is_again = self.truth(key).told.is_some();
        self.saw(if is_again { Sight::Replayed } else { Sight::Told });
        self.heard_by_client(key, run);
    }

    /// A client gets an outcome.
    pub(crate) fn heard_by_client(&mut self, key: u8, run: Run) {
        let truth = self.truth(key);
        let is_other = truth.told.is_some_and(|told| told != run) && !truth.is_lost && !truth.is_premature;
        let is_earlier = truth.earlier == Some(run) && !truth.is_premature;
        truth.told = Some(run);
        if is_earlier {
            self.saw(Sight::EarlierAnswer);
        }
        if is_other {
            self.saw(Sight::Contradiction);
        }
    }

    /// An outcome is refused and kept in a row of its own.
    pub(crate) fn disputed(&mut self, key: u8, fence: u64) {
        self.saw(Sight::Dispute);
        let is_older_tombstone = |row: &Row| row.kept == Kept::Released && row.fence < fence;
        let is_there = self.database.there(key).is_some_and(|row| !is_older_tombstone(row));
        let truth = self.truth(key);
        let is_settled = truth.taken.contains(&fence) || truth.is_lost && is_there;
        if !is_settled {
            self.saw(Sight::ThrownAway);
        }
    }

    /// Returns whether all clocks of a process are behind, so that it may replay an outcome from memory.
    pub(crate) fn is_behind(&self, process: usize) -> bool {
        self.processes[process].clocks.right().with(self.database.ahead, 0).latest < 0
    }

    /// Returns whether nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle = self.processes.iter().all(|process| !process.is_alive || process.is_idle());
        is_idle && self.network.is_empty() && self.calls.is_empty() && self.database.behind.is_empty()
    }

    /// Removes everything that can have no effect any more, so that it makes no other state.
    pub(crate) fn tidy(&mut self, protocol: &Protocol) {
        // The difference between durable and other rows has no effect any more.
        if protocol.replication == Replication::InStep || self.budget.failovers == 0 && self.budget.restarts == 0 {
            while !self.database.behind.is_empty() {
                self.replicate(protocol);
            }
        }
        for process in 0..protocol.processes {
            let ends = self.processes[process].is_alive
                && self.processes[process].is_closed
                && self.processes[process].is_idle();
            if ends {
                self.processes[process].is_alive = false;
                let session = self.session(process);
                *self.status(session) = Status::Ended;
            }
            self.tidy_session(process);
            if !self.processes[process].is_alive {
                let sessions = self.processes[process].sessions;
                let gone = Process::new(self.truths.len(), 0);
                self.processes[process] = Process { is_alive: false, sessions, sent: 1, ..gone };
            }
        }
        let is_told = self.budget.requests > 0;
        let may_be_replaced = self.budget.failovers + self.budget.restarts > 0;
        for desk in self.processes.iter_mut().flat_map(|process| &mut process.desks) {
            desk.cache = desk.cache.filter(|_| is_told || may_be_replaced || desk.restores);
            desk.learned = desk.learned.filter(|_| is_told);
            desk.restores &= desk.cache.is_some();
        }
        self.network.sort_unstable_by_key(|put| (put.by, put.number, put.age));
        self.calls.sort_unstable_by_key(|call| (call.key, call.run));
    }

    /// The owner of a row, as an operator sees it. An operator takes no part in any run.
    pub(crate) fn seen_from_outside(&self, protocol: &Protocol, key: u8) -> Option<Owner> {
        let row = self.read(protocol, At { process: protocol.processes, key, is_orphan: false })?;
        let record = self.present(&Protocol { fault: None, ..*protocol }, protocol.processes, &row)?;
        record.is_interrupted().then_some(record.owner)
    }

    /// Returns whether the process of this session has this run, or its end, which is not recorded yet. A claim that is
    /// given back is no run.
    pub(crate) fn has_run(&self, session: Session, key: u8, fence: u64) -> bool {
        let process = &self.processes[usize::from(session.process)];
        let phase = &process.desks[usize::from(key)].phase;
        let is_under_way = matches!(phase, Phase::Running { fence: own, .. } if *own == fence);
        let has_begun = fence <= self.truths[usize::from(key)].last_granted;
        is_under_way || has_begun && process.writes().any(|put| put.key == Some(key) && put.ends == Some(fence))
    }

    /// Returns whether the process of a running row has this run, or work under its key, if its session is believed to
    /// be alive.
    pub(crate) fn has_its_run(&self, key: u8) -> bool {
        let Some(&Row { kept: Kept::Running, session: Some(session), fence, .. }) = self.database.there(key) else {
            return true;
        };
        let process = &self.processes[usize::from(session.process)];
        !self.is_alive(session) || process.is_about(key, fence)
    }
}

/// Returns whether a handler runs.
pub(crate) fn is_running(phase: &Phase) -> bool {
    matches!(phase, Phase::Running { .. })
}
