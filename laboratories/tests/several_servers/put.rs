//! The messages that put one row, as far as this program reads them: those to PostgreSQL, and those to Redis.

use std::ops::Range;

/// The numbers of parameters of PostgreSQL's statements that put one row, and the index of the row's kind: a claim, an
/// outcome, and `put_one_1`.
const STATEMENTS: [(u16, usize); 3] = [(11, 4), (12, 4), (15, 6)];
/// The parts of a call of the script over Redis that say what it does, by their places: the number of its keys, with
/// one row; its operation; and what the write says, with the place of the kind in it.
const KEYS: usize = 2;
const OPERATION: usize = 9;
const WRITE: usize = 13;
const KIND: Range<usize> = 54..60;

/// The kinds of rows, as in `schema.sql`.
pub(crate) const RUNNING: i16 = 1;
pub(crate) const COMPLETED: i16 = 3;

/// A put of one row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) kind: i16,
}

impl Put {
    /// Reads the put that these bytes begin with. The first byte says to which system they go.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Self::of_postgres(bytes).or_else(|| Self::of_redis(bytes))
    }

    /// A Bind with the parameters of one of these statements.
    fn of_postgres(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"B")?.get(4..)?;
        let (_portal, rest) = text(rest)?;
        let (_statement, rest) = text(rest)?;
        let (formats, rest) = number(rest)?;
        let rest = rest.get(2 * usize::from(formats)..)?;
        let (parameters, mut rest) = number(rest)?;
        let (_, kind) = STATEMENTS.into_iter().find(|(known, _)| *known == parameters)?;
        for _ in 0..kind {
            (_, rest) = parameter(rest)?;
        }
        let (kind, _) = parameter(rest)?;
        // A put of several rows has an array here.
        Some(Self { kind: i16::from_be_bytes(kind.try_into().ok()?) })
    }

    /// An EVALSHA or EVAL with five keys and that of a row.
    fn of_redis(bytes: &[u8]) -> Option<Self> {
        let (count, mut rest) = line(bytes.strip_prefix(b"*")?)?;
        let mut parts = Vec::new();
        for _ in 0..count {
            let (part, after) = bulk(rest.strip_prefix(b"$")?)?;
            parts.push(part);
            rest = after;
        }
        let is_put = *parts.get(KEYS)? == b"6" && *parts.get(OPERATION)? == b"put";
        let kind = str::from_utf8(parts.get(WRITE)?.get(KIND)?).ok()?.parse().ok()?;
        is_put.then_some(Self { kind })
    }
}

/// Returns whether nothing of the answer is missing after these bytes: PostgreSQL is ready for the next query, or Redis
/// has answered all that was asked.
pub(crate) fn is_answered(bytes: &[u8]) -> bool {
    let is_ready = bytes.len() >= 6 && bytes[..bytes.len() - 1].ends_with(b"Z\0\0\0\x05");
    is_ready || after_answer(bytes).is_some_and(<[u8]>::is_empty)
}

/// Returns what follows an answer of Redis, if that is whole.
fn after_answer(bytes: &[u8]) -> Option<&[u8]> {
    let (sort, rest) = bytes.split_first()?;
    match sort {
        b'+' | b'-' | b':' => Some(&rest[rest.windows(2).position(|two| two == b"\r\n")? + 2..]),
        // One that is nil has no bytes.
        b'$' if rest.starts_with(b"-1") => rest.get(4..),
        b'$' => bulk(rest).map(|(_, rest)| rest),
        b'*' => {
            let (count, rest) = line(rest)?;
            (0..count).try_fold(rest, |rest, _| after_answer(rest))
        }
        _ => None,
    }
}

/// Reads a length, and the end of its line.
fn line(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((str::from_utf8(&bytes[..end]).ok()?.parse().ok()?, &bytes[end + 2..]))
}

/// Reads a length, and so many bytes.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = line(bytes)?;
    Some((rest.get(..length)?, rest.get(length + 2..)?))
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Reads a parameter. One that is null has no bytes.
fn parameter(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    Some((rest.get(..length)?, &rest[length..]))
}
