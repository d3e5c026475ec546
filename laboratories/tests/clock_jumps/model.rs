//! What a store's time and its records should be, by DESIGN.md, section 3.10: the wall clock when it was opened, or
//! what it had seen before, whichever is later, plus the time that has passed since.

use std::time::Duration;

const HOUR: u64 = 3_600_000;

/// How long a key's records are kept: less than a jump, or more.
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

    /// How long it is refused if it was interrupted.
    pub(crate) fn interrupted(self) -> Duration {
        2 * self.outcome()
    }
}

/// Time, in milliseconds.
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

    /// The store is opened again, which has written something just now.
    pub(crate) fn reopen(&mut self) {
        self.opened = self.wall.max(self.now());
        self.opened_at = self.passed;
    }
}

/// What the store should know of a key.
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
