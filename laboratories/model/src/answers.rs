//! The steps of a process after the answer to its write.

use crate::database::Put;
use crate::fault::Fault;
use crate::process::{At, By, Cached, Job, Phase, Read, Writing};
use crate::rows::{Kept, READ, Row, Run, TIMEOUT, Write};
use crate::sights::Sight;
use crate::step::Known;
use crate::world::{Protocol, World};
use tower_idempotency::internals::{Record, Reply, State};

impl World {
    /// The answer to a write: the row after it.
    pub(crate) fn answered(&mut self, protocol: &Protocol, put: &Put, row: Option<Row>) {
        let process = &mut self.processes[usize::from(put.by)];
        let is_it = |writing: &Writing| writing.put.is(put);
        let orphan = process.orphans.iter().position(is_it);
        let (writing, key) = match orphan {
            Some(orphan) => (process.orphans.remove(orphan), put.key),
            None => match process.desks.iter().position(|desk| match &desk.phase {
                Phase::Writing(writing) => writing.put.is(put),
                Phase::Behind { put: barrier, .. } => barrier.is(put),
                _ => false,
            }) {
                None => return,
                Some(desk) => match std::mem::take(&mut process.desks[desk].phase) {
                    Phase::Writing(writing) => (writing, put.key),
                    Phase::Behind { server, told, .. } => {
                        let at = At { process: usize::from(put.by), key: desk as u8, is_orphan: false };
                        return self.behind_barrier(protocol, at, server, told);
                    }
                    _ => return,
                },
            },
        };
        let Some(key) = key else { return };
        let at = At { process: usize::from(put.by), key, is_orphan: orphan.is_some() };
        let earliest = self.times(protocol, at.process).earliest;
        let row = row.filter(|row| !row.is_absent(earliest));
        let process = &mut self.processes[at.process];
        let released = protocol.fault == Some(Fault::ReleaseDeletes) && put.write.kept == Kept::Released;
        process.floor = process.floor.max(row.map_or(0, |row| row.fence));
        match row {
            Some(row) if row.token == put.write.token => {
                process.barrier = self.database.server;
                self.done(protocol, at, writing, row);
            }
            None if released => self.end(protocol, at, writing.job, Reply::Taken, None),
            row => {
                self.let_go(at, row.as_ref());
                let job = match writing.job {
                    // The row may be another one than that for which the process wanted to read.
                    Job::Reclaim { fence, is_asked, .. } if put.is_read() => {
                        Job::Reclaim { fence, is_warranted: self.is_over(key, row.as_ref(), fence), is_asked }
                    }
                    job => job,
                };
                self.step(protocol, at, job, Known::Read(row));
            }
        }
    }

    /// Remembers the row that was written, now the current one, and gives the job its result.
    pub(crate) fn done(&mut self, protocol: &Protocol, at: At, Writing { put, job }: Writing, row: Row) {
        let process = &mut self.processes[at.process];
        let desk = &mut process.desks[usize::from(at.key)];
        match row.kept {
            Kept::Completed(run) => desk.cache = Some(Cached::of(run, &row)),
            // It may have been forgotten.
            Kept::Released if protocol.fault != Some(Fault::ForgetKeepsTheCopy) => desk.cache = None,
            _ => {}
        }
        match row.session {
            Some(_) => desk.held = Some(row),
            None => self.let_go(at, Some(&row)),
        }
        if job.is_claim() {
            let is_of_session = row.session == Some(self.session(at.process));
            let is_unwanted = at.is_orphan && protocol.fault != Some(Fault::UnwantedClaimKept);
            if is_unwanted || !is_of_session || put.age >= TIMEOUT {
                self.saw(Sight::ClaimTakenBack);
                let job = match job {
                    Job::Claim => Job::Release { fence: row.fence },
                    _ => Job::Interrupt { fence: row.fence, by: By::NoProcess },
                };
                return self.take(protocol, at, job);
            }
            if at.is_orphan {
                return;
            }
        }
        let record = self.present(protocol, at.process, &row);
        assert!(put.key == Some(at.key));
        self.end(protocol, at, job, Reply::Taken, record);
    }

    /// Answers a step that changes nothing.
    pub(crate) fn unchanged(
        &mut self,
        protocol: &Protocol,
        at: At,
        job: Job,
        known: Known,
        reply: Reply,
        record: Option<Record<Run>>,
    ) {
        self.let_go(at, known.row().as_ref());
        if let (Reply::Refused, Job::Complete { fence, .. }) = (reply, job) {
            self.disputed(at.key, fence);
        }
        if matches!(job, Job::Restore { .. } | Job::Forget { .. }) {
            self.compared(protocol, at, job, reply, known.row());
            return self.end(protocol, at, job, reply, record);
        }
        let found = match (known, record.as_ref().map(|record| &record.state)) {
            (Known::Read(Some(row)), Some(State::Completed { outcome })) => Some(Cached::of(*outcome, &row)),
            _ => None,
        };
        let Some(copy) = found.filter(|_| !at.is_orphan) else {
            return self.end(protocol, at, job, reply, record);
        };
        let told = match (job, reply) {
            (Job::Complete { run, .. }, Reply::Taken) => Read::Own(Cached { run, ..copy }),
            (Job::Claim | Job::Reclaim { .. } | Job::Resolve { .. }, _) if at.process < protocol.processes => {
                Read::Replay(copy)
            }
            // The client gets `in-flight` or `outcome-unknown`.
            _ => return self.end(protocol, at, job, reply, record),
        };
        let server = self.database.server;
        let process = &mut self.processes[at.process];
        let has_none = matches!(protocol.fault, Some(Fault::ReplayWithoutBarrier | Fault::DirtyReads));
        if process.barrier == server || has_none {
            return self.tell(protocol, at, told);
        }
        self.saw(Sight::BarrierNeeded);
        let process = &mut self.processes[at.process];
        process.sent += 1;
        let write = Write { expect: None, ..READ };
        let (by, number, key) = (at.process as u8, process.sent, None);
        let (span, right) = (process.clocks.span(), process.clocks.right());
        let put = Put { by, number, key, write, ends: None, takes: None, age: 0, span, right };
        process.desks[usize::from(at.key)].phase = Phase::Behind { put, server, told };
        self.network.push(put);
    }

    /// The process is behind the barrier of the server that answers now.
    pub(crate) fn behind_barrier(&mut self, protocol: &Protocol, at: At, server: u8, told: Read) {
        self.processes[at.process].barrier = self.database.server;
        match told {
            _ if server == self.database.server => self.tell(protocol, at, told),
            // Another server answered: the client gets `in-flight`, and the end of a run is recorded again.
            Read::Replay(_) => {}
            Read::Own(Cached { fence, run, .. }) => self.take(protocol, at, Job::Complete { fence, run }),
        }
    }

    pub(crate) fn tell(&mut self, protocol: &Protocol, at: At, told: Read) {
        let (Read::Replay(copy) | Read::Own(copy)) = told;
        let desk = &mut self.processes[at.process].desks[usize::from(at.key)];
        (desk.cache, desk.phase) = (Some(copy), Phase::Idle);
        self.told(protocol, at.key, copy.run);
    }
}
