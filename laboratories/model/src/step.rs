//! One step of a process, as `protocol/step.rs` takes it: it reads, lets the protocol decide, sends a
//! write, and acts on the answer.

use tower_idempotency::Fence;
use tower_idempotency::internals::{Cause, Current, Draft, Edit, Expiry, Origin, Owner, Record, Reply, State, next};
use tower_idempotency_shared::GRACE;

use crate::database::{Put, Replication, Taken};
use crate::fault::Fault;
use crate::process::{At, By, Effect, Job, Phase, Writing};
use crate::rows::{FINGERPRINT, Given, Kept, READ, RETENTION, Row, Run, Session, UNKNOWN, Write};
use crate::sights::Sight;
use crate::truth::Forgotten;
use crate::world::{Policy, Protocol, Status, World};

/// The knowledge of the row before the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing was read: the answer to the write decides.
    Nothing,
    /// The row that this process wrote.
    Held(Row),
    /// The row that was read now.
    Read(Option<Row>),
}

impl Known {
    pub(crate) fn row(self) -> Option<Row> {
        match self {
            Self::Nothing => None,
            Self::Held(row) => Some(row),
            Self::Read(row) => row,
        }
    }
}

impl World {
    /// Takes a step, beginning with what the process remembers or reads.
    pub(crate) fn take(&mut self, protocol: &Protocol, at: At, job: Job) {
        match self.processes[at.process].desks[usize::from(at.key)].held {
            _ if job == Job::Claim => self.step(protocol, at, job, Known::Nothing),
            Some(row) => self.step(protocol, at, job, Known::Held(row)),
            None => self.read_and_step(protocol, at, job),
        }
    }

    /// Takes a step by the row that is read, once the row may be shown.
    fn read_and_step(&mut self, protocol: &Protocol, at: At, job: Job) {
        if !self.may_show(protocol, at.process, at.key) {
            return self.send(protocol, at, job, READ, None);
        }
        let row = self.read(protocol, at);
        self.step(protocol, at, job, Known::Read(row));
    }

    pub(crate) fn step(&mut self, protocol: &Protocol, at: At, job: Job, known: Known) {
        let row = known.row();
        if let (Known::Read(_), Some(row)) = (known, row) {
            let floor = &mut self.processes[at.process].floor;
            *floor = row.fence.max(*floor);
        }
        let record = row.as_ref().and_then(|row| self.present(protocol, at.process, row));
        let current = match row {
            Some(Row { kept: Kept::Released, fence, .. }) => Current::Released(Fence(fence)),
            _ => Current::from(record.as_ref()),
        };
        let (change, reply) = decide(protocol, current, at.process, job);
        let write = match change {
            Edit::Nothing if reply == Reply::Refused && matches!(known, Known::Held(_)) => {
                // The process remembers an older row.
                self.let_go(at, row.as_ref());
                return self.read_and_step(protocol, at, job);
            }
            Edit::Nothing => return self.unchanged(protocol, at, job, known, reply, record),
            Edit::Release => Write {
                expect: row.map(|row| row.token),
                token: 0,
                fence: Given::Keep,
                kept: Kept::Released,
                session: None,
                expires: Some(self.tombstone_kept(protocol, at, row.as_ref())),
                policy: UNKNOWN,
            },
            Edit::Put(draft) => self.write(protocol, at, &draft, row.as_ref(), record.as_ref()),
        };
        if job.takes_over() {
            self.mark_dead(protocol, at, row.as_ref());
        }
        let is_bound_over = |session: Session| self.is_bound_over(usize::from(session.process), at.key);
        let takes = row.filter(|_| job.takes_over());
        let takes = takes.map(|row| Taken { fence: row.fence, is_bound_over: row.session.is_some_and(is_bound_over) });
        self.send(protocol, at, job, write, takes);
    }

    /// The record of a row as this process sees it.
    pub(crate) fn present(&self, protocol: &Protocol, process: usize, row: &Row) -> Option<Record<Run>> {
        let now = self.times(protocol, process).earliest;
        let is_own = |session: Session| usize::from(session.process) == process;
        let owner = match row.session {
            None => Owner::None,
            Some(session) if is_own(session) => Owner::Here,
            Some(_) if protocol.fault == Some(Fault::LivingTakenForDead) => Owner::None,
            // The time for the question about it is over.
            Some(_) if row.kept != Kept::Running && row.until <= now.as_millis() => Owner::None,
            Some(session) if !self.is_alive(session) || self.has_ended(protocol, process, row) => Owner::None,
            Some(_) => Owner::Elsewhere,
        };
        row.record(owner, now)
    }

    /// The time for which the tombstone of this row is kept: that of a done record for as long as the record.
    fn tombstone_kept(&self, protocol: &Protocol, at: At, row: Option<&Row>) -> u64 {
        let grace = GRACE.as_millis() as u64;
        match row {
            _ if protocol.fault == Some(Fault::TombstoneKeptForItsGrace) => grace,
            Some(Row { kept: Kept::Completed(_), expires, .. }) => {
                let earliest = self.times(protocol, at.process).earliest.as_millis();
                grace.max(expires.saturating_sub(earliest))
            }
            _ => grace,
        }
    }

    /// The write for the protocol's draft, as in `protocol/write.rs`.
    fn write(
        &self,
        protocol: &Protocol,
        at: At,
        draft: &Draft<Run>,
        row: Option<&Row>,
        record: Option<&Record<Run>>,
    ) -> Write {
        let process = &self.processes[at.process];
        let session = draft.owned.map(|_| Session { process: at.process as u8, number: process.sessions });
        let milliseconds = |duration: std::time::Duration| duration.as_millis() as u64;
        Write {
            expect: row.map(|row| row.token),
            token: 0,
            fence: match draft.fence {
                None if protocol.fault == Some(Fault::FloorForgotten) => Given::Above(0),
                None => Given::Above(process.floor),
                Some(fence) if row.is_some_and(|row| row.fence == fence.0) => Given::Keep,
                Some(fence) => Given::Exactly(fence.0),
            },
            kept: match draft.state {
                State::Running { .. } => Kept::Running,
                State::Interrupted { run, .. } => Kept::Interrupted { run: run.0 },
                State::Completed { outcome } => Kept::Completed(outcome),
                State::Consumed { .. } => Kept::Completed(0),
            },
            session,
            policy: match draft.state {
                State::Running { policy, .. } | State::Interrupted { policy, .. } => policy,
                State::Completed { .. } | State::Consumed { .. } => UNKNOWN,
            },
            expires: match draft.expiry {
                Expiry::Never => Some(milliseconds(crate::rows::BOUND + crate::rows::INTERRUPTED_RETENTION)),
                Expiry::In(kept) => Some(milliseconds(kept)),
                Expiry::At(expires) => Some(expires.as_millis()),
                Expiry::AtLeast(least) => {
                    let now = self.times(protocol, at.process).earliest.as_millis();
                    let expires = record.and_then(|record| record.expires).map_or(now, |expires| expires.as_millis());
                    let left = expires.saturating_sub(now);
                    let is_as_it_stands = row.map(|row| row.expires) == Some(expires);
                    let is_kept = left >= milliseconds(least) && is_as_it_stands;
                    if is_kept { None } else { Some(left.max(milliseconds(least))) }
                }
            },
        }
    }

    /// Marks a session whose lease is over as dead.
    fn mark_dead(&mut self, protocol: &Protocol, at: At, row: Option<&Row>) {
        let Some(session) = row.filter(|row| row.kept == Kept::Running).and_then(|row| row.session) else { return };
        if usize::from(session.process) == at.process || protocol.fault == Some(Fault::TakeoverMarksNoSession) {
            return;
        }
        // The run's own bound is over, and the session of its process states that the run is over.
        if row.is_some_and(|row| self.has_ended(protocol, at.process, row)) {
            return;
        }
        let status = self.status(session);
        if *status == Status::Lapsed {
            *status = Status::Dead;
        }
    }

    pub(crate) fn send(&mut self, protocol: &Protocol, at: At, job: Job, mut write: Write, takes: Option<Taken>) {
        let process = &mut self.processes[at.process];
        process.sent += 1;
        write.token = match protocol.fault {
            Some(Fault::VersionCountedPerRow) => write.expect.unwrap_or(0) + 1,
            _ => (at.process as u8 + 1) * 32 + process.sent,
        };
        let (by, number, key) = (at.process as u8, process.sent, Some(at.key));
        let (span, right) = (process.clocks.span(), process.clocks.right());
        let put = Put { by, number, key, write, ends: job.ends(), takes, age: 0, span, right };
        let writing = Writing { put, job };
        if at.is_orphan {
            process.orphans.push(writing);
        } else {
            process.desks[usize::from(at.key)].phase = Phase::Writing(writing);
        }
        self.network.push(put);
    }

    /// Gives the result of the step to its requester.
    pub(crate) fn end(&mut self, protocol: &Protocol, at: At, job: Job, reply: Reply, record: Option<Record<Run>>) {
        if !at.is_orphan {
            self.processes[at.process].desks[usize::from(at.key)].phase = Phase::Idle;
        }
        let fence = record.as_ref().map_or(0, |record| record.fence.0);
        match (job, reply) {
            _ if at.is_orphan => {}
            (Job::Claim | Job::Reclaim { .. }, Reply::Taken) => {
                // A failover that loses what was never shown excuses no run after an answer.
                let is_told = protocol.replication == Replication::Applied && self.truth(at.key).told.is_some();
                if matches!(job, Job::Reclaim { is_warranted: true, is_asked: false, .. }) && !is_told {
                    self.allow(at.key);
                }
                if matches!(job, Job::Reclaim { .. }) {
                    self.saw(Sight::Takeover);
                }
                self.begin(at, fence);
            }
            (Job::Ask { .. }, Reply::Taken) => {
                if protocol.fault != Some(Fault::LooksBeforeItFences) {
                    self.hears(at.key, fence);
                }
                self.processes[at.process].desks[usize::from(at.key)].phase = Phase::Asked { fence };
            }
            (Job::Claim, Reply::Refused) => self.found(protocol, at, record),
            (Job::Reclaim { .. }, Reply::Refused) if record.as_ref().is_some_and(|record| !record.may_run_again()) => {
                self.saw(Sight::NotRunAgain);
            }
            // The record is gone: the operation is claimed.
            (Job::Reclaim { .. }, Reply::Refused) if record.is_none() => self.take(protocol, at, Job::Claim),
            (Job::Complete { run, .. }, Reply::Taken) => self.told(protocol, at.key, run),
            (Job::Resolve { outcome, .. }, Reply::Taken) => match outcome {
                Some(run) if at.process < protocol.processes => {
                    self.saw(Sight::Reconciled);
                    self.told(protocol, at.key, run);
                }
                _ => self.saw(Sight::SettledByHand),
            },
            (Job::Forget { fence }, Reply::Taken) => {
                let forgotten = self.truths[usize::from(at.key)].forgotten.iter().find(|it| it.fence == fence);
                if let Some(&Forgotten { run, .. }) = forgotten {
                    self.learned(at, run);
                }
            }
            (Job::Interrupt { by: By::Finder, .. }, _) => self.found(protocol, at, record),
            // The requester is answered already.
            _ => {}
        }
    }

    /// Acts on the current record, as this request does not run the operation.
    pub(crate) fn found(&mut self, protocol: &Protocol, at: At, record: Option<Record<Run>>) {
        let Some(record) = record else { return };
        let fence = record.fence.0;
        match record.state {
            State::Running { .. } if record.owner == Owner::Here => {
                self.take(protocol, at, Job::Interrupt { fence, by: By::Finder });
            }
            State::Interrupted { .. } if record.is_interrupted() => match protocol.policy_of(at.process) {
                Policy::Refuse => {}
                Policy::Rerun => {
                    let is_warranted = self.is_over(at.key, self.database.there(at.key), fence);
                    self.take(protocol, at, Job::Reclaim { fence, is_warranted, is_asked: false });
                }
                Policy::Ask => self.take(protocol, at, Job::Ask { fence }),
            },
            State::Running { .. } if self.is_bound_over(at.process, at.key) => self.saw(Sight::OutlastsItsBound),
            // In flight elsewhere, or answered.
            _ => {}
        }
    }

    pub(crate) fn begin(&mut self, at: At, fence: u64) {
        self.granted(at.key, fence);
        if let Some(forgotten) = self.truths[usize::from(at.key)].forgotten.last() {
            let is_another = forgotten.server != self.database.server;
            self.saw(if is_another { Sight::RunsOnAnotherServer } else { Sight::RunsAgain });
        }
        let process = &mut self.processes[at.process];
        process.runs += 1;
        let run = (at.process as u8 + 1) * 16 + process.runs;
        let session = Session { process: at.process as u8, number: process.sessions };
        process.desks[usize::from(at.key)].phase = Phase::Running { fence, run, session, effect: Effect::No };
    }
}

/// The decision of the protocol, or of the protocol with the seeded fault.
fn decide(protocol: &Protocol, current: Current<'_, Run>, process: usize, job: Job) -> (Edit<Run>, Reply) {
    let fault = protocol.fault;
    let told = match (fault, job) {
        (Some(Fault::ReclaimWhateverWasClaimed), Job::Reclaim { fence, is_warranted, .. }) => {
            Job::Reclaim { fence, is_warranted, is_asked: true }
        }
        _ => job,
    };
    let (mut change, reply) = next(current, told.transition(protocol.policy_of(process).claimed()));
    let held = if let Current::Held(record) = current { Some(record) } else { None };
    match (fault, job, &mut change) {
        (Some(Fault::ReclaimKeepsFence), Job::Reclaim { fence, .. }, Edit::Put(draft))
        | (Some(Fault::ResolutionKeepsFence), Job::Resolve { fence, .. }, Edit::Put(draft)) => {
            draft.fence = Some(Fence(fence));
        }
        (Some(Fault::InquiryDisarms), Job::Ask { .. }, Edit::Put(draft)) => {
            draft.state = State::Interrupted { policy: UNKNOWN, run: Fence(0), cause: Cause::Unknown };
        }
        (Some(Fault::LateOutcomeRefused), Job::Complete { .. }, _) if held.is_some_and(Record::is_interrupted) => {
            return (Edit::Nothing, Reply::Refused);
        }
        (Some(Fault::CompletionOverAbsentRefused), Job::Complete { .. }, _) if current == Current::Absent => {
            return (Edit::Nothing, Reply::Refused);
        }
        (Some(Fault::CompletionOverwritesClaim), Job::Complete { fence, run }, Edit::Nothing)
            if held.is_some_and(|record| matches!(record.state, State::Running { .. })) =>
        {
            return (Edit::Put(draft(fence, State::Completed { outcome: run })), Reply::Taken);
        }
        (Some(Fault::DropOverwritesCompletion), Job::Interrupt { fence, by: By::Itself }, Edit::Nothing)
            if held
                .is_some_and(|record| record.fence.0 == fence && matches!(record.state, State::Completed { .. })) =>
        {
            return (
                Edit::Put(draft(
                    fence,
                    State::Interrupted { policy: UNKNOWN, run: Fence(fence), cause: Cause::Unknown },
                )),
                Reply::Taken,
            );
        }
        _ => {}
    }
    (change, reply)
}

pub(crate) fn draft(fence: u64, state: State<Run>) -> Draft<Run> {
    let (fence, expiry) = (Some(Fence(fence)), Expiry::In(RETENTION));
    Draft {
        fence,
        expiry,
        owned: None,
        fingerprint: *FINGERPRINT,
        attempt: 1,
        origin: Origin::default(),
        state,
        times: None,
    }
}
