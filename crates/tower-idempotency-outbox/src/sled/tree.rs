//! The keys and values of the tree.
//!
//! | key | value |
//! |---|---|
//! | `v` | the version of this format: `1` |
//! | `n` | the last position |
//! | `t` | the outbox's own time, as it was written last: 8 bytes, big-endian |
//! | `k`, key | the position of the call with this key |
//! | `o` or `e`, position | the head of an entry that is open, or has ended |
//! | `c`, position, number | a part of the call |
//! | `a`, position, number | a part of its answer |
//!
//! Positions have 8 bytes, numbers 2, both big-endian. A part has at most 4 KiB, which is what the store takes.

use tower_idempotency::sled::{self, IVec, Tree};
use tower_idempotency::store::{TransactionError, TransactionTree};

use super::head::{Head, is_open};
use crate::{Answer, Call, Entry};

const PART: usize = 4_096;
const LAST: &[u8] = b"n";
const VERSION: &[u8] = b"v";
const TIME: &[u8] = b"t";
const THIS_VERSION: &[u8] = b"1";

/// Where a value can be read: in the tree, or in a transaction.
pub(super) trait Reads {
    type Error;

    fn value(&self, key: &[u8]) -> Result<Option<IVec>, Self::Error>;
}

impl Reads for Tree {
    type Error = sled::Error;

    fn value(&self, key: &[u8]) -> Result<Option<IVec>, Self::Error> {
        self.get(key)
    }
}

impl Reads for TransactionTree<'_> {
    type Error = TransactionError;

    fn value(&self, key: &[u8]) -> Result<Option<IVec>, Self::Error> {
        self.get(key)
    }
}

/// Whether this tree is an outbox's, of this version.
pub(super) fn is_outbox<R: Reads>(tree: &R) -> Result<bool, R::Error> {
    Ok(tree.value(VERSION)?.is_some_and(|version| version == THIS_VERSION))
}

/// Makes an outbox of an empty tree.
pub(super) fn found(tree: &TransactionTree<'_>) -> Result<(), TransactionError> {
    tree.insert(VERSION, THIS_VERSION).map(drop)
}

/// The outbox's own time, as it was written last.
pub(super) fn time<R: Reads>(tree: &R) -> Result<Option<u64>, R::Error> {
    Ok(tree.value(TIME)?.and_then(|value| number(&value)))
}

/// Writes that time, unless another handle has written a later one.
pub(super) fn write_time(tree: &TransactionTree<'_>, time: u64) -> Result<(), TransactionError> {
    let before = self::time(tree)?.unwrap_or(0);
    tree.insert(TIME, &before.max(time).to_be_bytes()).map(drop)
}

/// Writes the position of the call with this key.
pub(super) fn write_key(tree: &TransactionTree<'_>, key: &str, position: u64) -> Result<(), TransactionError> {
    tree.insert(key_of(key), &position.to_be_bytes()).map(drop)
}

fn key_of(key: &str) -> Vec<u8> {
    [b"k", key.as_bytes()].concat()
}

/// The key of a head.
fn head_of(is_open: bool, position: u64) -> Vec<u8> {
    [if is_open { b"o" } else { b"e" }, &position.to_be_bytes()[..]].concat()
}

fn part_of(kind: u8, position: u64, number: usize) -> Vec<u8> {
    [&[kind], &position.to_be_bytes()[..], &(number as u16).to_be_bytes()[..]].concat()
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().map(u64::from_be_bytes).ok()
}

/// The position of the call with this key.
pub(super) fn find<R: Reads>(tree: &R, key: &str) -> Result<Option<u64>, R::Error> {
    Ok(tree.value(&key_of(key))?.and_then(|value| number(&value)))
}

/// The head at this position.
pub(super) fn head<R: Reads>(tree: &R, position: u64) -> Result<Option<Head>, R::Error> {
    let open = tree.value(&head_of(true, position))?;
    let value = if open.is_some() { open } else { tree.value(&head_of(false, position))? };
    Ok(value.map(|value| Head::of(&value)))
}

/// The heads of entries that are open, or have ended, from this position on.
pub(super) fn heads(tree: &Tree, is_open: bool, from: u64) -> impl Iterator<Item = Result<(u64, Head), sled::Error>> {
    let lines = tree.range(head_of(is_open, from)..=head_of(is_open, u64::MAX));
    lines.filter_map(|line| line.map(|(key, value)| Some((number(&key[1..])?, Head::of(&value)))).transpose())
}

/// The entry at this position, as it was at one moment, although others write meanwhile.
pub(super) fn entry_at(tree: &Tree, position: u64) -> Result<Option<Entry>, sled::Error> {
    loop {
        let before = head(tree, position)?;
        let entry = before.clone().map(|head| entry(tree, position, head)).transpose()?;
        // Between its two places it is nowhere, and while its answer is written, that is not the one of its head.
        if head(tree, position)?.map(|head| head.fence) == before.map(|head| head.fence) {
            return Ok(entry);
        }
    }
}

/// The entry with its call and its answer.
pub(super) fn entry<R: Reads>(tree: &R, position: u64, head: Head) -> Result<Entry, R::Error> {
    let call = Call::from_json(&text(tree, b'c', position, head.call)?);
    let answer = head.answer.map(|length| text(tree, b'a', position, length)).transpose()?;
    let answer = answer.and_then(|json| Answer::from_json(&json));
    Ok(Entry { answer, ..head.entry(position) }.with_call(call))
}

/// Reads a text of this length. If a part is missing or damaged, it is no text that means anything.
pub(super) fn text<R: Reads>(tree: &R, kind: u8, position: u64, length: usize) -> Result<String, R::Error> {
    let mut bytes = Vec::new();
    for number in 0..length.div_ceil(PART) {
        // A damaged head may have any length.
        let Some(part) = tree.value(&part_of(kind, position, number))? else { break };
        bytes.extend_from_slice(&part);
    }
    Ok(if bytes.len() == length { String::from_utf8(bytes).unwrap_or_default() } else { String::new() })
}

/// Writes a text, over one of `before` bytes.
pub(super) fn write_text(
    tree: &TransactionTree<'_>,
    kind: u8,
    position: u64,
    text: &str,
    before: usize,
) -> Result<(), TransactionError> {
    let parts = text.as_bytes().chunks(PART);
    for number in parts.len()..before.div_ceil(PART) {
        tree.remove(part_of(kind, position, number))?;
    }
    for (number, part) in parts.enumerate() {
        tree.insert(part_of(kind, position, number), part)?;
    }
    Ok(())
}

/// Writes a head, and removes it from where the state before had it.
pub(super) fn write_head(tree: &TransactionTree<'_>, position: u64, head: &Head) -> Result<(), TransactionError> {
    tree.remove(head_of(!is_open(head.state), position))?;
    tree.insert(head_of(is_open(head.state), position), head.to_json()).map(drop)
}

/// The next position.
pub(super) fn next_position(tree: &TransactionTree<'_>) -> Result<u64, TransactionError> {
    let last = tree.get(LAST)?.map_or(Some(0), |value| number(&value));
    // A position that was given already would overwrite a call.
    let damaged = || TransactionError::Database("the outbox's last position is damaged".to_owned());
    let next = last.ok_or_else(damaged)? + 1;
    tree.insert(LAST, &next.to_be_bytes())?;
    Ok(next)
}

/// Removes all of an entry.
pub(super) fn remove(tree: &TransactionTree<'_>, position: u64, head: &Head) -> Result<(), TransactionError> {
    write_text(tree, b'c', position, "", head.call)?;
    write_text(tree, b'a', position, "", head.answer.unwrap_or(0))?;
    tree.remove(head_of(is_open(head.state), position))?;
    tree.remove(key_of(&head.key)).map(drop)
}
