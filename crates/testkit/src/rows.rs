//! Rows of a database that several processes share, as a test writes them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{
    Backend, BackendError, Clocks, Expect, Kind, NewExpiry, NewFence, Row, Stamp, Token, Write,
};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn put(backend: &impl Backend, write: Write) -> Option<Row> {
    put_all(backend, &[write]).await.pop().unwrap()
}

/// Puts the writes, and repeats the put if another write of a row takes longer than the second that a put waits for it,
/// as on a stalled machine. A deadlock is an error.
pub async fn put_all(backend: &impl Backend, writes: &[Write]) -> Vec<Option<Row>> {
    let begin = Instant::now();
    loop {
        match backend.put(Clocks::default(), writes).await {
            Err(BackendError::Busy(error))
                if error.to_string().contains("55P03") && begin.elapsed() < Duration::from_secs(60) => {}
            answer => return answer.unwrap().rows,
        }
    }
}

/// The id of a number.
pub fn id(number: u64) -> RecordId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RecordId::from_bytes(bytes)
}

/// A token that no other write has.
pub fn token() -> Token {
    let mut token = [0; 16];
    getrandom::fill(&mut token).unwrap();
    Token(token)
}

/// A claim.
pub fn claim(id: RecordId) -> Write {
    Write {
        id,
        expect: Expect::Absent,
        token: token(),
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

/// An outcome, where the row has the token.
pub fn complete(id: RecordId, expect: Token) -> Write {
    Write {
        expect: Expect::Token(expect),
        fence: NewFence::Keep,
        kind: Kind::Completed,
        until: None,
        began: Stamp::Keep,
        state: Bytes::from_static(b"completed"),
        ..claim(id)
    }
}

/// Returns whether the row carries the write's token.
pub fn is_done(row: Option<&Row>, write: &Write) -> bool {
    row.is_some_and(|row| row.token == write.token)
}
