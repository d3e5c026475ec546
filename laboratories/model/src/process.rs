//! A process: its work under each key, and its memory.

use std::time::Duration;

use tower_idempotency::internals::{
    Cause, Claim, ClaimPolicy, Completion, Hold, Lost, Operation, Origin, ReclaimReason, Resolution, RunResult,
    Transition,
};
use tower_idempotency::{Fence, RecordId};

use crate::clocks::Clocks;
use crate::database::Put;
use crate::rows::{BEGAN, BOUND, FINGERPRINT, INTERRUPTED_RETENTION, RETENTION, Row, Run, Session, TIMEOUT};

/// The process and the key of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) process: usize,
    pub(crate) key: u8,
    /// `true` if the step has no waiter.
    pub(crate) is_orphan: bool,
}

/// A process that shares the database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) is_alive: bool,
    /// The process shuts down: nothing begins.
    pub(crate) is_closed: bool,
    /// The number of sessions that it had before this one.
    pub(crate) sessions: u8,
    /// The time that its session states: a run of this process whose bound ends earlier is over. 0: it concerns no row.
    pub(crate) over_before: u64,
    /// The same time in the renewal that is on its way.
    pub(crate) renewal: Option<u64>,
    /// The number of writes that it has sent, and the number of runs that it has begun.
    pub(crate) sent: u8,
    pub(crate) runs: u8,
    /// The greatest fence that it has seen.
    pub(crate) floor: u64,
    /// The server behind whose barrier it is.
    pub(crate) barrier: u8,
    pub(crate) clocks: Clocks,
    /// Its work and memory, by key.
    pub(crate) desks: Vec<Desk>,
    /// The writes without a waiter. The store's own task completes them.
    pub(crate) orphans: Vec<Writing>,
}

/// The work and the memory of a process under one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Desk {
    pub(crate) phase: Phase,
    /// The row that names a session of this process, as it wrote it.
    pub(crate) held: Option<Row>,
    /// Its copy of a completed record.
    pub(crate) cache: Option<Cached>,
    /// `true` if another server answers, and the copy is still to be compared with the row.
    pub(crate) restores: bool,
    /// The run of which the process knows that its record was forgotten.
    pub(crate) learned: Option<Run>,
}

/// The copy of a completed record, and the time until which it is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cached {
    pub(crate) run: Run,
    pub(crate) fence: u64,
    pub(crate) expires: u64,
}

impl Cached {
    /// The copy of this row, which has the outcome of `run`.
    pub(crate) fn of(run: Run, row: &Row) -> Self {
        Self { run, fence: row.fence, expires: row.expires }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    #[default]
    Idle,
    /// The process waits for the result of its write.
    Writing(Writing),
    /// The process has read an outcome, and writes a barrier before it answers with it.
    Behind { put: Put, server: u8, told: Read },
    /// Its handler runs, under this session.
    Running { fence: u64, run: Run, session: Session, effect: Effect },
    /// The process, or an operator, asks the application.
    Asked { fence: u64 },
    /// The application has looked, and has not answered yet.
    Knows { fence: u64, found: Option<Run> },
}

/// An answer that waits for a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Read {
    /// The outcome of another run.
    Replay(Cached),
    /// The outcome of the own run, which is recorded already.
    Own(Cached),
}

/// The progress of a handler's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    No,
    /// The effect was asked for.
    Sent,
    Done,
    /// The service refuses older fences.
    Refused,
}

/// A write whose answer is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Writing {
    pub(crate) put: Put,
    pub(crate) job: Job,
}

/// The purpose of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    Claim,
    /// A takeover. `is_warranted`: the run was dead at the decision. `is_asked`: the application decides, not the
    /// policy.
    Reclaim {
        fence: u64,
        is_warranted: bool,
        is_asked: bool,
    },
    Ask {
        fence: u64,
    },
    Complete {
        fence: u64,
        run: Run,
    },
    Interrupt {
        fence: u64,
        by: By,
    },
    Release {
        fence: u64,
    },
    /// The result of the operation. `None`: it may run again.
    Resolve {
        fence: u64,
        outcome: Option<Run>,
    },
    /// The end of a run of which the process has a copy, for the time that is left of its retention.
    Restore {
        fence: u64,
        run: Run,
        left: u64,
    },
    /// The record of a run that is done is deleted.
    Forget {
        fence: u64,
    },
}

/// The source of the statement that the end of a run is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum By {
    /// The run itself. The statement is recorded though the claim was lost.
    Itself,
    /// A request that found a run of this process which ended without a record.
    Finder,
    /// The step that gives back a claim under which nothing ran.
    NoProcess,
}

impl Job {
    /// The step of the protocol, for a process with this policy.
    pub(crate) fn transition(self, policy: ClaimPolicy) -> Transition<Run> {
        let id = RecordId::from_bytes([0; 32]);
        let operation = Operation { id, fingerprint: *FINGERPRINT, origin: Origin::default() };
        let claim = || Claim {
            operation: operation.clone(),
            policy,
            may_repeat: false,
            bound: BOUND,
            interrupted_retention: INTERRUPTED_RETENTION,
            timeout: BOUND,
        };
        match self {
            Self::Claim => Transition::Claim(claim()),
            Self::Reclaim { fence, is_asked, .. } => {
                let reason = if is_asked { ReclaimReason::Verdict } else { ReclaimReason::Policy };
                Transition::Reclaim(claim(), Fence(fence), reason)
            }
            Self::Ask { fence } => Transition::Inquire { fence: Fence(fence), bound: BOUND },
            Self::Complete { fence, run } | Self::Restore { fence, run, .. } => {
                let (hold, result) = (Hold { fence: Fence(fence), attempt: 1 }, RunResult::Outcome(run));
                let (retention, began) = match self {
                    Self::Restore { left, .. } => (Duration::from_millis(left), Some(BEGAN)),
                    _ => (RETENTION, None),
                };
                Transition::Complete(Completion { operation, hold, result, retention, began })
            }
            Self::Interrupt { fence, by } => {
                let lost = Lost { operation, attempt: 1, policy, retention: INTERRUPTED_RETENTION };
                let lost = Some(lost).filter(|_| by == By::Itself);
                Transition::Interrupt { fence: Fence(fence), cause: Cause::Unknown, lost }
            }
            Self::Release { fence } => Transition::Release(Fence(fence)),
            Self::Resolve { fence, outcome } => {
                let resolution = outcome.map_or(Resolution::Release, Resolution::Outcome);
                Transition::Resolve(Fence(fence), resolution, RETENTION)
            }
            Self::Forget { fence } => Transition::Resolve(Fence(fence), Resolution::Forget, RETENTION),
        }
    }

    /// The fence of the run that this job ends.
    pub(crate) fn ends(self) -> Option<u64> {
        match self {
            Self::Complete { fence, .. } | Self::Interrupt { fence, .. } | Self::Release { fence } => Some(fence),
            _ => None,
        }
    }

    /// Returns whether it takes the operation from a run, or from the record of one.
    pub(crate) fn takes_over(self) -> bool {
        matches!(self, Self::Reclaim { .. } | Self::Ask { .. } | Self::Resolve { .. } | Self::Forget { .. })
    }

    /// Returns whether it begins a run.
    pub(crate) fn is_claim(self) -> bool {
        matches!(self, Self::Claim | Self::Reclaim { .. })
    }
}

impl Process {
    pub(crate) fn new(keys: usize, floor: u64) -> Self {
        Self {
            is_alive: true,
            is_closed: false,
            sessions: 0,
            over_before: 0,
            renewal: None,
            sent: 0,
            runs: 0,
            floor,
            barrier: 1,
            clocks: Clocks::default(),
            desks: vec![Desk::default(); keys],
            orphans: Vec::new(),
        }
    }

    /// Returns whether nothing is under way in this process.
    pub(crate) fn is_idle(&self) -> bool {
        self.orphans.is_empty() && self.desks.iter().all(|desk| desk.phase == Phase::Idle)
    }

    /// Returns whether something of this process is under way for a key, or this run is.
    pub(crate) fn is_about(&self, key: u8, fence: u64) -> bool {
        let is_under_way = match self.desks[usize::from(key)].phase {
            Phase::Running { fence: own, .. } => own == fence,
            Phase::Writing(_) | Phase::Behind { .. } => true,
            Phase::Idle | Phase::Asked { .. } | Phase::Knows { .. } => false,
        };
        is_under_way || self.orphans.iter().any(|writing| writing.put.key == Some(key))
    }

    /// Some time passes. Only a claim counts the time without an answer.
    pub(crate) fn wait(&mut self) {
        let awaited = self.desks.iter_mut().filter_map(|desk| match &mut desk.phase {
            Phase::Writing(writing) if writing.job.is_claim() => Some(&mut writing.put),
            _ => None,
        });
        awaited.for_each(|put| put.age = TIMEOUT.min(put.age + 1));
    }

    /// The writes whose answers the process does not know.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Put> {
        let awaited = self.desks.iter().filter_map(|desk| match &desk.phase {
            Phase::Writing(Writing { put, .. }) | Phase::Behind { put, .. } => Some(put),
            _ => None,
        });
        awaited.chain(self.orphans.iter().map(|writing| &writing.put))
    }
}
