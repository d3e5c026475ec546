//! A row, and a write of one.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};

use super::kind::Kind;

/// The time for which a row is kept physically after its expiry, so that a late copy of a write still finds the row.
pub const GRACE: Duration = Duration::from_secs(600);

/// 128 random bits for each write. The row has those of its last write.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

/// Formats the first digits only.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Token({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// A row as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: RecordId,
    /// The token of the write that made it.
    pub token: Token,
    /// The latest fence that was given for it.
    pub fence: Fence,
    /// Its kind.
    pub kind: Kind,
    /// The row of the process that owns it, if one does: see [`Kind::Session`]. For a
    /// [disputed](Kind::Disputed) outcome, this is the operation's row.
    pub session: Option<RecordId>,
    /// The bound of a run or of a question. For a record that has no `session` and is kept for a shorter time than its
    /// row, this is the record's expiry. For a session, it is a note for people: no process judges by it.
    pub until: Option<Timestamp>,
    /// The time at which the operation began, by the earliest time, so that no later step of it looks earlier.
    pub began: Timestamp,
    /// The time at which it came to its state.
    pub since: Timestamp,
    /// The time from which on the row counts as absent.
    pub expires: Timestamp,
    /// The other parts of the record, as bytes that mean nothing to the backend.
    pub state: Bytes,
}

/// A row to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The row's id.
    pub id: RecordId,
    /// The row that the write expects.
    pub expect: Expect,
    /// The row's new token.
    pub token: Token,
    /// The row's fence.
    pub fence: NewFence,
    /// The row's kind: see [`Row::kind`].
    pub kind: Kind,
    /// The row's session: see [`Row::session`].
    pub session: Option<RecordId>,
    /// The time from the latest time to [`Row::until`]. If the row already has the write's own token, a later time of
    /// the row is kept.
    pub until: Option<Duration>,
    /// The change of [`Row::began`]. An absent row begins now, whatever this says.
    pub began: Stamp,
    /// The change of [`Row::since`]. For an absent row it is now, whatever this says.
    pub since: Stamp,
    /// The change of [`Row::expires`].
    pub expires: NewExpiry,
    /// The row's state: see [`Row::state`].
    pub state: Bytes,
}

impl Write {
    /// Returns a write of a row without a record, which is kept for this long. Its kind is the one of a tombstone.
    pub(crate) fn without_record(id: RecordId, expect: Expect, kept: Duration) -> Self {
        Self {
            id,
            expect,
            token: super::random_token(),
            fence: NewFence::Keep,
            kind: Kind::Released,
            session: None,
            until: None,
            began: Stamp::Keep,
            since: Stamp::Now,
            expires: NewExpiry::In(kept),
            state: Bytes::new(),
        }
    }
}

/// The row that a write expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The write expects no row, or a row past its expiry.
    Absent,
    /// The write expects a row with this token.
    Token(Token),
}

/// The fence of a written row.
///
/// If the row already has the write's own token, the fence is kept, whatever this says: the write was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewFence {
    /// Keeps the row's fence. For an absent row, this is the same as [`Above`](Self::Above) the fence 0.
    Keep,
    /// Writes this fence, or keeps the row's, past its expiry or not, if that is greater: the fence of a row never
    /// shrinks.
    Exactly(Fence),
    /// Writes a new fence: the greatest of the latest time in microseconds since the Unix epoch, one more than the
    /// row's, past its expiry or not, and one more than this. Fences are kept to the digit up to 2⁶³ − 1, and counted
    /// on exactly at least up to 2⁵³.
    Above(Fence),
}

/// A time of a written row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Keeps the row's value.
    Keep,
    /// Writes the time anew: the earliest time as [`Row::began`], the database's as [`Row::since`]. If the row already
    /// has the write's own token, its value is kept.
    Now,
}

/// The expiry of a written row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewExpiry {
    /// Keeps the row's value. An absent row is written with [`In`](Self::In) only.
    Keep,
    /// Writes the time that is this long from the latest time. If the row already has the write's own token, a later
    /// expiry of the row is kept. A row that expires before the answer is made is answered as absent.
    In(Duration),
}
