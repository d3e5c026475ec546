//! The effects of events.

use stateright::{Model, Property};

use crate::database::Put;
use crate::event::{Clock, Ending, Event};
use crate::fault::Fault;
use crate::process::{At, By, Effect, Job, Phase, Process};
use crate::promises;
use crate::rows::TOLD_BY_HAND;
use crate::sights::{Sight, Sights};
use crate::world::{Call, Policy, Protocol, Status, World};

/// The number of units by which a clock is set.
pub(crate) const STEP: i8 = 3;

impl World {
    fn land(&mut self, protocol: &Protocol, Call { key, fence, run }: Call) {
        let is_heard = fence >= self.truth(key).heard || protocol.policy != Policy::Ask;
        if is_heard {
            self.hears(key, fence);
            self.truth(key).effects.push(run);
        } else {
            self.saw(Sight::RefusedDownstream);
        }
        for desk in self.processes.iter_mut().map(|process| &mut process.desks[usize::from(key)]) {
            if let Phase::Running { run: own, effect, .. } = &mut desk.phase
                && *own == run
            {
                *effect = if is_heard { Effect::Done } else { Effect::Refused };
            }
        }
    }

    fn finish(&mut self, protocol: &Protocol, process: usize, key: u8, ending: Ending) {
        let Phase::Running { fence, run, effect, .. } = self.processes[process].desks[usize::from(key)].phase else {
            return;
        };
        let job = match ending {
            Ending::Outcome => Job::Complete { fence, run },
            Ending::NotStarted => Job::Release { fence },
            Ending::Unknown if protocol.policy_of(process) == Policy::Rerun => {
                // It may have had its effect.
                if effect != Effect::No {
                    self.allow(key);
                }
                Job::Release { fence }
            }
            Ending::Unknown => Job::Interrupt { fence, by: By::Itself },
        };
        self.take(protocol, At { process, key, is_orphan: false }, job);
    }

    fn answer(&mut self, protocol: &Protocol, process: usize, key: u8) {
        let Phase::Knows { fence, found } = self.processes[process].desks[usize::from(key)].phase else { return };
        let job = match found {
            Some(run) => Job::Resolve { fence, outcome: Some(run) },
            None => {
                self.saw(Sight::RunAgain);
                Job::Reclaim { fence, is_warranted: false, is_asked: true }
            }
        };
        self.take(protocol, At { process, key, is_orphan: false }, job);
    }

    /// A future is dropped. The store's own task completes the writes that are on their way.
    fn drop_future(&mut self, protocol: &Protocol, process: usize, key: u8) {
        self.budget.drops -= 1;
        let own = &mut self.processes[process];
        let phase = std::mem::take(&mut own.desks[usize::from(key)].phase);
        let at = At { process, key, is_orphan: true };
        match phase {
            Phase::Running { fence, .. } => self.take(protocol, at, Job::Interrupt { fence, by: By::Itself }),
            Phase::Writing(writing) => {
                own.orphans.push(writing);
                if let Job::Complete { fence, .. } = writing.job {
                    self.take(protocol, at, Job::Interrupt { fence, by: By::Itself });
                }
            }
            _ => {}
        }
    }

    /// The process was marked dead: handlers that others may run again are dropped.
    fn learn(&mut self, protocol: &Protocol, process: usize) {
        self.sessions[process].push(Status::Alive);
        self.processes[process].sessions += 1;
        if protocol.policy_of(process) == Policy::Refuse {
            return;
        }
        for key in 0..protocol.keys as u8 {
            if crate::world::is_running(&self.processes[process].desks[usize::from(key)].phase) {
                self.saw(Sight::HandlerDropped);
                self.finish(protocol, process, key, Ending::Unknown);
            }
        }
    }

    fn request(&mut self, protocol: &Protocol, process: usize, key: u8) {
        self.budget.requests -= 1;
        let at = At { process, key, is_orphan: false };
        let times = self.times(protocol, process);
        let latest = if protocol.fault == Some(Fault::CacheByTheEarliest) { times.earliest } else { times.latest };
        if let Some(copy) = self.processes[process].desks[usize::from(key)].cache.take() {
            if copy.expires > latest.as_millis() {
                self.processes[process].desks[usize::from(key)].cache = Some(copy);
                return self.told_from_memory(process, key, copy.run);
            }
            self.saw(Sight::NotTold);
        }
        if protocol.fault == Some(Fault::ClaimLeavesNoTrace) && self.read(protocol, at).is_none() {
            let fence = self.database.floor() + u64::from(self.processes[process].runs) + 1;
            self.processes[process].sent += 1;
            return self.begin(at, fence);
        }
        self.take(protocol, at, Job::Claim);
    }

    fn happen(&mut self, protocol: &Protocol, event: Event) -> Option<()> {
        match event {
            Event::Request(process, key) => self.request(protocol, process, key),
            Event::Arrive { by, number, again, lost } => {
                let arrived = self.network.iter().position(|put| (put.by, put.number) == (by, number))?;
                let put = self.network[arrived];
                self.budget.late -= u8::from(again);
                self.budget.lost -= u8::from(lost);
                if !again {
                    self.network.remove(arrived);
                }
                if self.arrive(protocol, &put, lost) {
                    // Its row is locked: it arrives again, and is answered only once.
                    if again || lost {
                        return None;
                    }
                    self.network.push(put);
                }
            }
            Event::Resend { by, number } => {
                let own = &self.processes[usize::from(by)];
                let put = own.writes().find(|put| put.number == number).copied()?;
                let (span, right) = (own.clocks.span(), own.clocks.right());
                self.network.push(Put { age: 0, span, right, ..put });
            }
            Event::Replicate => self.replicate(protocol),
            Event::Restart => {
                self.budget.restarts -= 1;
                self.restart();
            }
            Event::FailOver => {
                self.budget.failovers -= 1;
                self.fail_over(protocol);
            }
            Event::Act { process, key, slow } => {
                let Phase::Running { fence, run, effect, .. } =
                    &mut self.processes[process].desks[usize::from(key)].phase
                else {
                    return None;
                };
                *effect = Effect::Sent;
                let call = Call { key, fence: *fence, run: *run };
                if slow {
                    self.budget.slow -= 1;
                    self.calls.push(call);
                } else {
                    self.land(protocol, call);
                }
            }
            Event::Land(run) => {
                let call = self.calls.iter().position(|call| call.run == run)?;
                let call = self.calls.remove(call);
                self.land(protocol, call);
            }
            Event::Finish(process, key, ending) => self.finish(protocol, process, key, ending),
            Event::Look(process, key) => {
                let Phase::Asked { fence } = self.processes[process].desks[usize::from(key)].phase else { return None };
                // It is asked under the same key: an effect from before the operation began belongs to an earlier one,
                // and that of a run that was forgotten to a forgotten one.
                let takes_any = protocol.fault == Some(Fault::TakesAnEarlierEffect);
                let truth = &self.truths[usize::from(key)];
                let is_earlier = |run| truth.earlier == Some(run) || self.was_forgotten(key, run);
                let found = truth.effects.last().copied().filter(|run| takes_any || !is_earlier(*run));
                self.processes[process].desks[usize::from(key)].phase = Phase::Knows { fence, found };
            }
            Event::Answer(process, key) => self.answer(protocol, process, key),
            Event::Abandon(process, key) | Event::Drop(process, key) => self.drop_future(protocol, process, key),
            Event::Close(process) => {
                self.budget.closes -= 1;
                self.processes[process].is_closed = true;
                if protocol.fault == Some(Fault::DrainEndsLivingClaim) {
                    let session = self.session(process);
                    *self.status(session) = Status::Ended;
                }
            }
            Event::Crash(process) => {
                self.budget.crashes -= 1;
                self.processes[process].is_alive = false;
                for status in self.sessions[process].iter_mut().filter(|status| **status == Status::Alive) {
                    *status = Status::Lapsed;
                }
            }
            Event::Lapse(process) => {
                self.budget.lapses -= 1;
                let session = self.session(process);
                *self.status(session) = Status::Lapsed;
            }
            Event::Say(process) => {
                self.budget.renewals -= 1;
                self.make_renewal(protocol, process);
            }
            Event::Renew(process) => {
                self.make_renewal(protocol, process);
                self.renewed(process);
            }
            Event::Learn(process) => self.learn(protocol, process),
            Event::ByHand { key, release } => {
                self.budget.by_hand -= 1;
                let at = At { process: protocol.processes, key, is_orphan: false };
                let fence = self.read(protocol, at)?.fence;
                let outcome = (!release).then_some(TOLD_BY_HAND);
                self.take(protocol, at, Job::Resolve { fence, outcome });
            }
            Event::Forget(process, key) => {
                self.budget.forgets -= 1;
                let at = At { process, key, is_orphan: false };
                let fence = self.read(protocol, at)?.fence;
                self.take(protocol, at, Job::Forget { fence });
            }
            Event::Inspect(process, key) => {
                self.budget.inspects -= 1;
                self.inspect(protocol, process, key);
            }
            Event::Restore(process, key) => self.restore(protocol, process, key),
            Event::Tick => {
                self.budget.ticks -= 1;
                self.network.iter_mut().for_each(|put| put.age += 1);
                self.processes.iter_mut().for_each(Process::wait);
                self.database.pass();
            }
            Event::SetClock(Clock::Database, units) => {
                self.budget.clocks -= 1;
                self.database.ahead += units;
            }
            Event::SetClock(Clock::Wall(process), units) => {
                self.budget.walls -= 1;
                self.processes[process].clocks.wall += units;
            }
            Event::Open(process) => {
                self.budget.opened -= 1;
                let ahead = self.database.ahead;
                self.processes[process].clocks.open(ahead, protocol.fault);
            }
            Event::Sweep(process, key) => {
                self.swept(process, key);
                self.database.log(Some(key), None, None, false);
            }
        }
        Some(())
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for process in 0..self.processes {
            if world.processes[process].is_alive {
                world.events_of_process(self, process, events);
            }
        }
        let mut named = None;
        for put in &world.network {
            let (by, number) = (put.by, put.number);
            // Two copies are alike.
            if named.replace((by, number)) == Some((by, number)) {
                continue;
            }
            events.push(Event::Arrive { by, number, again: false, lost: false });
            if world.budget.late > 0 && put.key.is_some() {
                events.push(Event::Arrive { by, number, again: true, lost: false });
            }
            let is_awaited = || world.processes[usize::from(by)].writes().any(|own| own.is(put));
            if world.budget.lost > 0 && put.key.is_some() && is_awaited() {
                events.push(Event::Arrive { by, number, again: false, lost: true });
            }
        }
        for put in world.processes.iter().flat_map(|process| process.writes()) {
            let is_on_its_way = world.network.iter().any(|other| other.is(put)) || world.database.awaits(put);
            if !is_on_its_way {
                events.push(Event::Resend { by: put.by, number: put.number });
            }
        }
        events.extend(world.calls.iter().map(|call| Event::Land(call.run)));
        world.events_of_database(self, events);
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut world = world.clone();
        world.sights = Sights::default();
        world.happen(self, event)?;
        world.tidy(self);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}
