//! The changes of the database: writes that arrive, its standby, and rows that are swept.

use crate::database::{Done, Entry, Put, Replication};
use crate::fault::Fault;
use crate::rows::{BOUND, Kept, Row, Session, UNKNOWN};
use crate::sights::Sight;
use crate::world::{Protocol, Status, World};

impl World {
    /// A write arrives. Returns whether it has to come again, as its row is locked.
    pub(crate) fn arrive(&mut self, protocol: &Protocol, put: &Put, is_lost: bool) -> bool {
        let expired = put.key.and_then(|key| self.database.there(key).copied());
        let moment = self.moment(protocol, put.span, put.age);
        if expired.is_some_and(|row| row.is_absent(moment.now) && !row.is_absent(moment.earliest)) {
            self.saw(Sight::OutlastsAWrongClock);
        }
        match self.database.put(put, moment, protocol.fault) {
            Done::Busy => {
                self.saw(Sight::Busy);
                return true;
            }
            Done::No => {
                let is_awaited = self.processes[usize::from(put.by)].writes().any(|own| own.is(put));
                if !is_awaited && put.write.kept == Kept::Running && put.write.expect.is_none() {
                    self.saw(Sight::LateClaimRefused);
                }
            }
            Done::Known => {}
            Done::Yes { before, now, is_again } => {
                if is_again {
                    self.saw(Sight::ResendRecognised);
                }
                if before.is_none() {
                    self.written_over_nothing(put, expired);
                }
                let deletes = protocol.fault == Some(Fault::ReleaseDeletes) && put.write.kept == Kept::Released;
                let row = if deletes { None } else { Some(now) };
                self.database.log(put.key, row, Some(*put), !is_lost);
                if matches!(protocol.replication, Replication::Awaited | Replication::Applied) {
                    return false;
                }
                if protocol.replication == Replication::InStep {
                    self.database.replicate();
                }
                self.shown(put, before, row);
            }
        }
        if !is_lost {
            self.answer_arrived(protocol, put);
        }
        false
    }

    /// Answers a call with the present row, at once or when the row is durable.
    fn answer_arrived(&mut self, protocol: &Protocol, put: &Put) {
        let by = usize::from(put.by);
        match put.key {
            Some(key) if !self.may_show(protocol, by, key) => {
                // An answer that no process expects has no effect.
                if self.processes[by].writes().any(|own| own.is(put)) {
                    self.saw(Sight::WaitsUntilDurable);
                    self.database.wait(put, key);
                }
            }
            key => {
                let row = key.and_then(|key| self.database.there(key).copied());
                self.answered(protocol, put, row);
            }
        }
    }

    /// Returns whether a call of this process shows the row of `key` at once.
    pub(crate) fn may_show(&self, protocol: &Protocol, process: usize, key: u8) -> bool {
        let is_behind_barrier = || self.processes[process].barrier == self.database.server;
        match protocol.fault {
            Some(Fault::DirtyReads) => true,
            Some(Fault::OneBarrierAStart) if is_behind_barrier() => true,
            _ => self.database.may_show(key),
        }
    }

    /// The standby gets the next entry of those that were written.
    pub(crate) fn replicate(&mut self, protocol: &Protocol) {
        let before = self.database.behind.first().and_then(|entry| entry.key).and_then(|key| self.read_now(key));
        let Some(Entry { row, is_seen, put: Some(put), is_awaited, .. }) = self.database.replicate() else { return };
        if !is_seen {
            self.shown(&put, before, row);
        }
        if is_awaited && matches!(protocol.replication, Replication::Awaited | Replication::Applied) {
            self.answered(protocol, &put, row);
        }
    }

    pub(crate) fn restart(&mut self) {
        let mut before: Vec<_> = (0..self.truths.len() as u8).map(|key| self.read_now(key)).collect();
        for Entry { key, row, put, .. } in self.database.restart() {
            if let (Some(key), Some(put)) = (key, put) {
                self.saw(Sight::ShownByRestart);
                self.shown(&put, before[usize::from(key)], row);
                before[usize::from(key)] = row;
            }
        }
        self.replaced();
    }

    pub(crate) fn fail_over(&mut self, protocol: &Protocol) {
        for key in 0..self.truths.len() as u8 {
            let (there, durable) = (self.database.there(key).copied(), self.database.durable(key).copied());
            let Some(there) = there.filter(|row| durable.is_none_or(|durable| durable.token != row.token)) else {
                continue;
            };
            let is_shown = self.database.shown(key) != durable.as_ref();
            match protocol.replication {
                Replication::Applied if !is_shown => self.saw(Sight::LostBeforeShown),
                // A row that a restart showed and that was never durable was never answered.
                Replication::Awaited | Replication::Applied => self.truth(key).has_vanished = true,
                Replication::InStep | Replication::Behind => {
                    self.saw(if there.kept == Kept::Running { Sight::LostClaim } else { Sight::LostAnswer });
                    self.truth(key).is_lost = true;
                    self.truth(key).kept_until = None;
                    self.begins_anew(key);
                }
            }
        }
        self.tombstones_lost();
        self.database.fail_over();
        self.replaced();
    }

    /// Judges a write that calls may show from now on, for the runs of its operation. `before` is the row before it.
    pub(crate) fn shown(&mut self, put: &Put, before: Option<Row>, row: Option<Row>) {
        self.stamped(put, before, row);
        if let (Some(key), Some(run)) = (put.key, put.restores()) {
            self.restored(key, run);
        }
        let (Some(key), Some(before)) = (put.key, before) else {
            if put.ends.is_some() && matches!(put.write.kept, Kept::Completed(_)) {
                self.saw(Sight::CompletedOverAbsent);
            }
            return;
        };
        if row.is_some_and(|row| row.token == before.token) {
            return;
        }
        if row.is_some_and(|row| row.fence < before.fence) {
            self.saw(Sight::FenceShrank);
        }
        match before.kept {
            Kept::Completed(run) if put.forgets() => self.deleted(key, before.fence, run),
            Kept::Completed(_) => self.saw(Sight::CompletedChanged),
            _ => {}
        }
        // A claim that a failover has lost, and that arrived once more, has another fence.
        let is_own = self.truth(key).is_lost && before.session.is_some_and(|session| session.process == put.by);
        // The tombstone of an older run shows that the claim was lost.
        let is_older_tombstone = before.kept == Kept::Released && Some(before.fence) < put.ends;
        if put.ends.is_some() && before.run() != put.ends && !is_own && !is_older_tombstone {
            self.saw(Sight::EndedAnothers);
        }
        let is_dead = before.session.is_none_or(|session| !self.is_alive(session));
        if put.ends.is_some() && matches!(put.write.kept, Kept::Completed(_)) {
            let is_late = is_dead || matches!(before.kept, Kept::Interrupted { .. });
            if is_late {
                self.saw(Sight::LateCompletion);
            }
        }
        let asks = matches!(put.write.kept, Kept::Interrupted { .. });
        if let (Some(takes), Some(run)) = (put.takes, before.run()) {
            let is_believed = |session: &Session| matches!(self.status_of(*session), Status::Alive | Status::Lapsed);
            if let Some(session) = before.session.filter(is_believed).filter(|_| before.kept == Kept::Running)
                && (self.has_run(session, key, before.fence) || !takes.is_bound_over)
            {
                self.saw(Sight::TakenAlive);
            }
            if !asks {
                self.truth(key).taken.push(run);
            }
            if put.write.kept == Kept::Released {
                self.begins_anew(key);
            }
        }
    }

    /// The row that calls may show, by the database's own clock.
    pub(crate) fn read_now(&self, key: u8) -> Option<Row> {
        self.database.shown(key).copied().filter(|row| !row.is_absent(self.database.now()))
    }

    /// A claim, or the end of a run whose claim has expired, is written where no row counts.
    pub(crate) fn written_over_nothing(&mut self, put: &Put, expired: Option<Row>) {
        let Some(key) = put.key else { return };
        let is_claim = put.write.kept == Kept::Running;
        if let Some(row) = expired.filter(|_| is_claim) {
            self.saw(Sight::ClaimedOverExpired);
            // A run that did not get the answer sends its end once more.
            if matches!(row.kept, Kept::Completed(_)) {
                self.truth(key).taken.push(row.fence);
            }
        }
        // A released row outlasts all copies of its claim.
        let is_awaited = self.processes[usize::from(put.by)].writes().any(|own| own.is(put));
        let was_kept = expired.map_or(self.truth(key).kept_until.is_some(), |row| row.kept != Kept::Released);
        self.truth(key).has_vanished |= was_kept && is_claim && !is_awaited;
        let time = self.database.time();
        let judged = put.right.with(self.database.ahead, put.age).may_judge_by(time);
        let Some(until) = self.truth(key).kept_until.filter(|until| *until <= judged) else { return };
        // A retry after its retention is a new operation.
        self.truth(key).kept_until = None;
        if until > time {
            self.truth(key).is_premature = true;
            self.saw(Sight::WrongTogether);
        }
        let truth = self.truth(key);
        truth.told = None;
        if is_claim {
            truth.earlier = expired.and_then(|row| if let Kept::Completed(run) = row.kept { Some(run) } else { None });
            self.allow(key);
        }
    }

    /// Notes how long the row that is written has to be kept, by the true time.
    pub(crate) fn stamped(&mut self, put: &Put, before: Option<Row>, row: Option<Row>) {
        let (Some(key), Some(row)) = (put.key, row) else { return };
        let stamped = put.right.with(self.database.ahead, put.age).may_stamp_by(self.database.time());
        let truth = self.truth(key);
        let is_again = before.is_some_and(|before| before.token == row.token);
        // The first copy's bound counts: a failover may leave that one.
        if row.kept == Kept::Running && !is_again {
            truth.bound = stamped + BOUND.as_millis() as u64;
            truth.policy = Some(row.policy).filter(|policy| *policy != UNKNOWN);
        }
        if !is_again && matches!(row.kept, Kept::Completed(_)) {
            truth.kept_until = put.write.expires.map(|kept| stamped + kept);
        }
    }

    /// A process deletes a row that is past its grace. If all its clocks are wrong together, nothing is promised.
    pub(crate) fn swept(&mut self, process: usize, key: u8) {
        self.saw(Sight::Swept);
        let judged = self.may_judge_by(process);
        if self.truth(key).kept_until.is_some_and(|until| until > self.database.time() && until <= judged) {
            self.saw(Sight::WrongTogether);
            self.truth(key).is_premature = true;
            self.truth(key).kept_until = Some(0);
        }
    }
}
