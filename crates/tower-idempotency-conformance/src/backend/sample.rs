//! Writes to try.

use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{Expect, Kind, NewExpiry, NewFence, Row, Stamp, Token, Write};

use crate::fresh::{fresh_id, random};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// The shortest expiry: past at the next millisecond.
pub(super) const AT_ONCE: Duration = Duration::from_millis(1);

pub(super) fn fresh_token() -> Token {
    Token(random())
}

/// The write by which a run claims an absent row.
pub(super) fn claim(id: RecordId) -> Write {
    Write {
        id,
        expect: Expect::Absent,
        token: fresh_token(),
        fence: NewFence::Above(Fence(0)),
        kind: Kind::Running,
        session: None,
        until: Some(HOUR),
        began: Stamp::Now,
        since: Stamp::Now,
        expires: NewExpiry::In(HOUR),
        state: Bytes::from_static(b"claimed"),
    }
}

/// The write by which the run that has `row` completes it.
pub(super) fn complete(row: &Row) -> Write {
    Write {
        id: row.id,
        expect: Expect::Token(row.token),
        token: fresh_token(),
        fence: NewFence::Keep,
        kind: Kind::Completed,
        session: None,
        until: None,
        began: Stamp::Keep,
        since: Stamp::Now,
        expires: NewExpiry::Keep,
        state: Bytes::from_static(b"completed"),
    }
}

pub(super) fn session(id: RecordId, lease: Duration) -> Write {
    Write { kind: Kind::Session, until: Some(lease), state: Bytes::from_static(b"a session"), ..claim(id) }
}

/// Returns the writes of a store that finds `row`, each with a token of its own.
pub(super) fn steps(row: &Row) -> Vec<(&'static str, Write)> {
    let new_fence = NewFence::Above(row.fence);
    let step = |kind, state| Write { kind, state: Bytes::from_static(state), ..complete(row) };
    vec![
        ("complete", step(Kind::Completed, b"completed")),
        ("consume", step(Kind::Consumed, b"consumed")),
        ("release", Write { expires: NewExpiry::In(HOUR / 6), ..step(Kind::Released, b"") }),
        ("interrupt", step(Kind::Interrupted, b"interrupted")),
        ("take over", Write { fence: new_fence, until: Some(HOUR), ..step(Kind::Running, b"taken over") }),
        ("ask about", Write { fence: new_fence, session: Some(fresh_id()), ..step(Kind::Interrupted, b"asked") }),
        ("settle", Write { fence: new_fence, ..step(Kind::Completed, b"settled") }),
        ("renew", Write { since: Stamp::Keep, until: Some(HOUR), ..step(Kind::Session, b"renewed") }),
        ("give a fence to", Write { fence: NewFence::Exactly(Fence(row.fence.0 + 7)), ..step(Kind::Disputed, b"") }),
    ]
}
