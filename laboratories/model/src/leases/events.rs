//! The events that may happen, and what they change.

use super::observer::Observer;
use super::owner::Owner;
use super::{Accidents, Database, Glimpse, LeaseEvent, Leases, Moment, Occasion, Rates, Row};
use stateright::{Model, Property};

impl Model for Leases {
    type State = Moment;
    type Action = LeaseEvent;

    fn init_states(&self) -> Vec<Moment> {
        let row = Row { token: 0, until: self.lease };
        let database = Database {
            row,
            standby: row,
            is_followed: true,
            server: 0,
            is_away: false,
            refuses: false,
            is_years_ahead: false,
            is_declared_dead: false,
        };
        let phases = if self.rates == Rates::Equal { 0..1 } else { 0..5 };
        let moment = |phase| Moment {
            database: database.clone(),
            owner: Owner::new(self),
            observer: Observer::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            accidents: self.accidents,
            phase,
            is_taken: false,
            seen: None,
        };
        phases.map(moment).collect()
    }

    fn actions(&self, moment: &Moment, events: &mut Vec<LeaseEvent>) {
        use LeaseEvent as Event;
        let Moment { owner, observer, accidents, database, .. } = moment;
        let mut may = |is_possible: bool, event| events.extend(is_possible.then_some(event));
        let is_awake = !owner.stands_still;
        may(moment.is_taken && owner.may_work(self), Event::Work);
        may(owner.must_drop(self), Event::DropHandler);
        may(!is_awake, Event::StandStill(false));
        if moment.is_taken {
            return;
        }
        let &Database { is_away, refuses, is_years_ahead, is_followed, .. } = database;
        may(!moment.is_something_due(self), Event::TimePasses);
        may(owner.must_send() && !moment.is_answer_due(), Event::Send);
        for (number, call) in moment.calls.iter().enumerate() {
            may(!is_away && !refuses, Event::CarryOut(number));
            may(accidents.lost > 0 || is_away || refuses, Event::Lose(number));
            may(accidents.late > 0 && !call.is_late, Event::BeLate(number));
        }
        for number in 0..moment.answers.len() {
            may(!is_awake || accidents.lost > 0, Event::LoseAnswer(number));
            may(is_awake, Event::Answer(number));
        }
        may(!is_away && observer.must_read(self), Event::Read);
        may(!is_away && observer.must_read(self) && accidents.lost > 0, Event::LoseRead);
        may(!is_away && !refuses && observer.must_renew(self), Event::RenewOwn);
        may(!is_away && !refuses && observer.declares.is_some(), Event::Declare);
        may(observer.declares.is_some() && (is_away || refuses || accidents.lost > 0), Event::LoseDeclaration);
        may(accidents.opened > 0, Event::Open);
        may(owner.is_cut || accidents.cuts > 0, Event::Cut(!owner.is_cut));
        may(is_away || accidents.outages > 0, Event::Away(!is_away));
        may(!is_away && (refuses || accidents.refusals > 0), Event::RefuseWrites(!refuses));
        may(is_awake && accidents.pauses > 0, Event::StandStill(true));
        may(!is_away && accidents.restarts > 0, Event::Restart);
        may(!is_away && accidents.failovers > 0 && is_followed, Event::FallBehind);
        may(!is_away && accidents.failovers > 0, Event::FailOver);
        may(!is_away && (is_years_ahead || accidents.years > 0), Event::SetClockByYears(!is_years_ahead));
        if !is_away && accidents.clocks > 0 {
            let step = self.lease + self.lease / 2;
            let as_stamped = database.row.until - self.lease;
            events.extend([step, -step, as_stamped].into_iter().filter(|by| *by != 0).map(Event::SetClock));
        }
    }

    fn next_state(&self, moment: &Moment, event: LeaseEvent) -> Option<Moment> {
        use LeaseEvent as Event;
        let mut moment = Moment { seen: None, ..moment.clone() };
        let is_down = moment.database.is_away || moment.database.refuses;
        let Moment { owner, accidents, database, .. } = &mut moment;
        match event {
            Event::TimePasses => moment.time_passes(self),
            Event::Send => moment.send(),
            Event::CarryOut(number) => {
                let call = moment.calls.remove(number);
                moment.carry_out(self, call);
            }
            Event::BeLate(number) => {
                accidents.late -= 1;
                moment.calls[number].is_late = true;
            }
            Event::Lose(number) => {
                accidents.lost -= u8::from(!is_down);
                moment.calls.remove(number);
            }
            Event::Answer(number) => {
                let answer = moment.answers.remove(number);
                moment.answered(self, answer);
            }
            Event::LoseAnswer(number) => {
                accidents.lost -= u8::from(!owner.stands_still);
                moment.answers.remove(number);
            }
            Event::Work => moment.seen = Some(Glimpse::WorkedAfterTakeover),
            Event::DropHandler => {
                owner.has_handler = false;
                moment.seen = Some(Glimpse::Dropped);
            }
            Event::Read => moment.read(self),
            Event::LoseRead => {
                accidents.lost -= 1;
                moment.observer.lose();
            }
            Event::RenewOwn => moment.renew_own(self),
            Event::Declare => moment.declare(),
            Event::LoseDeclaration => {
                accidents.lost -= u8::from(!is_down);
                moment.observer.declares = None;
            }
            Event::Open => {
                accidents.opened -= 1;
                moment.observer = Observer::new();
            }
            Event::Cut(is_cut) => {
                accidents.cuts -= u8::from(is_cut);
                (owner.is_cut, owner.was_cut) = (is_cut, true);
            }
            Event::Away(is_away) => {
                accidents.outages -= u8::from(is_away);
                database.is_away = is_away;
                moment.answers.clear();
            }
            Event::RefuseWrites(refuses) => {
                accidents.refusals -= u8::from(refuses);
                database.refuses = refuses;
            }
            Event::Restart => {
                accidents.restarts -= 1;
                moment.replaced(self);
            }
            Event::FallBehind => database.is_followed = false,
            Event::FailOver => {
                accidents.failovers -= 1;
                database.row = database.standby;
                moment.replaced(self);
            }
            Event::SetClock(by) => {
                accidents.clocks -= 1;
                moment.for_each_row(|row| row.pass(by, -2 * self.lease));
            }
            Event::SetClockByYears(ahead) => {
                accidents.years -= u8::from(ahead);
                database.is_years_ahead = ahead;
            }
            Event::StandStill(stands_still) => {
                accidents.pauses -= u8::from(stands_still);
                (owner.stands_still, owner.stood_still) = (stands_still, true);
            }
        }
        moment.renumber();
        Some(moment)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn saw(glimpse: Glimpse) -> impl Fn(&Moment) -> bool {
            move |moment| moment.seen == Some(glimpse)
        }
        macro_rules! sometimes {
            ($($name:literal: $glimpse:expr),* $(,)?) => {
                [$(Property::sometimes($name, |_: &Self, moment: &Moment| saw($glimpse)(moment))),*]
            };
        }
        let mut all = vec![
            Property::always("no handler takes a step that others may run again", |_: &Self, moment: &Moment| {
                moment.seen != Some(Glimpse::WorkedAfterTakeover)
            }),
            Property::always("no process that reaches its database is taken for dead", |_: &Self, moment: &Moment| {
                // A process whose session is gone has begun another one.
                let Owner { stood_still, was_cut, has_lost_session, .. } = moment.owner;
                !moment.is_taken || stood_still || was_cut || has_lost_session
            }),
            Property::always("no lease is believed for longer than it lasts", |_: &Self, moment: &Moment| {
                !moment.is_taken || moment.owner.left <= 0
            }),
            Property::always("who is dead is known for dead in time", |leases: &Self, moment: &Moment| {
                // If nothing prevents the observer from it.
                let Accidents { lost, late, cuts, pauses, .. } = leases.accidents;
                let is_hindered = leases.accidents != Accidents { lost, late, cuts, pauses, ..Accidents::default() };
                let in_time = leases.in_time() + lost as i8;
                moment.is_taken || is_hindered || leases.lease - moment.database.row.until <= in_time
            }),
            Property::sometimes("a session is taken over", |_, moment: &Moment| moment.is_taken),
        ];
        all.extend(sometimes! {
            "an observation starts over after too short a lease": Glimpse::StartedOver(Occasion::HeldTooLittle),
            "an observation starts over with another server": Glimpse::StartedOver(Occasion::OtherServer),
            "an observation starts over after a late read": Glimpse::StartedOver(Occasion::ReadTooLate),
            "a session that looks over is not judged without an own lease": Glimpse::NotJudged,
            "a session is over because it stays absent": Glimpse::AbsenceObserved,
            "a handler is dropped before its lease ends": Glimpse::Dropped,
            "a session is renewed after its lease was over": Glimpse::RenewedLate,
            "a renewal is carried out twice": Glimpse::CarriedOutAgain,
            "a session is renewed over an older token": Glimpse::OlderToken,
            "a session is renewed again after a late answer": Glimpse::RenewedAgain,
            "a renewal wins against a declaration": Glimpse::DeclarationRefused,
            "an owner loses its session": Glimpse::SessionLost,
        });
        all
    }
}
