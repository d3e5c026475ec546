//! What may happen: requests, writes that arrive late or twice, lost answers, crashes, lapses, operators.

use std::collections::BTreeMap;

use stateright::{Model, Property};
use tower_idempotency::internals::{Change, Fence, Record, Resolution, State, Transition};

use crate::database::{Content, Database, Put, Row, Run, TOLD_BY_HAND};
use crate::fault::Fault;
use crate::process::{Job, Phase, complete, resolve};
use crate::promises;

/// What a process does about an operation that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It refuses.
    Refuse,
    /// It runs it again.
    Rerun,
    /// It asks what became of it, and fences its runs downstream before it looks.
    Ask,
}

/// How often each thing may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Requests of the one key.
    pub requests: u8,
    /// Processes that die.
    pub crashes: u8,
    /// Processes that are taken for dead and live on.
    pub lapses: u8,
    /// Writes that are done and whose answers are lost.
    pub lost: u8,
    /// Writes that arrive, and once more later.
    pub late: u8,
    /// Operations that an operator settles.
    pub by_hand: u8,
    /// Records whose retention ends.
    pub expiries: u8,
}

/// The protocol that is explored.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// How many processes share the database.
    pub processes: usize,
    /// What all of them do.
    pub policy: Policy,
    /// How often what may happen.
    pub budget: Budget,
    /// What is broken on purpose.
    pub fault: Option<Fault>,
}

/// All there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub(crate) database: Database,
    /// Writes that have not arrived, or will arrive once more.
    pub(crate) network: BTreeMap<Put, Content>,
    pub(crate) processes: Vec<Phase>,
    /// Which of them are taken for dead.
    pub(crate) lapsed: Vec<bool>,
    pub(crate) budget: Budget,
    pub(crate) tokens: u8,
    pub(crate) runs: u8,
    /// The runs that took effect downstream, and the oldest fence that is still heard there.
    pub(crate) effects: Vec<Run>,
    pub(crate) fenced: u64,
    /// How many more than one may be warranted: by the policy, or by an operator.
    pub(crate) warranted: usize,
    /// What was told of the operation, since it was last forgotten.
    pub(crate) told: Option<Run>,
    /// Runs that somebody took over, or whose operation somebody settled.
    taken: Vec<u64>,
    last_granted: u64,
    pub(crate) disputes: u8,
    pub(crate) seen: Seen,
    pub(crate) thrown_away: bool,
}

/// What was seen that must never be, and what must be now and then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) contradiction: bool,
    pub(crate) said_before_stored: bool,
    pub(crate) fence_that_shrank: bool,
    pub(crate) late_outcome: bool,
    pub(crate) verdict: bool,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request comes to a process.
    Request(usize),
    /// A write arrives. `again`: and will once more; `lost`: its answer does not.
    Arrive { put: PutName, again: bool, lost: bool },
    /// A process that was not answered sends its write again.
    Resend(usize),
    /// A handler has its effect.
    Act(usize),
    /// A handler ends.
    Finish(usize, Ending),
    /// The application has looked what became of the operation.
    Verdict(usize),
    /// A process dies.
    Crash(usize),
    /// A process is taken for dead.
    Lapse(usize),
    /// An operator says that it took place, or forgets it.
    ByHand { forget: bool },
    /// The retention of what is recorded is over.
    Expire,
}

/// How a handler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an outcome.
    Outcome,
    /// Without an effect.
    NotStarted,
    /// Without knowing.
    Unknown,
}

/// The token of a write.
pub type PutName = u8;

impl World {
    fn new(protocol: &Protocol) -> Self {
        Self {
            database: Database::default(),
            network: BTreeMap::new(),
            processes: vec![Phase::Idle; protocol.processes],
            lapsed: vec![false; protocol.processes],
            budget: protocol.budget,
            tokens: 0,
            runs: 0,
            effects: Vec::new(),
            fenced: 0,
            warranted: 0,
            told: None,
            taken: Vec::new(),
            last_granted: 0,
            disputes: 0,
            seen: Seen::default(),
            thrown_away: false,
        }
    }

    fn is_gone(&self, process: usize) -> bool {
        self.processes[process] == Phase::Dead || self.lapsed[process]
    }

    pub(crate) fn read(&self, protocol: &Protocol, process: usize) -> Option<Record<Run>> {
        let is_broken = protocol.fault == Some(Fault::LivingTakenForDead);
        self.database.read(process, |owner| self.is_gone(owner) || (is_broken && owner != process))
    }

    /// Whether the run of this fence has ended without a word, or said that nobody knows.
    pub(crate) fn is_interrupted(&self, fence: Fence) -> bool {
        let Some(Row { record: Some(record), owner, .. }) = &self.database.row else { return false };
        let is_dead = matches!(record.state, State::Running { .. }) && owner.is_some_and(|owner| self.is_gone(owner));
        record.fence == fence && (is_dead || matches!(record.state, State::Interrupted { .. }))
    }

    pub(crate) fn was_taken(&self, fence: Fence) -> bool {
        self.taken.contains(&fence.0)
    }

    pub(crate) fn granted(&mut self, fence: Fence) {
        self.seen.fence_that_shrank |= fence.0 <= self.last_granted;
        self.last_granted = fence.0;
    }

    /// A client is told an outcome.
    pub(crate) fn told(&mut self, run: Run) {
        let stored = self.database.row.as_ref().and_then(|row| row.record.as_ref());
        let is_stored = stored.is_some_and(|record| record.state == State::Completed { outcome: run });
        self.seen.said_before_stored |= !is_stored;
        self.seen.contradiction |= self.told.is_some_and(|told| told != run);
        self.told = Some(run);
    }

    fn arrive(&mut self, protocol: &Protocol, put: &Put, content: &Content) {
        let before = self.database.clone();
        self.database.put(put, content, protocol.fault);
        let was = before.row.as_ref().filter(|row| row.version != put.token).and_then(|row| row.record.clone());
        let is_done = self.database != before;
        let stands = self.database.row.as_ref().and_then(|row| row.record.as_ref());
        if let (Some(was), Some(stands)) = (&was, stands) {
            self.seen.fence_that_shrank |= stands.fence < was.fence;
        }
        let (Some(was), true) = (was, is_done) else { return };
        let run = match was.state {
            State::Running { .. } => was.fence,
            State::Interrupted { run, .. } => run,
            State::Completed { .. } | State::Consumed { .. } => return,
        };
        match content {
            Content::Released => self.taken.push(run.0),
            Content::Record(draft, _) => match draft.state {
                State::Running { .. } => self.taken.push(run.0),
                State::Completed { .. } if draft.fence.is_none() => self.taken.push(run.0),
                State::Completed { .. } => {
                    let lapsed = before.row.and_then(|row| row.owner).is_some_and(|owner| self.is_gone(owner));
                    self.seen.late_outcome |= lapsed || matches!(was.state, State::Interrupted { .. });
                }
                State::Interrupted { .. } | State::Consumed { .. } => {}
            },
        }
    }

    fn by_hand(&mut self, protocol: &Protocol, forget: bool) {
        self.budget.by_hand -= 1;
        let operator = protocol.processes;
        let Some(record) = self.database.read(operator, |owner| self.is_gone(owner)) else { return };
        let resolution = if forget { Resolution::Forget } else { Resolution::Outcome(TOLD_BY_HAND) };
        let resolve = resolve(record.fence, resolution);
        let (change, _) = self.database.decide(Some(&record), resolve, protocol.fault);
        let content = match change {
            Change::Put(draft) => Content::Record(draft, Some(record.clone())),
            Change::Release => Content::Released,
            Change::Nothing => return,
        };
        self.tokens += 1;
        let expects = self.database.version();
        let put = Put { token: self.tokens, expects, expected_fence: Some(record.fence.0), by: operator };
        self.arrive(protocol, &put, &content);
        if forget {
            self.warranted += 1;
            self.told = None;
        }
    }

    fn finish(&mut self, protocol: &Protocol, process: usize, ending: Ending) {
        let Phase::Running { fence, run, .. } = self.processes[process].clone() else { return };
        let (job, transition) = match ending {
            Ending::Outcome => (Job::Complete { fence, run }, complete(fence, run)),
            Ending::NotStarted => (Job::Release { fence }, Transition::Release(fence)),
            Ending::Unknown => (Job::Interrupt { fence }, Transition::Interrupt { fence, status: None, lost: None }),
        };
        self.take(protocol, process, job, transition);
    }

    fn verdict(&mut self, protocol: &Protocol, process: usize) {
        let Phase::Asking { fence } = self.processes[process] else { return };
        self.seen.verdict = true;
        match self.effects.last() {
            Some(run) => {
                let run = *run;
                self.take(protocol, process, Job::Resolve { run }, resolve(fence, Resolution::Outcome(run)));
            }
            None => {
                let reclaim = Transition::Reclaim(crate::process::claim(), fence);
                self.take(protocol, process, Job::Reclaim { is_warranted: true }, reclaim);
            }
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        let Budget { requests, crashes, lapses, lost, late, by_hand, expiries } = world.budget;
        for (process, phase) in world.processes.iter().enumerate() {
            match phase {
                Phase::Idle if requests > 0 => events.push(Event::Request(process)),
                Phase::Writing { put, .. } if !world.network.contains_key(put) => events.push(Event::Resend(process)),
                Phase::Running { has_acted: false, .. } => {
                    events.push(Event::Act(process));
                    events.extend([Ending::NotStarted, Ending::Unknown].map(|ending| Event::Finish(process, ending)));
                }
                Phase::Running { has_acted: true, .. } => {
                    events.extend([Ending::Outcome, Ending::Unknown].map(|ending| Event::Finish(process, ending)));
                }
                Phase::Asking { .. } => events.push(Event::Verdict(process)),
                Phase::Idle | Phase::Writing { .. } | Phase::Dead => {}
            }
            if crashes > 0 && *phase != Phase::Dead {
                events.push(Event::Crash(process));
            }
            if lapses > 0 && !world.is_gone(process) {
                events.push(Event::Lapse(process));
            }
        }
        for put in world.network.keys() {
            let name = put.token;
            let is_awaited = matches!(world.processes.get(put.by), Some(Phase::Writing { put: own, .. }) if own == put);
            events.push(Event::Arrive { put: name, again: false, lost: false });
            if late > 0 {
                events.push(Event::Arrive { put: name, again: true, lost: false });
            }
            if lost > 0 && is_awaited {
                events.push(Event::Arrive { put: name, again: false, lost: true });
            }
        }
        let listed = world.database.read(self.processes, |owner| world.is_gone(owner));
        if by_hand > 0 && listed.is_some_and(|record| matches!(record.state, State::Interrupted { .. })) {
            events.extend([false, true].map(|forget| Event::ByHand { forget }));
        }
        let is_recorded = |row: &Row| {
            let completed = row.record.as_ref().is_some_and(|record| matches!(record.state, State::Completed { .. }));
            completed && !row.is_expired
        };
        // No write is on its way for as long as an outcome is kept.
        let is_quiet =
            world.network.is_empty() && !world.processes.iter().any(|phase| matches!(phase, Phase::Writing { .. }));
        if expiries > 0 && is_quiet && world.database.row.as_ref().is_some_and(is_recorded) {
            events.push(Event::Expire);
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut world = world.clone();
        match event {
            Event::Request(process) => world.request(self, process),
            Event::Arrive { put: name, again, lost } => {
                let (put, content) = world.network.iter().find(|(put, _)| put.token == name)?;
                let (put, content) = (put.clone(), content.clone());
                world.budget.late -= u8::from(again);
                world.budget.lost -= u8::from(lost);
                if !again {
                    world.network.remove(&put);
                }
                world.arrive(self, &put, &content);
                let is_awaited =
                    matches!(world.processes.get(put.by), Some(Phase::Writing { put: own, .. }) if *own == put);
                if is_awaited && !lost {
                    world.answered(self, put.by);
                }
            }
            Event::Resend(process) => {
                let Phase::Writing { put, content, .. } = world.processes[process].clone() else { return None };
                world.network.insert(put, content);
            }
            Event::Act(process) => {
                let Phase::Running { fence, run, has_acted } = &mut world.processes[process] else { return None };
                *has_acted = true;
                let (fence, run) = (fence.0, *run);
                if fence >= world.fenced {
                    world.effects.push(run);
                } else {
                    // Refused downstream: it says that it does not know.
                    world.finish(self, process, Ending::Unknown);
                }
            }
            Event::Finish(process, ending) => world.finish(self, process, ending),
            Event::Verdict(process) => world.verdict(self, process),
            Event::Crash(process) => {
                world.budget.crashes -= 1;
                world.processes[process] = Phase::Dead;
            }
            Event::Lapse(process) => {
                world.budget.lapses -= 1;
                world.lapsed[process] = true;
            }
            Event::ByHand { forget } => world.by_hand(self, forget),
            Event::Expire => {
                world.budget.expiries -= 1;
                world.database.row.as_mut()?.is_expired = true;
                // A retry after it is a new operation.
                world.warranted += 1;
                world.told = None;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}
