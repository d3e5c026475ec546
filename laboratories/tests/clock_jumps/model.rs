//! The model of a store's time and its records (`docs/design.md`, section 3, number 10): the wall clock at the opening,
//! or the last time that the store had seen, whichever is later, plus the time that has passed since.

use std::time::Duration;

const HOUR: u64 = 3_600_000;

/// The time that a key's records are kept: less than a jump, or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Short,
    Long,
}

impl Life {
    pub(crate) const ALL: [Self; 2] = [Self::Short, Self::Long];

    pub(crate) fn outcome(self) -> Duration {
        Duration::from_millis(match self {
            Self::Short => HOUR,
            Self::Long => 72 * HOUR,
        })
    }

    /// The time for which the key is refused if its run was interrupted.
    pub(crate) fn interrupted(self) -> Duration {
        2 * self.outcome()
    }
}

/// The times of the model, in milliseconds.
#[derive(Debug)]
pub(crate) struct Time {
    pub(crate) wall: u64,
    passed: u64,
    opened: u64,
    opened_at: u64,
}

impl Time {
    pub(crate) fn new(wall: u64) -> Self {
        Self { wall, passed: 0, opened: wall, opened_at: 0 }
    }

    pub(crate) fn now(&self) -> u64 {
        self.opened + self.passed - self.opened_at
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        let by = millis(by);
        self.wall += by;
        self.passed += by;
    }

    /// Opens the store again. The store wrote something just before.
    pub(crate) fn reopen(&mut self) {
        self.opened = self.wall.max(self.now());
        self.opened_at = self.passed;
    }
}

/// The state of a key that the store should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    Running,
    Interrupted { expires: u64 },
    Completed { expires: u64 },
}

impl State {
    pub(crate) fn expires(self) -> Option<u64> {
        match self {
            Self::Interrupted { expires } | Self::Completed { expires } => Some(expires),
            Self::Absent | Self::Running => None,
        }
    }

    pub(crate) fn has_expired(self, now: u64) -> bool {
        self.expires().is_some_and(|expires| expires <= now)
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("a time of this test")
}
