//! Sessions in time: one process that renews its own, and another one that judges by the database's clock whether it
//! is over, as `store/shared/session.rs` has it.
//!
//! Time is counted in the time that a call may take, and only as far as it is still to come or just past, so that it
//! may pass for ever. What a process has to do by a moment is done before time goes on, unless the process stands
//! still. A call is carried out and answered within its time, unless it is lost or late.

use stateright::{Model, Property};

/// The protocol of sessions that is explored.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    /// How long a session lives without a renewal.
    pub lease: i8,
    /// Whether others may run again what this process runs: then its handlers are dropped before its lease ends.
    pub drops: bool,
    /// How often what may happen.
    pub accidents: Accidents,
    /// What is broken on purpose.
    pub fault: Option<LeaseFault>,
}

/// How often each thing may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Accidents {
    /// Calls or answers that are lost.
    pub lost: u8,
    /// Calls that are carried out later than their time.
    pub late: u8,
    /// Times at which the process is cut off from the database, until it is not.
    pub cuts: u8,
    /// Times at which the database is away, until it is back.
    pub outages: u8,
    /// Starts of the database.
    pub restarts: u8,
    /// Standbys that take over, which have not got the last renewal.
    pub failovers: u8,
    /// Times at which the database's clock is set, ahead or back, by a lease and a half.
    pub clocks: u8,
    /// Times at which the process stands still, until it does not.
    pub pauses: u8,
}

/// A protocol of sessions that is not quite ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseFault {
    /// A lease is counted from when its renewal was sent last, whichever copy is answered.
    CountedFromTheResend,
    /// A clock that was set is trusted at once, and so is another server.
    TrustedAtOnce,
    /// They are trusted after one renewal period.
    TrustedAfterAPeriod,
    /// Handlers go on when their lease has ended.
    HandlersGoOn,
    /// A renewal that is sent again is known for done, and not carried out.
    ResendWithoutWrite,
}

/// A session's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    token: u8,
    /// For how long it lives, by the database's clock.
    left: i8,
}

/// A renewal on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Renewal {
    expect: u8,
    token: u8,
    /// How long ago it was sent: 0, 1, or longer.
    age: i8,
    is_late: bool,
}

/// What is answered: the row's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    to: Renewal,
    token: u8,
}

/// The process whose session it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    token: u8,
    /// For how long it believes to have its lease.
    left: i8,
    /// When it renews it next.
    due: i8,
    call: Option<Renewal>,
    has_handler: bool,
    stands_still: bool,
    stood_still: bool,
    is_cut: bool,
}

/// The process that looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Observer {
    /// Whether it will notice that the database's clock was set, or that another server answers.
    is_surprised: bool,
    /// For how long it does not trust the leases of others.
    distrusts: i8,
    /// How long ago it renewed its own session.
    renewed: i8,
}

/// All there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Moment {
    is_away: bool,
    row: Row,
    /// What a failover shows.
    older: Row,
    owner: Owner,
    observer: Observer,
    calls: Vec<Renewal>,
    answers: Vec<Answer>,
    accidents: Accidents,
    is_taken: bool,
    seen: Option<Glimpse>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Glimpse {
    NotTrusted,
    Dropped,
    RenewedLate,
    CarriedOutAgain,
    OlderToken,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Time goes on.
    TimePasses,
    /// The process sends a renewal, for the first time or again.
    Send,
    /// A renewal is carried out.
    CarryOut(usize),
    /// It will be later than its time.
    BeLate(usize),
    /// It is lost.
    Lose(usize),
    /// The process is answered.
    Answer(usize),
    /// An answer is lost.
    LoseAnswer(usize),
    /// The process drops its handler, as its lease is nearly over.
    DropHandler,
    /// The other process looks.
    Look,
    /// The process is cut off from the database, or not any more.
    Cut(bool),
    /// The database is away, or is back.
    Away(bool),
    /// The database is started again.
    Restart,
    /// A standby takes over.
    FailOver,
    /// The database's clock is set.
    SetClock(i8),
    /// The process stands still, or not any more.
    StandStill(bool),
}

impl Leases {
    fn period(&self) -> i8 {
        self.lease / 3
    }

    /// How long before its end a handler is dropped.
    fn margin(&self) -> i8 {
        self.lease / 6
    }

    /// How long the leases of others are not trusted after an outage, and once the clock was seen to be set, or another
    /// server to answer.
    fn distrusts(&self) -> i8 {
        match self.fault {
            Some(LeaseFault::TrustedAtOnce) => 0,
            Some(LeaseFault::TrustedAfterAPeriod) => self.period(),
            _ => self.lease,
        }
    }
}

impl Owner {
    fn must_send(&self) -> bool {
        !self.stands_still && self.call.map_or(self.due <= 0, |call| call.age > 0)
    }

    fn must_drop(&self, leases: &Leases) -> bool {
        let goes_on = !leases.drops || leases.fault == Some(LeaseFault::HandlersGoOn);
        self.has_handler && !self.stands_still && !goes_on && self.left <= leases.margin()
    }
}

impl Moment {
    /// Whether something has to be done before time goes on.
    fn is_something_due(&self, leases: &Leases) -> bool {
        self.owner.must_send() || self.owner.must_drop(leases) || self.is_answer_due()
    }

    /// Whether a call's time is over, and it is still to be carried out or answered within that.
    fn is_answer_due(&self) -> bool {
        let is_due = |call: &Renewal| call.age > 0 && !call.is_late;
        self.calls.iter().any(is_due) || self.answers.iter().any(|answer| is_due(&answer.to))
    }

    fn send(&mut self) {
        let again = self.owner.call.map(|call| Renewal { age: 0, is_late: false, ..call });
        let mut token = 0;
        self.for_each_token(|other| token = token.max(*other + 1));
        let renewal = again.unwrap_or(Renewal { expect: self.owner.token, token, age: 0, is_late: false });
        self.owner.call = Some(renewal);
        if !self.owner.is_cut && !self.is_away {
            self.calls.push(renewal);
        }
    }

    fn carry_out(&mut self, leases: &Leases, call: Renewal) {
        let is_again = self.row.token == call.token;
        if is_again || self.row.token == call.expect {
            if self.row.left <= 0 {
                self.seen = Some(Glimpse::RenewedLate);
            }
            if is_again {
                self.seen = Some(Glimpse::CarriedOutAgain);
            } else {
                self.older = self.row;
            }
            if !is_again || leases.fault != Some(LeaseFault::ResendWithoutWrite) {
                self.row = Row { token: call.token, left: leases.lease };
            }
        }
        if !self.owner.is_cut {
            self.answers.push(Answer { to: call, token: self.row.token });
        }
    }

    fn answered(&mut self, leases: &Leases, Answer { to, token }: Answer) {
        let Some(call) = self.owner.call else { return };
        let is_of_any = leases.fault == Some(LeaseFault::CountedFromTheResend) && call.token == to.token;
        // Nobody waits any more for the answer to an earlier call.
        if (call.token, call.age) != (to.token, to.age) && !is_of_any {
            return;
        }
        self.owner.call = None;
        self.owner.token = token;
        if token == to.token {
            self.owner.left = leases.lease - call.age;
            self.owner.due = leases.period();
        } else {
            // The row has an older token: it is renewed anew.
            self.seen = Some(Glimpse::OlderToken);
            self.owner.due = 0;
        }
    }

    /// The other process looks, and takes over what is over, as far as it may believe it.
    fn look(&mut self, leases: &Leases) {
        let observer = &mut self.observer;
        if std::mem::take(&mut observer.is_surprised) {
            observer.distrusts = observer.distrusts.max(leases.distrusts());
        }
        let holds_half = observer.renewed <= leases.lease / 2;
        match self.row.left <= 0 {
            true if observer.distrusts <= 0 && holds_half => self.is_taken = true,
            true => self.seen = Some(Glimpse::NotTrusted),
            false => {}
        }
    }

    fn time_passes(&mut self, leases: &Leases) {
        // What is past is past.
        let pass = |left: &mut i8| *left = (*left - 1).max(-leases.lease);
        pass(&mut self.row.left);
        pass(&mut self.older.left);
        self.owner.left = (self.owner.left - 1).max(0);
        self.owner.due = (self.owner.due - 1).max(0);
        let calls = self.calls.iter_mut().chain(self.answers.iter_mut().map(|answer| &mut answer.to));
        calls.chain(&mut self.owner.call).for_each(|call| call.age = (call.age + 1).min(2));
        self.observer.distrusts = (self.observer.distrusts - 1).max(0);
        self.observer.renewed = (self.observer.renewed + 1).min(leases.lease);
        if !self.is_away {
            // The other process renews its own session in time, if the database is there.
            if self.observer.renewed > leases.lease / 2 {
                self.observer.distrusts = self.observer.distrusts.max(leases.distrusts());
            }
            self.observer.renewed = 0;
        }
    }

    /// Only which tokens are the same, and which is newer, makes a difference.
    fn renumber(&mut self) {
        let mut tokens = Vec::new();
        self.for_each_token(|token| tokens.push(*token));
        tokens.sort_unstable();
        tokens.dedup();
        self.for_each_token(|token| *token = tokens.binary_search(token).map_or(0, |place| place as u8));
        self.calls.sort_unstable();
        self.answers.sort_unstable();
    }

    fn for_each_token(&mut self, mut each: impl FnMut(&mut u8)) {
        let Self { row, older, owner, calls, answers, .. } = self;
        [&mut row.token, &mut older.token, &mut owner.token].into_iter().for_each(&mut each);
        for Renewal { expect, token, .. } in calls.iter_mut().chain(&mut owner.call) {
            each(expect);
            each(token);
        }
        for Answer { to, token } in answers {
            [&mut to.expect, &mut to.token, token].into_iter().for_each(&mut each);
        }
    }
}

impl Model for Leases {
    type State = Moment;
    type Action = LeaseEvent;

    fn init_states(&self) -> Vec<Moment> {
        let row = Row { token: 0, left: self.lease };
        let owner = Owner {
            token: 0,
            left: self.lease,
            due: self.period(),
            call: None,
            has_handler: true,
            stands_still: false,
            stood_still: false,
            is_cut: false,
        };
        let observer = Observer { is_surprised: false, distrusts: 0, renewed: 0 };
        let (calls, answers, accidents) = (Vec::new(), Vec::new(), self.accidents);
        let (is_away, is_taken, seen) = (false, false, None);
        vec![Moment { is_away, row, older: row, owner, observer, calls, answers, accidents, is_taken, seen }]
    }

    fn actions(&self, moment: &Moment, events: &mut Vec<LeaseEvent>) {
        use LeaseEvent as Event;
        let Moment { owner, accidents, is_away, .. } = moment;
        if moment.is_taken {
            return;
        }
        if !moment.is_something_due(self) {
            events.push(Event::TimePasses);
        }
        if owner.must_send() && !moment.is_answer_due() {
            events.push(Event::Send);
        }
        if owner.must_drop(self) {
            events.push(Event::DropHandler);
        }
        for (number, call) in moment.calls.iter().enumerate() {
            if !is_away {
                events.push(Event::CarryOut(number));
            }
            if accidents.lost > 0 || *is_away {
                events.push(Event::Lose(number));
            }
            if accidents.late > 0 && !call.is_late {
                events.push(Event::BeLate(number));
            }
        }
        for number in 0..moment.answers.len() {
            if owner.stands_still || accidents.lost > 0 {
                events.push(Event::LoseAnswer(number));
            }
            if !owner.stands_still {
                events.push(Event::Answer(number));
            }
        }
        match is_away {
            true => events.push(Event::Away(false)),
            false => {
                events.push(Event::Look);
                let or_none = |times: u8, event| (times > 0).then_some(event);
                events.extend(or_none(accidents.outages, Event::Away(true)));
                events.extend(or_none(accidents.restarts, Event::Restart));
                events.extend(or_none(accidents.failovers, Event::FailOver));
                let step = self.lease + self.lease / 2;
                events
                    .extend([step, -step].into_iter().filter_map(|by| or_none(accidents.clocks, Event::SetClock(by))));
            }
        }
        if owner.is_cut || accidents.cuts > 0 {
            events.push(Event::Cut(!owner.is_cut));
        }
        if owner.stands_still || accidents.pauses > 0 {
            events.push(Event::StandStill(!owner.stands_still));
        }
    }

    fn next_state(&self, moment: &Moment, event: LeaseEvent) -> Option<Moment> {
        use LeaseEvent as Event;
        let mut moment = Moment { seen: None, ..moment.clone() };
        let is_away = moment.is_away;
        let Moment { owner, observer, accidents, .. } = &mut moment;
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
                accidents.lost -= u8::from(!is_away);
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
            Event::DropHandler => {
                owner.has_handler = false;
                moment.seen = Some(Glimpse::Dropped);
            }
            Event::Look => moment.look(self),
            Event::Cut(is_cut) => {
                accidents.cuts -= u8::from(is_cut);
                owner.is_cut = is_cut;
            }
            Event::Away(is_away) => {
                accidents.outages -= u8::from(is_away);
                moment.is_away = is_away;
                moment.answers.clear();
            }
            Event::Restart => {
                accidents.restarts -= 1;
                observer.is_surprised = true;
                moment.answers.clear();
            }
            Event::FailOver => {
                accidents.failovers -= 1;
                observer.is_surprised = true;
                moment.row = moment.older;
                moment.answers.clear();
            }
            Event::SetClock(by) => {
                accidents.clocks -= 1;
                observer.is_surprised = true;
                for row in [&mut moment.row, &mut moment.older] {
                    row.left = row.left.saturating_sub(by).max(-self.lease);
                }
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
        vec![
            Property::always("no handler still runs that others may run again", |leases: &Self, moment: &Moment| {
                let Owner { has_handler, stood_still, .. } = moment.owner;
                !(moment.is_taken && has_handler && leases.drops && !stood_still)
            }),
            Property::always(
                "no process that reaches its database is taken for dead",
                |leases: &Self, moment: &Moment| {
                    let Accidents { outages, cuts, .. } = leases.accidents;
                    !moment.is_taken || moment.owner.stood_still || outages + cuts > 0
                },
            ),
            Property::always("no lease is believed for longer than it lasts", |leases: &Self, moment: &Moment| {
                let Accidents { clocks, failovers, .. } = leases.accidents;
                clocks + failovers > 0 || moment.owner.left <= moment.row.left.max(0)
            }),
            Property::sometimes("a session is taken over", |_, moment: &Moment| moment.is_taken),
            Property::sometimes("a lease that is over is not believed to be", |_, moment: &Moment| {
                moment.seen == Some(Glimpse::NotTrusted)
            }),
            Property::sometimes("a handler is dropped before its lease ends", |_, moment: &Moment| {
                moment.seen == Some(Glimpse::Dropped)
            }),
            Property::sometimes("a session is renewed after its lease was over", |_, moment: &Moment| {
                moment.seen == Some(Glimpse::RenewedLate)
            }),
            Property::sometimes("a renewal is carried out twice", |_, moment: &Moment| {
                moment.seen == Some(Glimpse::CarriedOutAgain)
            }),
            Property::sometimes("a session is renewed over an older token", |_, moment: &Moment| {
                moment.seen == Some(Glimpse::OlderToken)
            }),
        ]
    }
}
