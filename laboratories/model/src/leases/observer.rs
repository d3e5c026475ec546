//! The process that watches the session.

use super::{Glimpse, LeaseFault, Leases, Moment, Occasion, Rates, Row};

/// The row that was read last, and the time for which it is unchanged, by the observer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Observation {
    /// `None`: the row is absent.
    row: Option<Row>,
    server: u8,
    lasts: i8,
}

/// The write that declares the session dead, on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Declaration {
    pub(super) token: u8,
    age: i8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Observer {
    observation: Option<Observation>,
    pub(super) declares: Option<Declaration>,
    /// The time since it read, and the time since it renewed its own session.
    read: i8,
    renewed: i8,
    /// The time until its next read.
    due: i8,
}

/// The least lease that counts for a session whose row is absent, as its own is not known.
const UNKNOWN: i8 = 12;

impl Observation {
    fn has_waited(&self, leases: &Leases) -> bool {
        let wait = if self.row.is_some() { leases.wait() } else { leases.observers.max(UNKNOWN) * 5 / 4 };
        self.lasts >= wait
    }
}

impl Leases {
    /// The time after its last renewal within which a session has to be known to be dead: the time until it is read, a
    /// wait, and a call.
    pub(super) fn in_time(&self) -> i8 {
        let waits = self.lease * 5 / 4 + Self::sixth(self.observers) + 1;
        // Its clock counts four where five pass.
        if self.rates == Rates::ObserverSlow { waits + waits / 4 + 1 } else { waits }
    }
}

impl Observer {
    /// A process that has just opened the store has observed nothing.
    pub(super) fn new() -> Self {
        Self { observation: None, declares: None, read: 0, renewed: 0, due: 0 }
    }

    pub(super) fn is_answer_due(&self) -> bool {
        self.declares.is_some_and(|declaration| declaration.age > 0)
    }

    /// Returns whether it is time to read: every sixth of a lease, and right when a wait ends.
    pub(super) fn must_read(&self, leases: &Leases) -> bool {
        let has_just_waited = self.has_waited(leases) && self.read > 0;
        self.declares.is_none() && (self.due <= 0 || has_just_waited)
    }

    fn has_waited(&self, leases: &Leases) -> bool {
        self.observation.is_some_and(|observation| observation.has_waited(leases))
    }

    fn holds_half(&self, leases: &Leases) -> bool {
        let judges = leases.fault == Some(LeaseFault::JudgesWithoutItsOwnLease);
        judges || self.renewed * 2 <= leases.observers
    }

    pub(super) fn must_renew(&self, leases: &Leases) -> bool {
        self.renewed >= Leases::period(leases.observers)
    }

    /// Its read has timed out.
    pub(super) fn lose(&mut self) {
        self.due = 1;
    }

    pub(super) fn call_ages(&mut self) {
        self.declares.iter_mut().for_each(|declaration| declaration.age += 1);
    }

    pub(super) fn time_passes(&mut self, leases: &Leases) {
        self.due = (self.due - 1).max(0);
        self.read = (self.read + 1).min(leases.observers);
        self.renewed = (self.renewed + 1).min(leases.observers);
        if let Some(observation) = &mut self.observation {
            observation.lasts = (observation.lasts + 1).min(leases.lease.max(leases.observers) * 5 / 4);
        }
    }

    /// The row as it was read last.
    pub(super) fn row(&mut self) -> Option<&mut Row> {
        self.observation.as_mut().and_then(|observation| observation.row.as_mut())
    }
}

impl Moment {
    /// Starts all observations over, because the earlier ones may be wrong.
    fn start_over(&mut self, leases: &Leases, occasion: Occasion) {
        let lasts = match leases.fault {
            Some(LeaseFault::NotStartedOver(not)) if not == occasion => return,
            Some(LeaseFault::TrustedAfterAPeriod) if occasion == Occasion::OtherServer => {
                leases.wait() - Leases::period(leases.lease)
            }
            _ => 0,
        };
        if let Some(observation) = &mut self.observer.observation {
            observation.lasts = observation.lasts.min(lasts);
        }
        self.seen = Some(Glimpse::StartedOver(occasion));
    }

    /// The observer reads the session.
    pub(super) fn read(&mut self, leases: &Leases) {
        let row = Some(self.database.row).filter(|_| !self.database.is_years_ahead);
        let server = self.database.server;
        let has_waited = self.observer.has_waited(leases);
        if let Some(before) = self.observer.observation {
            if before.server != server {
                self.start_over(leases, Occasion::OtherServer);
            }
            if self.observer.read > leases.reads_apart() {
                self.start_over(leases, Occasion::ReadTooLate);
            }
        }
        let observer = &mut self.observer;
        (observer.read, observer.due) = (0, Leases::sixth(leases.observers));
        let lasts = match (observer.observation, row) {
            (Some(before), _) if before.row == row => before.lasts,
            (None, Some(row)) if leases.fault == Some(LeaseFault::TrustedAtOnce) => {
                (leases.lease - row.until).clamp(0, leases.wait())
            }
            _ => 0,
        };
        let observation = Observation { row, server, lasts };
        observer.observation = Some(observation);
        let is_over = match (leases.fault, row) {
            (Some(LeaseFault::JudgedByTheDatabase), Some(row)) => row.until <= 0,
            (Some(LeaseFault::AbsentIsDead), None) => true,
            // The read was sent after the wait.
            _ => has_waited && observation.has_waited(leases),
        };
        match row {
            _ if !is_over => {}
            _ if !observer.holds_half(leases) => self.seen = Some(Glimpse::NotJudged),
            Some(row) => observer.declares = Some(Declaration { token: row.token, age: 0 }),
            None => {
                self.is_taken = true;
                self.seen = Some(Glimpse::AbsenceObserved);
            }
        }
    }

    /// The observer renews its own session if that is due.
    pub(super) fn renew_own(&mut self, leases: &Leases) {
        if self.observer.must_renew(leases) {
            let held_too_little = self.observer.renewed > leases.renewals_apart();
            self.observer.renewed = 0;
            if held_too_little {
                self.start_over(leases, Occasion::HeldTooLittle);
            }
        }
    }

    /// The write arrives that declares the session dead. A renewal that came before wins.
    pub(super) fn declare(&mut self) {
        let Some(declaration) = self.observer.declares.take() else { return };
        if self.database.row.token == declaration.token && !self.database.is_years_ahead {
            self.database.is_declared_dead = true;
            self.is_taken = true;
        } else {
            self.seen = Some(Glimpse::DeclarationRefused);
        }
    }

    /// Another server answers from now on, and calls that were under way to the earlier one are lost.
    pub(super) fn replaced(&mut self, leases: &Leases) {
        self.database.server += 1;
        self.answers.clear();
        if leases.fault != Some(LeaseFault::DeclaredToAnotherServer) {
            self.observer.declares = None;
        }
    }
}
