//! Examines fjall's journals before fjall opens them.
//!
//! A journal is a file `N.jnl`: a row of batches, and zeros behind the last one. fjall writes to the one with the
//! highest number. The others are complete and were synced. fjall removes them, the oldest first, when tables have what
//! is in them.
//!
//! A batch, all numbers little-endian: `1`, the number of its entries (4 bytes), its sequence number (8); the entries;
//! `3`, the XXH3 of the entries (8), `FJL` and `3`. An entry is `2`, a type, a compression, the number of a keyspace
//! (8), the lengths of the key (2), of the value (4), and of the value as it is stored (4), the key, the value; or `4`
//! and the number of a keyspace (8), which removes all of its keys. Sequence numbers rise from batch to batch; no
//! checksum covers them, and fjall drops a batch whose number is too low. (That of a batch which only clears keyspaces
//! may be used again after an opening, because no key has it.)
//!
//! When fjall opens a database, it cuts a journal off at the first batch whose form is wrong, **even if whole batches
//! follow, and in the middle of a row of journals** (fjall-rs/fjall#311). If only the checksum is wrong, it refuses to
//! open, even if it is the last batch, of which a power cut has left a part. So the journals are read before:
//! - A journal that is followed by another one has to be whole, and no number may be missing. All else is damage.
//! - The last journal may end with a torn batch. It is then cut off before that batch. If the
//!   mark (`files/mark.rs`) says that more was durable, the opening is refused before.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::store::embedded::{Damage, Mark, TOTALS, Totals};

const BATCH: [u8; 1] = [1];
const ENTRY: [u8; 1] = [2];
const END: [u8; 1] = [3];
const CLEAR: [u8; 1] = [4];
const TRAILER: &[u8; 4] = b"FJL\x03";

/// The suffix of a journal behind a loss that was accepted. fjall does not read it.
const LOST: &str = "lost";

/// The journals of a database, in the order of their numbers.
struct Journals {
    files: Vec<(u64, PathBuf)>,
    /// The last step of the store's in the batches that can be read.
    last: Option<Mark>,
    /// Where they can't be read any more, if they go on.
    broken: Option<Break>,
}

/// The end of what can be read.
struct Break {
    /// The index of the journal, and the length of its whole batches.
    file: usize,
    length: usize,
    /// `true` if no crash leaves this.
    is_certain: bool,
    /// A clause for an error.
    what: String,
}

/// A whole batch.
struct Batch {
    length: usize,
    number: u64,
    has_keys: bool,
    /// The totals that it writes, and the number of their keyspace.
    totals: Option<(u64, Mark)>,
}

/// Returns whether there is any journal. fjall would begin its sequence numbers anew without one, and at the next
/// opening drop what it wrote under them.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    Ok(!files(path)?.is_empty())
}

/// Returns what is wrong with the journals of the database in `path`.
pub(super) fn examine(path: &Path) -> io::Result<Option<Damage>> {
    let Journals { last, broken, .. } = Journals::read(path)?;
    Ok(broken.map(|Break { what, is_certain, .. }| Damage { what, is_certain, last }))
}

/// Returns the first step of the store's in a batch of a higher number than `number`, from the totals in this keyspace.
pub(super) fn first_step_after(path: &Path, number: Option<u64>, keyspace: u64) -> io::Result<Option<u64>> {
    for (_, file) in files(path)? {
        let bytes = match fs::read(file) {
            // Tables have all of it by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let mut rest = &bytes[..];
        while let Some(batch) = Batch::read(rest) {
            rest = &rest[batch.length..];
            let totals = batch.totals.filter(|(of, _)| *of == keyspace && number < Some(batch.number));
            if let Some((_, mark)) = totals {
                return Ok(Some(mark.step));
            }
        }
    }
    Ok(None)
}

/// Cuts the journals off where they can't be read: a power cut has left a part of the last batch, or the loss of what
/// follows is accepted. Journals behind that place get another name.
pub(super) fn cut_off(path: &Path) -> io::Result<()> {
    let Journals { files, broken, .. } = Journals::read(path)?;
    let Some(Break { file, length, .. }) = broken else { return Ok(()) };
    for (index, (_, name)) in files.iter().enumerate().skip(file) {
        if index == file {
            let journal = OpenOptions::new().write(true).open(name)?;
            journal.set_len(length as u64)?;
            journal.sync_all()?;
        } else {
            fs::rename(name, name.with_extension(LOST))?;
        }
    }
    File::open(path)?.sync_all()
}

impl Journals {
    fn read(path: &Path) -> io::Result<Self> {
        let mut journals = Self { files: files(path)?, last: None, broken: None };
        // The number of the last batch, and the number of the store's keyspace, which is the first one that was made.
        let (mut last, mut store) = (None, u64::MAX);
        for (index, (number, file)) in journals.files.iter().enumerate() {
            let bytes = fs::read(file)?;
            let mut length = 0;
            while let Some(batch) = Batch::read(&bytes[length..]).filter(|batch| last < Some(batch.number)) {
                length += batch.length;
                last = last.max(batch.has_keys.then_some(batch.number));
                if let Some((keyspace, mark)) = batch.totals.filter(|(keyspace, _)| *keyspace <= store) {
                    (store, journals.last) = (keyspace, Some(mark));
                }
            }
            let next = journals.files.get(index + 1).map(|(next, _)| *next);
            let end = without_zeros(&bytes);
            let (what, is_certain) = if length < end {
                let goes_on = next.is_some() || (length + 1..end).any(|at| Batch::read(&bytes[at..]).is_some());
                let behind = if goes_on { ", though it goes on after that" } else { "" };
                (format!("the journal {number}.jnl can't be read from byte {length} on{behind}"), next.is_some())
            } else if next.is_some_and(|next| next != number + 1) {
                (format!("the journal {}.jnl is missing", number + 1), true)
            } else {
                continue;
            };
            journals.broken = Some(Break { file: index, length, is_certain, what });
            break;
        }
        Ok(journals)
    }
}

impl Batch {
    /// Reads the batch that `bytes` begin with, if it is whole.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        (take(&mut rest)? == BATCH).then_some(())?;
        let (count, number) = (u32::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        let (entries, mut totals, mut has_keys) = (rest, None, false);
        for _ in 0..count {
            match take(&mut rest)? {
                ENTRY => (totals, has_keys) = (entry(&mut rest)?.or(totals), true),
                CLEAR => drop(take::<8>(&mut rest)?),
                _ => return None,
            }
        }
        let entries = &entries[..entries.len() - rest.len()];
        (take(&mut rest)? == END).then_some(())?;
        (u64::from_le_bytes(take(&mut rest)?) == xxh3_64(entries)).then_some(())?;
        (take(&mut rest)? == *TRAILER).then_some(())?;
        Some(Self { length: bytes.len() - rest.len(), number, has_keys, totals })
    }
}

/// Reads an entry. Returns the totals, if it sets them.
#[allow(clippy::option_option, reason = "the outer one says that it can't be read")]
fn entry(rest: &mut &[u8]) -> Option<Option<(u64, Mark)>> {
    let [_, compression] = take(rest)?;
    let (keyspace, key) = (u64::from_le_bytes(take(rest)?), u16::from_le_bytes(take(rest)?));
    let [value, stored] = [u32::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?)];
    // No checksum covers this either; fjall relies on it.
    (compression != 0 || value == stored).then_some(())?;
    let (key, value) = (split(rest, key.into())?, split(rest, stored as usize)?);
    let totals = Some(value).filter(|_| key == TOTALS).and_then(Totals::decode);
    Some(totals.map(|totals| (keyspace, totals.mark())))
}

/// Takes the next bytes, if there are so many.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    split(rest, N)?.try_into().ok()
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// Returns the length of `bytes` without the zeros at their end. A journal ends with up to 64 MiB of them.
fn without_zeros(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4_096] = [0; 4_096];
    let is_zero = |chunk: &&[u8]| **chunk == ZEROS[..chunk.len()];
    let zeros: usize = bytes.rchunks(ZEROS.len()).take_while(is_zero).map(<[u8]>::len).sum();
    bytes[..bytes.len() - zeros].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Returns the journals in `path`, with their numbers.
fn files(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "jnl")
            && let Some(number) = file.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            files.push((number, file));
        }
    }
    files.sort_unstable();
    Ok(files)
}
