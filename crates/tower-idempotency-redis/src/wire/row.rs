//! Rows out of answers, and rows to be adopted. `lua/rows.lua` has the places of the parts.

use bytes::Bytes;
use redis::Value;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::{BackendError, Kind, Row, ServerId, Token};

use super::number::{self, DIGITS};

/// The length of a header.
const HEADER: usize = 156;
/// The version of the form of rows.
const VERSION: u8 = b'1';
/// A time that is not there.
const NONE: [u8; DIGITS] = [b'-'; DIGITS];

/// An answer of the script: the time, the server, and then what the operation adds.
pub(crate) struct Answered {
    pub(crate) now: Timestamp,
    pub(crate) server: ServerId,
    pub(crate) values: Vec<Value>,
}

/// The script has answered with something else than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the answer of Redis can't be read: {0}")]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// Whatever was asked for may have been done.
impl From<Unreadable> for BackendError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Uncertain(Box::new(unreadable))
    }
}

impl Answered {
    /// Reads an answer that came on a connection to the server with this run id.
    ///
    /// The run id changes at a start, the replication id at a promotion, and the marker when the rows are wiped.
    pub(crate) fn read(value: Value, run_id: &str) -> Result<Self, Unreadable> {
        let Value::Array(mut values) = value else { return Err(Unreadable("it is no array")) };
        let rest = values.split_off(values.len().min(3));
        let [now, replication, marker] =
            <[Value; 3]>::try_from(values).map_err(|_| Unreadable("it is too short"))?.map(text);
        let now = now.and_then(|now| number::read(&now)).ok_or(Unreadable("it has no time"))?;
        let mut digest = blake3::Hasher::new_derive_key("tower-idempotency 2026 redis server v1");
        for part in [Some(run_id.as_bytes().to_vec()), replication, marker] {
            let part = part.ok_or(Unreadable("it has no server"))?;
            digest.update(&(part.len() as u64).to_le_bytes()).update(&part);
        }
        let mut server = [0; 8];
        digest.finalize_xof().fill(&mut server);
        Ok(Self { now: Timestamp::from_millis(now), server: ServerId(u64::from_le_bytes(server)), values: rest })
    }
}

/// The bytes of a text.
pub(crate) fn text(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}

/// The row of `id`, if there is one.
pub(crate) fn row(id: RecordId, value: Value) -> Result<Option<Row>, Unreadable> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => parsed(id, bytes.into()).map(Some),
        _ => Err(Unreadable("a row is no text")),
    }
}

/// A row with its id before it.
pub(crate) fn listed(value: Value) -> Result<Row, Unreadable> {
    let Value::BulkString(bytes) = value else { return Err(Unreadable("a row is no text")) };
    let mut bytes = Bytes::from(bytes);
    let id = (bytes.len() >= 32).then(|| bytes.split_to(32)).ok_or(Unreadable("a row has no id"))?;
    parsed(id_of(&id)?, bytes)
}

fn parsed(id: RecordId, mut bytes: Bytes) -> Result<Row, Unreadable> {
    if bytes.len() < HEADER || bytes[0] != VERSION {
        return Err(Unreadable("a row has a form that this release does not know"));
    }
    let header = bytes.split_to(HEADER);
    let wrong = Unreadable("a number of a row has other signs than digits");
    let time = |from: usize| number::read(&header[from..from + DIGITS]).map(Timestamp::from_millis);
    let parts = (|| {
        let fence = Fence(number::read(&header[17..37])?);
        let kind = Kind::of(number::read(&header[37..43])?);
        let until = if header[76..96] == NONE { None } else { Some(time(76)?) };
        Some((fence, kind, until, [time(96)?, time(116)?, time(136)?]))
    })();
    let (fence, kind, until, [began, since, expires]) = parts.ok_or(wrong)?;
    let mut token = [0; 16];
    token.copy_from_slice(&header[1..17]);
    let session = if header[43] == b'1' { Some(id_of(&header[44..76])?) } else { None };
    Ok(Row { id, token: Token(token), fence, kind, session, until, began, since, expires, state: bytes })
}

fn id_of(bytes: &[u8]) -> Result<RecordId, Unreadable> {
    bytes.try_into().map(RecordId::from_bytes).map_err(|_| Unreadable("an id has not 32 bytes"))
}

/// The header of a row that is written as it is.
pub(crate) fn header(row: &Row) -> Vec<u8> {
    let mut header = vec![VERSION];
    header.extend_from_slice(&row.token.0);
    header.extend_from_slice(number::number(row.fence.0).as_bytes());
    header.extend_from_slice(number::kind(row.kind.number()).as_bytes());
    header.push(if row.session.is_some() { b'1' } else { b'0' });
    header.extend_from_slice(&row.session.map_or([0; 32], |session| *session.as_bytes()));
    header.extend_from_slice(&row.until.map_or(NONE.to_vec(), |until| number::time(until).into_bytes()));
    for time in [row.began, row.since, row.expires] {
        header.extend_from_slice(number::time(time).as_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_the_wire() {
        let id = RecordId::from_bytes([9; 32]);
        let bare = Row {
            id,
            token: Token([0xff; 16]),
            fence: Fence(u64::MAX),
            kind: Kind::Other(-7),
            session: None,
            until: None,
            began: Timestamp::from_millis(0),
            since: Timestamp::from_millis(1_790_000_000_123),
            expires: Timestamp::from_millis(u64::MAX),
            state: Bytes::from_static(b"\0state\xff"),
        };
        let session = Some(RecordId::from_bytes([0; 32]));
        let owned = Row { session, until: Some(Timestamp::from_millis(7)), state: Bytes::new(), ..bare.clone() };
        for kept in [bare, owned] {
            assert_eq!(header(&kept).len(), HEADER);
            let bytes = [header(&kept), kept.state.to_vec()].concat();
            assert_eq!(row(id, Value::BulkString(bytes.clone())).unwrap().as_ref(), Some(&kept));
            assert_eq!(listed(Value::BulkString([id.as_bytes().to_vec(), bytes].concat())).unwrap(), kept);
        }
    }

    #[test]
    fn another_form_of_a_row_is_no_row() {
        for bytes in [b"".as_slice(), &[b'2'; HEADER], &[b'1'; HEADER - 1], &[b'x'; HEADER]] {
            assert!(row(RecordId::from_bytes([9; 32]), Value::BulkString(bytes.to_vec())).is_err(), "{bytes:?}");
        }
    }
}
