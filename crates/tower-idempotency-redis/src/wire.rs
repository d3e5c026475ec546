//! Rows out of answers, and writes and rows as arguments. `lua/rows.lua` has the places of the parts.

use std::io::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use redis::{Value, from_redis_value};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::{Fence, RecordId};
use tower_idempotency_shared::for_backends::{check_row, check_write, millis};
use tower_idempotency_shared::{Answer, Expect, Kind, NewExpiry, NewFence, Row, ServerId, Stamp, Token, Write};

use super::error::{Called, unreadable};

/// The length of a header, and the form of rows with which it begins.
const HEADER: usize = 156;
const VERSION: u8 = b'1';
/// The length of the text that says what a write wants.
const WANTED: usize = 135;
/// A time that is not there.
pub(crate) const NONE: &str = "--------------------";

/// Reads an answer of the script, which came on a connection to the server with this run id: the time, the server, and
/// then what the operation adds.
///
/// The run id changes at a start, the replication id at a promotion, and the marker when the rows are wiped.
pub(crate) fn answer(value: Value, run_id: &str) -> Called<Answer<Vec<Value>>> {
    let mut first: Vec<Value> = from_redis_value(value).map_err(unreadable)?;
    let rows = first.split_off(first.len().min(3));
    let first = from_redis_value::<(u64, String, String)>(Value::Array(first));
    let (now, replication, marker) = first.map_err(unreadable)?;
    let mut digest = blake3::Hasher::new_derive_key("tower-idempotency 2026 redis server v1");
    // None of them has a space in it.
    digest.update(format!("{run_id} {replication} {marker}").as_bytes());
    let server = u64::from_le_bytes(digest.finalize().as_bytes().as_chunks().0[0]);
    Ok(Answer { now: Timestamp::from_millis(now), server: ServerId(server), rows })
}

/// A time, as the script compares it.
pub(crate) fn time(time: Timestamp) -> String {
    format!("{:020}", time.as_millis())
}

/// A row with its id before it.
pub(crate) fn listed(value: Value) -> Called<Row> {
    let mut bytes = Bytes::from(from_redis_value::<Vec<u8>>(value).map_err(unreadable)?);
    let id = <[u8; 32]>::try_from(&*bytes.split_to(bytes.len().min(32))).map_err(unreadable)?;
    Ok(parsed(RecordId::from_bytes(id), bytes))
}

/// The row in these bytes. One that this release can't read is of another kind: its key is refused, no write meets what
/// it expects, and a tool names it. A later release may have written it, or a hand.
pub(crate) fn parsed(id: RecordId, mut state: Bytes) -> Row {
    let header = state.split_to(state.len().min(HEADER));
    let mut is_known = header.len() == HEADER && header[0] == VERSION;
    let header = if is_known { &header[..] } else { &[b'0'; HEADER] };
    let mut number = |from: usize, most: u64| {
        let number = digits(&header[from..from + 20]).filter(|number| *number <= most);
        is_known &= number.is_some();
        number.unwrap_or(0)
    };
    // No database takes a greater fence.
    let fence = Fence(number(17, i64::MAX as u64));
    let mut time = |from| Timestamp::from_millis(number(from, u64::MAX));
    let (began, since, expires) = (time(96), time(116), time(136));
    let until = (header[76..96] != *NONE.as_bytes()).then(|| time(76));
    let token = Token(header[1..17].as_chunks().0[0]);
    let session = (header[43] == b'1').then(|| RecordId::from_bytes(header[44..76].as_chunks().0[0]));
    let known =
        digits(&header[37..43]).map(Kind::of).filter(|_| is_known).map(|kind| (token, kind, until, expires, state));
    // No write expects the token.
    let unknown = || (Token([0; 16]), Kind::Other(0), None, Timestamp::from_millis(u64::MAX), Bytes::new());
    let (token, kind, until, expires, state) = known.unwrap_or_else(unknown);
    Row { id, token, fence, kind, session, until, began, since, expires, state }
}

fn digits<T: FromStr>(digits: &[u8]) -> Option<T> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// The header of a row that is written as it is.
pub(crate) fn header(row: &Row) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.push(VERSION);
    header.extend(row.token.0);
    _ = write!(header, "{:020}{:+06}", row.fence.0, row.kind.number());
    optional(&mut header, row.session.map(|session| *session.as_bytes()));
    number_or_none(&mut header, row.until.map(Timestamp::as_millis));
    for time in [row.began, row.since, row.expires] {
        number_or_none(&mut header, Some(time.as_millis()));
    }
    header
}

/// Returns whether the write claims a row that it expects to be absent: the only write that needs room.
pub(crate) fn is_claim(write: &Write) -> bool {
    write.expect == Expect::Absent && write.kind == Kind::Running
}

/// The two arguments of a write. Fails if no database may get it.
pub(crate) fn arguments(write: &Write) -> Called<[Bytes; 2]> {
    check_write(write)?;
    let (mode, fence) = match write.fence {
        NewFence::Keep => ('k', 0),
        NewFence::Exactly(fence) => ('e', fence.0),
        NewFence::Above(fence) => ('a', fence.0),
    };
    let expected = if let Expect::Token(token) = write.expect { Some(token.0) } else { None };
    let expires = if let NewExpiry::In(expires) = write.expires { Some(expires) } else { None };
    let mut text = Vec::with_capacity(WANTED);
    text.extend(write.token.0);
    optional(&mut text, expected);
    _ = write!(text, "{mode}{fence:020}{:+06}", write.kind.number());
    optional(&mut text, write.session.map(|session| *session.as_bytes()));
    text.extend([write.began, write.since].map(|stamp| if stamp == Stamp::Now { b'n' } else { b'k' }));
    for duration in [write.until, expires] {
        number_or_none(&mut text, duration.map(|duration| millis(duration).unsigned_abs()));
    }
    Ok([text.into(), write.state.clone()])
}

/// Adds bytes, after a sign that says whether there are any.
fn optional<const N: usize>(text: &mut Vec<u8>, bytes: Option<[u8; N]>) {
    text.push(if bytes.is_some() { b'1' } else { b'0' });
    text.extend(bytes.unwrap_or([0; N]));
}

/// Adds a number as a decimal text of one length, which compares as the number does. Lua would keep it as a double.
fn number_or_none(text: &mut Vec<u8>, number: Option<u64>) {
    _ = match number {
        Some(number) => write!(text, "{number:020}"),
        None => write!(text, "{NONE}"),
    };
}

/// The two arguments of a row that is written as it is.
pub(crate) fn adopted(row: &Row) -> Called<[Bytes; 2]> {
    check_row(row)?;
    Ok([header(row).into(), row.state.clone()])
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
            fence: Fence(i64::MAX as u64),
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
            assert_eq!(parsed(id, bytes.clone().into()), kept);
            assert_eq!(listed(Value::BulkString([id.as_bytes().to_vec(), bytes].concat())).unwrap(), kept);
        }
    }

    #[test]
    fn a_number_has_one_length_and_no_digit_is_lost() {
        for value in [0, 1, 9_007_199_254_740_993, u64::MAX] {
            let mut text = Vec::new();
            number_or_none(&mut text, Some(value));
            assert_eq!((text.len(), digits(&text)), (NONE.len(), Some(value)));
        }
    }

    #[test]
    fn a_row_that_can_t_be_read_is_of_another_kind_and_never_expires() {
        let id = RecordId::from_bytes([9; 32]);
        let whole = [&b"1"[..], &[7; 16], &b"0".repeat(20), b"+00003", b"0", &[0; 32], &b"0".repeat(80)].concat();
        assert_eq!(parsed(id, whole.clone().into()).kind, Kind::Completed);
        let changed = |at: usize, by: &[u8]| [&whole[..at], by, &whole[at + by.len()..]].concat();
        for bytes in [
            Vec::new(),
            vec![b'2'; HEADER],
            whole[..HEADER - 1].to_vec(),
            changed(0, b"2"),
            changed(17, b"x"),
            // 2^63
            changed(17, b"09223372036854775808"),
            changed(37, b"?"),
            changed(76, b"-"),
            changed(96, b" "),
            changed(155, b"x"),
        ] {
            let row = parsed(id, bytes.clone().into());
            assert_eq!((row.kind, row.expires.as_millis()), (Kind::Other(0), u64::MAX), "{bytes:?}");
        }
    }
}
