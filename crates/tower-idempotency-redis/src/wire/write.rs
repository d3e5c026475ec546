//! Writes as the arguments of the script.

use tower_idempotency::Fence;
use tower_idempotency_shared::{BackendError, Expect, Kind, NewExpiry, NewFence, Row, Stamp, Write};

use super::number;
use super::row::header;
use crate::error::never;

/// The largest state: an outcome of 16 MiB, and what a record has in addition to it. Others wait while the server
/// copies a row.
const LARGEST: usize = (16 << 20) + (1 << 20);

/// Returns whether the write claims a row that it expects to be absent: the only write that needs room.
pub(crate) fn is_claim(write: &Write) -> bool {
    write.expect == Expect::Absent && write.kind == Kind::Running
}

/// The eleven arguments of a write. Fails if the database must not get it: [`BackendError::Never`].
pub(crate) fn arguments(write: &Write) -> Result<[Vec<u8>; 11], BackendError> {
    if write.state.len() > LARGEST {
        return Err(never(format!("its state has {} bytes, more than {LARGEST}", write.state.len())));
    }
    let (mode, fence) = match write.fence {
        NewFence::Keep => ("k", Fence(0)),
        NewFence::Exactly(fence) => ("e", fence),
        NewFence::Above(fence) => ("a", fence),
    };
    let expires = match write.expires {
        NewExpiry::Keep if write.expect == Expect::Absent => {
            return Err(never("an absent row has no expiry to keep"));
        }
        NewExpiry::Keep => String::new(),
        NewExpiry::In(duration) => number::duration(duration),
    };
    let stamp = |stamp| if stamp == Stamp::Now { "n" } else { "k" };
    Ok([
        write.token.0.to_vec(),
        match write.expect {
            Expect::Absent => Vec::new(),
            Expect::Token(token) => token.0.to_vec(),
        },
        mode.into(),
        number::number(positive(fence)?).into(),
        number::kind(write.kind.number()).into(),
        write.session.map_or(Vec::new(), |session| session.as_bytes().to_vec()),
        write.until.map_or(Vec::new(), |until| number::duration(until).into()),
        stamp(write.began).into(),
        stamp(write.since).into(),
        expires.into(),
        write.state.to_vec(),
    ])
}

/// The two arguments of a row that is written as it is.
pub(crate) fn adopted(row: &Row) -> Result<[Vec<u8>; 2], BackendError> {
    if row.state.len() > LARGEST {
        return Err(never(format!("the state of {} has more than {LARGEST} bytes", row.id)));
    }
    positive(row.fence)?;
    Ok([header(row), row.state.to_vec()])
}

/// A fence that every database can keep.
fn positive(fence: Fence) -> Result<u64, BackendError> {
    i64::try_from(fence.0).map(|_| fence.0).map_err(|_| never(format!("the fence {fence} is beyond 63 bits")))
}
