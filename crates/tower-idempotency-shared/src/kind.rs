//! The kinds of rows.

/// The kind of a row. A backend keeps the [number](Self::number), and uses it only in
/// [`Backend::list`](super::Backend::list) and [`Backend::sessions`](super::Backend::sessions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// 1: a run is under way, or its process died.
    Running,
    /// 2: it is unknown whether the operation took effect.
    Interrupted,
    /// 3: it has an outcome.
    Completed,
    /// 4: it is done, and its outcome could not be stored, or is not kept any longer.
    Consumed,
    /// 5: the tombstone of an operation that was released or forgotten, and of a session that has ended. It is kept for
    /// as long as a late write may still arrive.
    Released,
    /// 6: a process that uses the store. Its [`state`](super::Row::state) has the length of its lease. Other processes
    /// watch whether its row changes.
    Session,
    /// 7: the outcome of a run whose operation was taken over or settled meanwhile.
    Disputed,
    /// Written by a later release. It is never overwritten.
    Other(i16),
}

impl Kind {
    /// Returns whether the operation is done, as far as the kind says. The row's bytes do not count.
    pub(super) const fn is_done(self) -> bool {
        matches!(self, Self::Completed | Self::Consumed)
    }

    /// Returns the number by which a backend keeps the kind.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::Running => 1,
            Self::Interrupted => 2,
            Self::Completed => 3,
            Self::Consumed => 4,
            Self::Released => 5,
            Self::Session => 6,
            Self::Disputed => 7,
            Self::Other(number) => number,
        }
    }

    /// Returns the kind of this number.
    #[must_use]
    pub const fn of(number: i16) -> Self {
        match number {
            1 => Self::Running,
            2 => Self::Interrupted,
            3 => Self::Completed,
            4 => Self::Consumed,
            5 => Self::Released,
            6 => Self::Session,
            7 => Self::Disputed,
            number => Self::Other(number),
        }
    }
}
