//! The events that may happen in a world.

use crate::event::{Clock, Ending, Event};
use crate::events::STEP;
use crate::fault::Fault;
use crate::process::{Effect, Job, Phase, Writing};
use crate::rows::{Kept, Row};
use crate::world::{Protocol, Status, World};

impl World {
    pub(crate) fn events_of_process(&self, protocol: &Protocol, process: usize, events: &mut Vec<Event>) {
        let budget = self.budget;
        let own = &self.processes[process];
        // Processes are alike: the first of those that did nothing yet is the next.
        let is_next = process == 0 || self.processes[process - 1].sent > 0;
        for (key, desk) in (0_u8..).zip(&own.desks) {
            match desk.phase {
                Phase::Idle if budget.requests > 0 && is_next && !own.is_closed => {
                    events.push(Event::Request(process, key));
                }
                Phase::Idle | Phase::Behind { .. } => {}
                Phase::Running { effect, .. } => {
                    if effect == Effect::No {
                        events.push(Event::Act { process, key, slow: false });
                        if budget.slow > 0 {
                            events.push(Event::Act { process, key, slow: true });
                        }
                        events.push(Event::Finish(process, key, Ending::NotStarted));
                    }
                    if effect == Effect::Done {
                        events.push(Event::Finish(process, key, Ending::Outcome));
                    }
                    events.push(Event::Finish(process, key, Ending::Unknown));
                    if budget.drops > 0 {
                        events.push(Event::Drop(process, key));
                    }
                }
                Phase::Asked { .. } => events.push(Event::Look(process, key)),
                Phase::Knows { .. } => events.push(Event::Answer(process, key)),
                Phase::Writing(Writing { job, .. }) if budget.drops > 0 => match job {
                    Job::Claim | Job::Reclaim { .. } | Job::Ask { .. } => events.push(Event::Abandon(process, key)),
                    Job::Complete { .. } => events.push(Event::Drop(process, key)),
                    _ => {}
                },
                Phase::Writing(_) => {}
            }
            if desk.restores && self.may_show(protocol, process, key) {
                events.push(Event::Restore(process, key));
            }
            if budget.inspects > 0 && self.has_copy(process, key) && self.may_show(protocol, process, key) {
                events.push(Event::Inspect(process, key));
            }
        }
        let status = self.status_of(self.session(process));
        if !own.is_idle() {
            if budget.crashes > 0 {
                events.push(Event::Crash(process));
            }
            if budget.lapses > 0 && status == Status::Alive {
                events.push(Event::Lapse(process));
            }
            if budget.closes > 0 && !own.is_closed {
                events.push(Event::Close(process));
            }
        }
        match status {
            Status::Lapsed => events.push(Event::Renew(process)),
            Status::Dead => events.push(Event::Learn(process)),
            Status::Alive if own.renewal.is_some() => events.push(Event::Renew(process)),
            Status::Alive if budget.renewals > 0 && self.renewal_matters(protocol, process) => {
                events.push(Event::Say(process));
            }
            Status::Alive | Status::Ended => {}
        }
    }

    pub(crate) fn events_of_database(&self, protocol: &Protocol, events: &mut Vec<Event>) {
        let budget = self.budget;
        if !self.database.behind.is_empty() {
            events.push(Event::Replicate);
        }
        // With nothing to lose, they change nothing, unless a process has a copy of what was forgotten.
        let mut keys = 0..protocol.keys as u8;
        let is_copied = keys.any(|key| (0..protocol.processes).any(|process| self.has_copy(process, key)));
        if budget.restarts > 0 && !self.database.behind.is_empty() {
            events.push(Event::Restart);
        }
        if budget.failovers > 0 && (!self.database.behind.is_empty() || is_copied) {
            events.push(Event::FailOver);
        }
        for key in 0..protocol.keys as u8 {
            let may_sweep = |process: &usize| {
                let earliest = self.times(protocol, *process).earliest;
                let row = self.database.there(key).filter(|_| self.processes[*process].is_alive);
                row.is_some_and(|row| match protocol.fault {
                    Some(Fault::SweepWithoutGrace) => row.is_absent(earliest),
                    Some(Fault::SweepByTheDatabase) => row.is_past_grace(self.database.now()),
                    _ => row.is_past_grace(earliest),
                })
            };
            events.extend((0..protocol.processes).find(may_sweep).map(|process| Event::Sweep(process, key)));
            let is_listed = |key| {
                self.may_show(protocol, protocol.processes, key) && self.seen_from_outside(protocol, key).is_some()
            };
            if budget.by_hand > 0 && is_listed(key) {
                events.extend([false, true].map(|release| Event::ByHand { key, release }));
            }
            let is_done = |row: &Row| matches!(row.kept, Kept::Completed(_));
            if budget.forgets > 0 && self.database.there(key).is_some_and(is_done) {
                let is_free = |process: &usize| {
                    let desk = &self.processes[*process].desks[usize::from(key)];
                    // A process without a copy forgets as the operator's does.
                    let is_meant = desk.cache.is_some() || *process == protocol.processes;
                    desk.phase == Phase::Idle && is_meant && self.may_show(protocol, *process, key)
                };
                events.extend((0..=protocol.processes).filter(is_free).map(|process| Event::Forget(process, key)));
            }
        }
        // No write is late by more than five minutes.
        if budget.ticks > 0 && self.network.iter().all(|put| put.age == 0) && self.database.behind.is_empty() {
            events.push(Event::Tick);
        }
        // Each clock is right, or ahead, or behind, by one step.
        let mut set = |clock, shows: i8| {
            let by = [STEP, -STEP].into_iter().filter(|by| (shows + by).abs() <= STEP);
            events.extend(by.map(|by| Event::SetClock(clock, by)));
        };
        if budget.clocks > 0 {
            set(Clock::Database, self.database.ahead);
        }
        if budget.walls > 0 {
            let alive = (0..protocol.processes).filter(|process| self.processes[*process].is_alive);
            alive.for_each(|process| set(Clock::Wall(process), self.processes[process].clocks.wall));
        }
        if budget.opened > 0 {
            let is_new = |process: &usize| self.processes[*process].sent == 0 && self.processes[*process].is_alive;
            events.extend((0..protocol.processes).filter(is_new).map(Event::Open));
        }
    }
}
