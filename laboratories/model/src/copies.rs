//! The copies of completed records in the memory of processes. They are put back after a failover, as in
//! `protocol/restore.rs`, and dropped once their process learns that the record was forgotten.

use tower_idempotency::internals::Reply;

use crate::database::{Put, Replication, Taken};
use crate::fault::Fault;
use crate::process::{At, Cached, Job};
use crate::rows::{Kept, Row, Run};
use crate::sights::Sight;
use crate::truth::Forgotten;
use crate::world::{Protocol, World};

impl World {
    /// Another server answers: each process is to compare its copies with the rows.
    pub(crate) fn replaced(&mut self) {
        for desk in self.processes.iter_mut().flat_map(|process| &mut process.desks) {
            desk.restores = desk.cache.is_some();
        }
    }

    /// A process completes the operation once more if the row of its copy is lost.
    pub(crate) fn restore(&mut self, protocol: &Protocol, process: usize, key: u8) {
        let latest = self.times(protocol, process).latest.as_millis();
        let at = At { process, key, is_orphan: true };
        let desk = &mut self.processes[process].desks[usize::from(key)];
        desk.restores = false;
        let Some(Cached { run, fence, expires }) = desk.cache.filter(|copy| copy.expires > latest) else { return };
        if protocol.fault != Some(Fault::TombstoneTakenForARun) && self.drop_forgotten(protocol, at) {
            return;
        }
        self.take(protocol, at, Job::Restore { fence, run, left: expires - latest });
        // The tombstone was there already.
        if self.sights.has(Sight::DisputedByARace) {
            self.saw(Sight::ForgottenDisputed);
        }
    }

    /// An operator asks a process about an operation that was forgotten, and of which it has a copy.
    pub(crate) fn inspect(&mut self, protocol: &Protocol, process: usize, key: u8) {
        if !self.drop_forgotten(protocol, At { process, key, is_orphan: false }) {
            self.saw(Sight::AskedInVain);
        }
    }

    /// Drops the copy if the row is its tombstone, which has its fence. Returns whether it is.
    fn drop_forgotten(&mut self, protocol: &Protocol, at: At) -> bool {
        let row = self.read(protocol, at).filter(|row| row.kept == Kept::Released);
        let takes_any = protocol.fault == Some(Fault::LaterTombstoneTaken);
        let cache = &mut self.processes[at.process].desks[usize::from(at.key)].cache;
        let is_tombstone =
            |copy: &Cached| row.is_some_and(|row| copy.fence == row.fence || copy.fence < row.fence && takes_any);
        let Some(Cached { run, .. }) = cache.take_if(|copy| is_tombstone(copy)) else { return false };
        if self.was_forgotten(at.key, run) {
            self.saw(Sight::CopyDropped);
            self.learned(at, run);
        } else {
            self.saw(Sight::LossUnseen);
        }
        true
    }

    /// A process tells the outcome of its copy.
    pub(crate) fn told_from_memory(&mut self, process: usize, key: u8, run: Run) {
        self.saw(Sight::ToldFromMemory);
        if self.was_forgotten(key, run) {
            let is_learned = self.processes[process].desks[usize::from(key)].learned == Some(run);
            self.saw(if is_learned { Sight::ForgottenTold } else { Sight::CopyTold });
        } else if !self.is_behind(process) {
            self.heard_by_client(key, run);
        }
    }

    /// A process learns that the record of this run was forgotten.
    pub(crate) fn learned(&mut self, at: At, run: Run) {
        self.processes[at.process].desks[usize::from(at.key)].learned = Some(run);
    }

    /// Notes what a process remembers once its row needed no change: the outcome that it has found, if any.
    pub(crate) fn compared(&mut self, protocol: &Protocol, at: At, job: Job, reply: Reply, row: Option<Row>) {
        if let (Reply::Refused, Job::Restore { fence, run, .. }) = (reply, job) {
            match row {
                _ if !self.was_forgotten(at.key, run) => self.disputed(at.key, fence),
                Some(row) if row.kept == Kept::Released && row.fence == fence => self.saw(Sight::DisputedByARace),
                _ => self.saw(Sight::DisputedByALaterRun),
            }
        }
        let Some(row) = row else { return };
        // It waits for a barrier.
        let is_durable = self.database.durable(at.key).is_some_and(|durable| durable.token == row.token);
        let is_durable = is_durable || protocol.replication == Replication::Behind;
        let desk = &mut self.processes[at.process].desks[usize::from(at.key)];
        match row.kept {
            Kept::Completed(run) if is_durable => desk.cache = Some(Cached::of(run, &row)),
            Kept::Completed(_) => desk.restores = at.is_orphan,
            // The end of the operation's new run counts.
            Kept::Running | Kept::Interrupted { .. } if at.is_orphan => desk.cache = None,
            _ => {}
        }
    }

    /// The truth: an operator has the record of this run deleted.
    pub(crate) fn deleted(&mut self, key: u8, fence: u64, run: Run) {
        self.saw(Sight::Forgotten);
        self.begins_anew(key);
        let server = self.database.server;
        let truth = self.truth(key);
        truth.kept_until = None;
        // A run that did not get the answer sends its end once more.
        truth.taken.push(fence);
        truth.forgotten.push(Forgotten { fence, run, server });
    }

    /// The outcome of a copy is written.
    pub(crate) fn restored(&mut self, key: u8, run: Run) {
        let truth = &self.truths[usize::from(key)];
        let forgotten = truth.forgotten.iter().find(|forgotten| forgotten.run == run);
        self.saw(match forgotten {
            None => Sight::Restored,
            Some(forgotten) if forgotten.fence < truth.last_granted => Sight::RestoredAfterALaterRun,
            Some(_) => Sight::ForgottenRestored,
        });
    }

    /// The truth: a failover has lost the tombstones that were not durable. Their records count as not forgotten.
    pub(crate) fn tombstones_lost(&mut self) {
        for put in self.database.behind.iter().filter_map(|entry| entry.put).filter(Put::forgets) {
            let (Some(key), Some(Taken { fence, .. })) = (put.key, put.takes) else { continue };
            // An earlier copy of the write may be durable.
            let is_later = |row: &Row| row.fence > fence || row.fence == fence && row.kept == Kept::Released;
            if !self.database.durable(key).is_some_and(is_later) {
                self.truths[usize::from(key)].forgotten.retain(|forgotten| forgotten.fence != fence);
            }
        }
        for process in &mut self.processes {
            for (desk, truth) in process.desks.iter_mut().zip(&self.truths) {
                desk.learned = desk.learned.filter(|run| truth.forgotten.iter().any(|forgotten| forgotten.run == *run));
            }
        }
    }

    /// The truth: returns whether the record of this run was forgotten.
    pub(crate) fn was_forgotten(&self, key: u8, run: Run) -> bool {
        self.truths[usize::from(key)].forgotten.iter().any(|forgotten| forgotten.run == run)
    }

    /// Returns whether a process has a copy of a record that was forgotten.
    pub(crate) fn has_copy(&self, process: usize, key: u8) -> bool {
        let cache = self.processes[process].desks[usize::from(key)].cache;
        cache.is_some_and(|copy| self.was_forgotten(key, copy.run))
    }
}
