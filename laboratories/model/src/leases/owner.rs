//! The process that has the session.

use super::{Glimpse, LeaseFault, Leases, Moment, Row};

/// A renewal on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Renewal {
    pub(super) expect: u8,
    pub(super) token: u8,
    /// The time since it was sent: 0, 1, or longer.
    pub(super) age: i8,
    pub(super) is_late: bool,
}

/// The answer to a renewal: the row's token, if the row is there and was not declared dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Answer {
    pub(super) to: Renewal,
    pub(super) token: Option<u8>,
}

/// A renewal that is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) expect: u8,
    pub(super) token: u8,
    /// The time since it was sent first, and the time since it was sent last.
    first: i8,
    last: i8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) token: u8,
    /// The time for which it believes to have its lease.
    pub(super) left: i8,
    /// The time until its next renewal.
    due: i8,
    pub(super) call: Option<Call>,
    pub(super) has_handler: bool,
    /// `true` if it knows that its session is gone.
    pub(super) has_lost_session: bool,
    pub(super) stands_still: bool,
    pub(super) stood_still: bool,
    pub(super) is_cut: bool,
    pub(super) was_cut: bool,
}

impl Renewal {
    pub(super) fn pass(&mut self) {
        self.age = (self.age + 1).min(2);
    }
}

impl Owner {
    pub(super) fn new(leases: &Leases) -> Self {
        Self {
            token: 0,
            left: leases.lease,
            due: Leases::period(leases.lease),
            call: None,
            has_handler: true,
            has_lost_session: false,
            stands_still: false,
            stood_still: false,
            is_cut: false,
            was_cut: false,
        }
    }

    pub(super) fn must_send(&self) -> bool {
        let is_due = self.call.map_or(self.due <= 0, |call| call.last > 0);
        is_due && !self.stands_still && !self.has_lost_session
    }

    fn is_over(&self, leases: &Leases) -> bool {
        let goes_on = leases.fault == Some(LeaseFault::HandlersGoOn);
        !goes_on && (self.has_lost_session || self.left <= Leases::sixth(leases.lease))
    }

    pub(super) fn must_drop(&self, leases: &Leases) -> bool {
        self.has_handler && !self.stands_still && self.is_over(leases)
    }

    /// Returns whether its handler may take a step. A step before others may run the operation again makes no
    /// difference.
    pub(super) fn may_work(&self, leases: &Leases) -> bool {
        let is_polled = !self.is_over(leases) || leases.fault == Some(LeaseFault::HandlerPolledFirst);
        self.has_handler && !self.stands_still && is_polled
    }

    pub(super) fn time_passes(&mut self, leases: &Leases) {
        self.left = (self.left - 1).max(0);
        self.due = (self.due - 1).max(0);
        if let Some(call) = &mut self.call {
            call.first = (call.first + 1).min(leases.lease);
            call.last = (call.last + 1).min(2);
        }
    }
}

impl Moment {
    pub(super) fn send(&mut self) {
        let mut token = 0;
        self.for_each_token(|other| token = token.max(*other + 1));
        let new = Call { expect: self.owner.token, token, first: 0, last: 0 };
        let call = self.owner.call.map_or(new, |call| Call { last: 0, ..call });
        self.owner.call = Some(call);
        if !self.owner.is_cut && !self.database.is_away {
            self.calls.push(Renewal { expect: call.expect, token: call.token, age: 0, is_late: false });
        }
    }

    pub(super) fn carry_out(&mut self, leases: &Leases, call: Renewal) {
        let database = &mut self.database;
        let is_gone = database.is_years_ahead || database.is_declared_dead;
        let is_again = database.row.token == call.token;
        if !is_gone && (is_again || database.row.token == call.expect) {
            if database.row.until <= 0 {
                self.seen = Some(Glimpse::RenewedLate);
            }
            if is_again {
                self.seen = Some(Glimpse::CarriedOutAgain);
            }
            database.row = Row { token: call.token, until: leases.lease };
            if database.is_followed {
                database.standby = database.row;
            }
        }
        if !self.owner.is_cut {
            let token = Some(database.row.token).filter(|_| !is_gone);
            self.answers.push(Answer { to: call, token });
        }
    }

    pub(super) fn answered(&mut self, leases: &Leases, Answer { to, token }: Answer) {
        let owner = &mut self.owner;
        // The answer to an earlier renewal is not used.
        let Some(call) = owner.call.filter(|call| call.token == to.token) else { return };
        owner.call = None;
        let Some(token) = token else {
            (owner.has_lost_session, owner.left) = (true, 0);
            self.seen = Some(Glimpse::SessionLost);
            return;
        };
        owner.token = token;
        if token != to.token {
            // The row has an older token: the owner renews it again.
            self.seen = Some(Glimpse::OlderToken);
            owner.due = 0;
            return;
        }
        let is_counted_from = match leases.fault {
            Some(LeaseFault::CountedFromTheAnsweredCopy) => call.last,
            _ => call.first,
        };
        owner.left = (leases.lease - is_counted_from).max(0);
        owner.due = Leases::period(leases.lease);
        if call.first > Leases::sixth(leases.lease) {
            owner.due = 0;
            self.seen = Some(Glimpse::RenewedAgain);
        }
    }
}
