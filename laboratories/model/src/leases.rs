//! Sessions in time: one process, the owner, renews its own session. Another one, the observer, decides without any
//! wall clock whether that session is over, as `session/own.rs` does.
//!
//! The observer reads the session again and again. It keeps what it has read (token, `until`, server) and how long ago,
//! by its monotonic clock, the first answer with this content arrived. If that is 5/4 of the session's lease ago, and a
//! read that is sent then shows the same, it declares the session dead by compare-and-set. The owner counts its lease
//! from the moment at which it first sent a token.
//!
//! The unit of time is the time that a call may take. Only times that are still to come or just past are counted, so
//! that time may pass for ever. A process does what it has to do by a moment before time goes on, unless the process
//! stalls. A call is carried out and answered within its time, unless it is lost or late. The monotonic clock of one
//! process may advance by four where that of the other advances by five.
//!
//! The observer's reads and the renewals of its own session take no time, so an observation begins and ends as early as
//! it may. The write that declares the session dead takes its time.

mod events;
mod observer;
mod owner;

use observer::Observer;
use owner::{Answer, Owner, Renewal};

/// The protocol of sessions that is explored.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    /// The time that the session lives without a renewal.
    pub lease: i8,
    /// The same time for the observer's own session.
    pub observers: i8,
    /// The rates of the monotonic clocks.
    pub rates: Rates,
    /// The number of times that each accident may happen.
    pub accidents: Accidents,
    /// The fault that is seeded, if any.
    pub fault: Option<LeaseFault>,
}

/// The rates of the monotonic clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rates {
    /// Both are equally fast.
    Equal,
    /// The owner's advances by four where the observer's advances by five.
    OwnerSlow,
    /// The observer's advances by four where the owner's advances by five.
    ObserverSlow,
}

/// The number of times that each accident may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Accidents {
    /// Calls or answers that are lost.
    pub lost: u8,
    /// Renewals that are carried out later than their time.
    pub late: u8,
    /// Times at which the owner is cut off from the database, until it is connected again.
    pub cuts: u8,
    /// Times at which the database is away, until it is back.
    pub outages: u8,
    /// Times at which the database can be read and refuses writes, until it accepts them.
    pub refusals: u8,
    /// Starts of the database.
    pub restarts: u8,
    /// Standbys that take over and have got nothing since some moment.
    pub failovers: u8,
    /// Times at which the database's clock is set: ahead or back by a lease and a half, or back to when the row was
    /// stamped.
    pub clocks: u8,
    /// Times at which that clock is set further ahead than a session's row is kept, until it is set back.
    pub years: u8,
    /// Times at which the owner stalls, until it goes on.
    pub pauses: u8,
    /// Observers that open the store anew.
    pub opened: u8,
}

/// A difference from the crate's protocol of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseFault {
    /// A session is over when the database's clock has reached the row's `until`.
    JudgedByTheDatabase,
    /// A lease is counted from the sending of the renewal's copy that is answered.
    CountedFromTheAnsweredCopy,
    /// An observer waits for one lease.
    WaitsNoLonger,
    /// An observer waits for 5/4 of its own lease.
    WaitsByItsOwnLease,
    /// Observations start over after half of the observer's own lease, also where the session's is shorter.
    MindsItsOwnLeaseOnly,
    /// An observation goes on though it has to start over.
    NotStartedOver(Occasion),
    /// With another server, an observation starts over, and ends after one renewal period.
    TrustedAfterAPeriod,
    /// An observer that opens the store takes the database's clock for an observation of the row.
    TrustedAtOnce,
    /// An observer that holds less than half of its own lease declares others dead.
    JudgesWithoutItsOwnLease,
    /// A session whose row is absent is dead.
    AbsentIsDead,
    /// The write that declares a session dead is sent to the server that replaced the observed one.
    DeclaredToAnotherServer,
    /// Handlers go on when their lease has ended.
    HandlersGoOn,
    /// A handler takes its next step before the process checks whether it has to be dropped.
    HandlerPolledFirst,
}

/// An occasion on which all observations start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// The observer held less than half of a lease at a renewal.
    HeldTooLittle,
    /// Another server has answered.
    OtherServer,
    /// Two reads were more than half of a lease apart.
    ReadTooLate,
}

/// A session's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    token: u8,
    /// The time by which its `until` is ahead of the database's clock.
    until: i8,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Database {
    row: Row,
    /// The row that a failover shows.
    standby: Row,
    /// `true` if the standby still gets the writes.
    is_followed: bool,
    /// A number that identifies the server and its start.
    server: u8,
    is_away: bool,
    refuses: bool,
    /// `true` if its clock is past the row's expiry.
    is_years_ahead: bool,
    is_declared_dead: bool,
}

/// The whole state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Moment {
    database: Database,
    owner: Owner,
    observer: Observer,
    calls: Vec<Renewal>,
    answers: Vec<Answer>,
    accidents: Accidents,
    /// The position of the slow clock in its round of five.
    phase: u8,
    is_taken: bool,
    seen: Option<Glimpse>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Glimpse {
    StartedOver(Occasion),
    NotJudged,
    AbsenceObserved,
    Dropped,
    RenewedLate,
    CarriedOutAgain,
    OlderToken,
    RenewedAgain,
    DeclarationRefused,
    SessionLost,
    WorkedAfterTakeover,
}

/// The next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Time goes on.
    TimePasses,
    /// The owner sends a renewal, for the first time or again.
    Send,
    /// A renewal is carried out.
    CarryOut(usize),
    /// A renewal will be later than its time.
    BeLate(usize),
    /// It is lost.
    Lose(usize),
    /// The owner is answered.
    Answer(usize),
    /// An answer is lost.
    LoseAnswer(usize),
    /// The owner's handler takes a step, such as a charge.
    Work,
    /// The owner drops its handler, as its lease is nearly over.
    DropHandler,
    /// The observer reads the session.
    Read,
    /// Its read is lost.
    LoseRead,
    /// The observer renews its own session, once the database accepts it again.
    RenewOwn,
    /// The write arrives that declares the session dead.
    Declare,
    /// It is lost.
    LoseDeclaration,
    /// The observer opens the store.
    Open,
    /// The owner is cut off from the database, or connected again.
    Cut(bool),
    /// The database is away, or is back.
    Away(bool),
    /// The database refuses writes, or accepts them.
    RefuseWrites(bool),
    /// The database is started again.
    Restart,
    /// The standby gets nothing more.
    FallBehind,
    /// The standby takes over.
    FailOver,
    /// The database's clock is set by this amount.
    SetClock(i8),
    /// The database's clock is set further ahead than the row is kept, or back.
    SetClockByYears(bool),
    /// The owner stalls, or goes on.
    StandStill(bool),
}

impl Leases {
    /// Returns the time between two renewals of a session.
    fn period(lease: i8) -> i8 {
        lease / 3
    }

    /// Returns the time between two reads of others' sessions, which is also the time before the end of its lease at
    /// which a process drops a handler.
    fn sixth(lease: i8) -> i8 {
        lease / 6
    }

    /// The time for which a session has to be unchanged.
    fn wait(&self) -> i8 {
        match self.fault {
            Some(LeaseFault::WaitsNoLonger) => self.lease,
            Some(LeaseFault::WaitsByItsOwnLease) => self.observers * 5 / 4,
            _ => self.lease * 5 / 4,
        }
    }

    /// The lease by which observations start over. A short outage must not make a session look dead whose lease is
    /// shorter than the observer's own.
    fn shorter(&self) -> i8 {
        if self.fault == Some(LeaseFault::MindsItsOwnLeaseOnly) {
            self.observers
        } else {
            self.lease.min(self.observers)
        }
    }

    /// The longest time between two reads.
    fn reads_apart(&self) -> i8 {
        self.shorter() / 2
    }

    /// The longest time since the observer's last renewal when it renews. With equal leases, it holds half of its own
    /// then.
    fn renewals_apart(&self) -> i8 {
        Self::period(self.observers) + Self::sixth(self.shorter())
    }
}

impl Row {
    fn pass(&mut self, by: i8, least: i8) {
        self.until = self.until.saturating_sub(by).max(least);
    }
}

impl Moment {
    /// Returns whether an event has to happen before time goes on.
    fn is_something_due(&self, leases: &Leases) -> bool {
        let Database { is_away, refuses, .. } = self.database;
        let owner = self.owner.must_send() || self.owner.must_drop(leases);
        let observer =
            !is_away && self.observer.must_read(leases) || !is_away && !refuses && self.observer.must_renew(leases);
        owner || observer || self.is_answer_due()
    }

    /// Returns whether a call's time is over, and it is still to be carried out or answered within that.
    fn is_answer_due(&self) -> bool {
        let is_due = |call: &Renewal| call.age > 0 && !call.is_late;
        let renewals = self.calls.iter().any(is_due) || self.answers.iter().any(|answer| is_due(&answer.to));
        renewals || self.observer.is_answer_due()
    }

    fn time_passes(&mut self, leases: &Leases) {
        // Times long past make no difference and are not counted further.
        self.for_each_row(|row| row.pass(1, -2 * leases.lease));
        let is_slow = if leases.rates == Rates::Equal { false } else { self.phase == 4 };
        self.phase = if leases.rates == Rates::Equal { 0 } else { (self.phase + 1) % 5 };
        self.calls.iter_mut().chain(self.answers.iter_mut().map(|answer| &mut answer.to)).for_each(Renewal::pass);
        if !(is_slow && leases.rates == Rates::OwnerSlow) {
            self.owner.time_passes(leases);
        }
        self.observer.call_ages();
        if !(is_slow && leases.rates == Rates::ObserverSlow) {
            self.observer.time_passes(leases);
            if !self.database.is_away && !self.database.refuses {
                self.renew_own(leases);
            }
        }
    }

    /// Calls `each` for the database's row and for every copy of it that a participant knows.
    fn for_each_row(&mut self, mut each: impl FnMut(&mut Row)) {
        let Self { database, observer, .. } = self;
        [&mut database.row, &mut database.standby].into_iter().for_each(&mut each);
        observer.row().into_iter().for_each(each);
    }

    /// Renumbers the tokens. Only whether two are equal, and which one is newer, makes a difference.
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
        self.for_each_row(|row| each(&mut row.token));
        let Self { owner, observer, calls, answers, .. } = self;
        each(&mut owner.token);
        owner.call.iter_mut().for_each(|call| [&mut call.expect, &mut call.token].into_iter().for_each(&mut each));
        observer.declares.iter_mut().for_each(|declaration| each(&mut declaration.token));
        for Renewal { expect, token, .. } in calls.iter_mut().chain(answers.iter_mut().map(|answer| &mut answer.to)) {
            each(expect);
            each(token);
        }
        answers.iter_mut().filter_map(|answer| answer.token.as_mut()).for_each(each);
    }
}
