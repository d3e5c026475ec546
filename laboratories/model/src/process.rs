//! A process: what it is about, and what it does with an answer.

use std::time::Duration;

use tower_idempotency::internals::{
    Change, Claim, Completion, Fence, Hold, Owner, Record, Reply, Resolution, Settlement, State, Transition,
};
use tower_idempotency::{Fingerprint, Key, RecordId};

use crate::database::{Content, Put, Run};
use crate::fault::Fault;
use crate::world::{Policy, Protocol, World};

const A_WHILE: Duration = Duration::from_secs(1);

/// What a process is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "there are few at a time")]
pub(crate) enum Phase {
    Idle,
    /// It waits for what became of its write.
    Writing {
        put: Put,
        content: Content,
        job: Job,
    },
    /// Its handler runs.
    Running {
        fence: Fence,
        run: Run,
        has_acted: bool,
    },
    /// The application looks what became of the operation.
    Asking {
        fence: Fence,
    },
    Dead,
}

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    Claim,
    /// Of a run that was dead when it was decided, or was not.
    Reclaim {
        is_warranted: bool,
    },
    Ask,
    Complete {
        fence: Fence,
        run: Run,
    },
    Interrupt {
        fence: Fence,
    },
    Release {
        fence: Fence,
    },
    Resolve {
        run: Run,
    },
}

pub(crate) fn claim() -> Claim {
    let fingerprint = Fingerprint::of(b"m");
    let (may_repeat, bound, interrupted_retention, patience) = (false, A_WHILE, A_WHILE, A_WHILE);
    Claim { fingerprint, origin: None, may_repeat, bound, interrupted_retention, patience }
}

pub(crate) fn complete(fence: Fence, run: Run) -> Transition<Run> {
    let id = Key::new("k").map(|key| RecordId::new(None, &key)).unwrap_or(RecordId::from_bytes([0; 32]));
    let hold = Hold { id, fence, attempt: 1 };
    let settlement = Settlement::Outcome(run);
    Transition::Complete(Completion { hold, fingerprint: Fingerprint::of(b"m"), settlement, retention: A_WHILE })
}

pub(crate) fn resolve(fence: Fence, resolution: Resolution<Run>) -> Transition<Run> {
    Transition::Resolve(fence, resolution, A_WHILE)
}

impl World {
    /// A request comes to a process that has nothing to do.
    pub(crate) fn request(&mut self, protocol: &Protocol, process: usize) {
        self.budget.requests -= 1;
        if protocol.fault == Some(Fault::ClaimLeavesNoTrace) {
            let record = self.read(protocol, process);
            if record.is_none() {
                self.database.last_fence += 1;
                self.begin(process, Fence(self.database.last_fence));
                return;
            }
        }
        // Without a look: what comes back decides.
        let (change, _) = self.database.decide(None, Transition::Claim(claim()), None);
        self.send(process, Job::Claim, None, None, change);
    }

    /// Decides over what it reads now, and writes what has to be written.
    pub(crate) fn take(&mut self, protocol: &Protocol, process: usize, job: Job, transition: Transition<Run>) {
        let record = self.read(protocol, process);
        let (change, reply) = self.database.decide(record.as_ref(), transition, protocol.fault);
        match (change, reply) {
            (Change::Nothing, reply) => self.known(protocol, process, job, record, reply == Reply::Taken),
            (change, _) => self.send(process, job, self.database.version(), record, change),
        }
    }

    fn send(&mut self, process: usize, job: Job, expects: Option<u8>, read: Option<Record<Run>>, change: Change<Run>) {
        let content = match change {
            Change::Put(draft) => Content::Record(draft, read),
            Change::Release => Content::Released,
            Change::Nothing => return,
        };
        let fence = self.database.row.as_ref().and_then(|row| row.record.as_ref()).map(|record| record.fence.0);
        self.tokens += 1;
        let put = Put { token: self.tokens, expects, expected_fence: fence, by: process };
        self.network.insert(put.clone(), content.clone());
        self.processes[process] = Phase::Writing { put, content, job };
    }

    /// The answer to a write: the row as it stands.
    pub(crate) fn answered(&mut self, protocol: &Protocol, process: usize) {
        let Phase::Writing { put, job, .. } = self.processes[process].clone() else { return };
        let is_done = self.database.row.as_ref().is_some_and(|row| row.version == put.token)
            || (self.database.row.is_none() && matches!(job, Job::Release { .. }));
        let record = self.read(protocol, process);
        self.known(protocol, process, job, record, is_done);
    }

    /// What became of a job. `record` is the row as it was read.
    fn known(&mut self, protocol: &Protocol, process: usize, job: Job, record: Option<Record<Run>>, is_done: bool) {
        self.processes[process] = Phase::Idle;
        match (job, record) {
            (Job::Claim | Job::Reclaim { .. }, Some(record)) if is_done => {
                if job == (Job::Reclaim { is_warranted: true }) && protocol.policy == Policy::Rerun {
                    self.warranted += 1;
                }
                self.granted(record.fence);
                self.begin(process, record.fence);
            }
            (Job::Ask, Some(record)) if is_done => {
                // Downstream is told first: what an older run does from here on is refused there.
                self.fenced = self.fenced.max(record.fence.0);
                self.processes[process] = Phase::Asking { fence: record.fence };
            }
            (Job::Claim | Job::Reclaim { .. } | Job::Ask, record) => self.found(protocol, process, record),
            (Job::Complete { run, .. }, _) if is_done => self.told(run),
            (Job::Complete { fence, run }, record) => self.complete_again(protocol, process, fence, run, record),
            (Job::Resolve { run }, _) if is_done => self.told(run),
            // Somebody was quicker: it is decided anew, over what is there now.
            (Job::Interrupt { fence }, Some(_)) if !is_done => {
                self.take_again(protocol, process, job, Transition::Interrupt { fence, status: None, lost: None });
            }
            (Job::Release { fence }, Some(_)) if !is_done => {
                self.take_again(protocol, process, job, Transition::Release(fence));
            }
            (Job::Interrupt { .. } | Job::Release { .. } | Job::Resolve { .. }, _) => {}
        }
    }

    /// The operation is not for this request to run: what is there?
    fn found(&mut self, protocol: &Protocol, process: usize, record: Option<Record<Run>>) {
        let Some(record) = record else {
            // Released: the second write carries its version.
            return self.take(protocol, process, Job::Claim, Transition::Claim(claim()));
        };
        match record.state {
            State::Completed { outcome } => self.told(outcome),
            State::Running { .. } if record.owner == Owner::Here => {
                let interrupt = Transition::Interrupt { fence: record.fence, status: None, lost: None };
                self.take(protocol, process, Job::Interrupt { fence: record.fence }, interrupt);
            }
            State::Interrupted { .. } if record.is_interrupted() => match protocol.policy {
                Policy::Refuse => {}
                Policy::Rerun => {
                    let is_warranted = self.is_interrupted(record.fence);
                    let reclaim = Transition::Reclaim(claim(), record.fence);
                    self.take(protocol, process, Job::Reclaim { is_warranted }, reclaim);
                }
                Policy::Ask => {
                    let inquire = Transition::Inquire { fence: record.fence, bound: A_WHILE };
                    self.take(protocol, process, Job::Ask, inquire);
                }
            },
            // In flight elsewhere.
            _ => {}
        }
    }

    /// The outcome is not in the row yet: it is decided anew, or somebody else has the last word.
    fn complete_again(
        &mut self,
        protocol: &Protocol,
        process: usize,
        fence: Fence,
        run: Run,
        record: Option<Record<Run>>,
    ) {
        let (_, reply) = self.database.decide(record.as_ref(), complete(fence, run), protocol.fault);
        if reply == Reply::Taken {
            return self.take(protocol, process, Job::Complete { fence, run }, complete(fence, run));
        }
        // Its client is told that the outcome is unknown.
        self.disputes += 1;
        self.thrown_away |= !self.was_taken(fence);
    }

    /// Unless there is nothing to be written for it any more.
    fn take_again(&mut self, protocol: &Protocol, process: usize, job: Job, transition: Transition<Run>) {
        let record = self.read(protocol, process);
        let (change, _) = self.database.decide(record.as_ref(), transition.clone(), protocol.fault);
        if change != Change::Nothing {
            self.take(protocol, process, job, transition);
        }
    }

    fn begin(&mut self, process: usize, fence: Fence) {
        self.runs += 1;
        self.processes[process] = Phase::Running { fence, run: self.runs, has_acted: false };
    }
}
