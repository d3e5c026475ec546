//! The statement of a session on the runs of its process, as in `session`: the time before which all
//! bounds are over without a run. Other processes rely on that alone. A renewal carries the time that was right when it
//! was made, and may arrive late.

use std::ops::Range;

use crate::fault::Fault;
use crate::process::{At, Desk, Phase};
use crate::rows::{Kept, Row, Session};
use crate::sights::Sight;
use crate::world::{Protocol, Status, World};

impl World {
    /// The time before which the bounds of all runs of this process are over, while none of them, and no end of one, is
    /// under way. A run that was asked about and not answered, or that ended without a record, is forgotten once its
    /// bound is over.
    fn over_before(&self, protocol: &Protocol, process: usize) -> u64 {
        let earliest = self.times(protocol, process).earliest.as_millis();
        let own = &self.processes[process];
        let ends = |key| own.orphans.iter().any(|writing| writing.put.key == Some(key) && writing.put.ends.is_some());
        let ends = |key| protocol.fault != Some(Fault::ForgetsWhatIsDropped) && ends(key);
        let desks = (0_u8..).zip(&own.desks).filter(|_| protocol.fault != Some(Fault::SaysWithoutItsRuns));
        let is_kept = |key, desk: &Desk, row: &Row| desk.phase != Phase::Idle || row.until > earliest || ends(key);
        let held = desks.filter_map(|(key, desk)| desk.held.filter(|row| is_kept(key, desk, row)));
        // A failover may lose the copy of the claim that was answered, and leave the one before, whose bound is
        // earlier.
        held.map(|row| row.until.min(row.began)).fold(earliest, u64::min)
    }

    /// Returns whether the bound of this row is over for a process: the session that the row names has stated that.
    pub(crate) fn has_ended(&self, protocol: &Protocol, process: usize, row: &Row) -> bool {
        let Some(session) = row.session else { return false };
        if protocol.fault == Some(Fault::BoundJudgedByTheObserver) {
            return row.until <= self.times(protocol, process).earliest.as_millis();
        }
        let owner = &self.processes[usize::from(session.process)];
        session.number == owner.sessions && row.until < owner.over_before
    }

    /// Forgets the run of this process whose row is this one now, or that was before it. A later run of the key stays.
    pub(crate) fn let_go(&mut self, at: At, row: Option<&Row>) {
        let held = &mut self.processes[at.process].desks[usize::from(at.key)].held;
        let is_own = |session: Session| usize::from(session.process) == at.process;
        let (Some(row), Some(before)) = (row, *held) else { return };
        if before.fence <= row.fence {
            let is_own_run = row.kept == Kept::Running && row.session.is_some_and(is_own);
            // The row may have another token.
            *held = Some(*row).filter(|_| is_own_run);
        }
    }

    /// Returns whether a renewal would now make a difference for a current row.
    pub(crate) fn renewal_matters(&self, protocol: &Protocol, process: usize) -> bool {
        let over_before = self.over_before(protocol, process);
        self.says_something(process, self.processes[process].over_before..over_before)
    }

    fn says_something(&self, process: usize, times: Range<u64>) -> bool {
        let session = self.session(process);
        self.database.has(|row| row.session == Some(session) && times.contains(&row.until))
    }

    /// Removes a session's statement that concerns no row, so that it makes no other state. A later row has a later
    /// bound.
    pub(crate) fn tidy_session(&mut self, process: usize) {
        if !self.says_something(process, 0..self.processes[process].over_before) {
            self.processes[process].over_before = 0;
        }
        let renewal = self.processes[process].renewal;
        self.processes[process].renewal = renewal.filter(|over_before| self.says_something(process, 0..*over_before));
    }

    /// A renewal is made, unless one is on its way.
    pub(crate) fn make_renewal(&mut self, protocol: &Protocol, process: usize) {
        let over_before = self.over_before(protocol, process);
        self.processes[process].renewal.get_or_insert(over_before);
    }

    /// A renewal arrives, if its session was not declared dead.
    pub(crate) fn renewed(&mut self, process: usize) {
        let session = self.session(process);
        let Some(over_before) = self.processes[process].renewal.take() else { return };
        match self.status_of(session) {
            Status::Alive => {}
            Status::Lapsed => {
                self.saw(Sight::RenewedLate);
                *self.status(session) = Status::Alive;
            }
            Status::Dead | Status::Ended => return,
        }
        self.processes[process].over_before = over_before;
        for key in 0..self.truths.len() as u8 {
            let row = self.database.there(key).filter(|row| row.session == Some(session) && row.until < over_before);
            if row.is_some_and(|row| row.kept == Kept::Running && !self.has_run(session, key, row.fence)) {
                self.saw(Sight::ClaimEndedByItsSession);
            }
        }
    }
}
