//! What controls break.

/// The fault of a database. In PostgreSQL it is in the functions by which the store writes. The store over Redis sends
/// its script itself, so there a third program changes the rows between two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write is done without comparing its row. In Redis, a row is gone soon after it was written.
    NoCompare,
    /// The sessions of living processes look as if they had ended, once they are renewed.
    LeasesLookOver,
    /// Writes are answered before they are durable.
    AnsweredEarly,
    /// A row that this release can't read counts as absent.
    UnknownIsAbsent,
    /// Only the database's clock judges whether a record has expired.
    OneClock,
}
