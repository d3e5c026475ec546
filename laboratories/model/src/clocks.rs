//! Clocks: how far each is ahead of the true time, in units of time. The protocol does not know the true time; promises
//! are judged by it.
//!
//! The kept clock is not slewed here: 1/100 of the time that passes is less than a unit.

use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::Moment;

use crate::fault::Fault;
use crate::rows::UNIT;

/// The clocks of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Clocks {
    /// Its wall clock.
    pub(crate) wall: i8,
    /// The clock that it keeps.
    pub(crate) kept: i8,
    /// The right value of `kept`. `kept` differs where that is broken on purpose.
    anchor: i8,
}

/// The earliest and the latest of some clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) earliest: i8,
    pub(crate) latest: i8,
}

impl Clocks {
    /// The store is opened: the clock that it keeps begins at the earlier of the other two.
    pub(crate) fn open(&mut self, database: i8, fault: Option<Fault>) {
        self.anchor = self.wall.min(database);
        self.kept = if fault == Some(Fault::KeptAnchoredAtTheDatabase) { database } else { self.anchor };
    }

    /// The span that a statement is given.
    pub(crate) fn span(self) -> Span {
        Span { earliest: self.kept.min(self.wall), latest: self.kept.max(self.wall) }
    }

    /// The span that a statement has to be given.
    pub(crate) fn right(self) -> Span {
        Self { kept: self.anchor, ..self }.span()
    }
}

impl Span {
    /// The span with the database's clock, at the moment of the statement. The statement was sent `age` units ago.
    pub(crate) fn with(self, database: i8, age: u8) -> Self {
        let age = age as i8;
        Self { earliest: (self.earliest - age).min(database), latest: (self.latest - age).max(database) }
    }

    /// The times by which the database judges and stamps, by the crate's own rule, in a statement with this span.
    pub(crate) fn moment(self, time: u64, database: i8, age: u8, fault: Option<Fault>) -> Moment {
        let at = |units| Timestamp::from_millis(set(time, units));
        let (sent, now) = (|units| at(units - age as i8), at(database));
        let moment =
            tower_idempotency_shared::Clocks { earliest: sent(self.earliest), latest: sent(self.latest) }.at(now);
        match fault {
            Some(Fault::JudgedByTheDatabase) => Moment { earliest: now, ..moment },
            Some(Fault::StampedByTheDatabase) => Moment { latest: now, ..moment },
            _ => moment,
        }
    }

    /// The time by which a row may be judged. A clock that is right or behind keeps a row from being judged too early.
    /// If all clocks are ahead, nothing is promised.
    pub(crate) fn may_judge_by(self, time: u64) -> u64 {
        set(time, self.earliest.max(0))
    }

    /// The time by which a row may be stamped: the true one, unless all clocks are behind.
    pub(crate) fn may_stamp_by(self, time: u64) -> u64 {
        set(time, self.latest.min(0))
    }
}

/// The time that a clock shows which is ahead by `units`.
pub(crate) fn set(time: u64, units: i8) -> u64 {
    time.saturating_add_signed(i64::from(units) * UNIT.as_millis() as i64)
}
