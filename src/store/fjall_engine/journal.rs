//! Examines fjall's journals before fjall opens them.
//!
//! A journal is a file `N.jnl`: a row of batches, and zeros behind the last one. fjall writes to the one with the
//! highest number. The others are complete and were synced, unless fjall could not begin the next one. fjall removes
//! them, the oldest first, when tables have what is in them.
//!
//! A batch, all numbers little-endian: `1`, the number of its entries (4 bytes), its sequence number (8); the entries;
//! `3`, the XXH3 of the entries (8), `FJL` and `3`. An entry is `2`, a type, a compression, the number of a keyspace
//! (8), the lengths of the key (2), of the value (4), and of the value as it is stored (4), the key, the value; or `4`
//! and the number of a keyspace (8), which removes all of its keys.
//!
//! Within a keyspace, sequence numbers rise from batch to batch, until it is cleared. No checksum covers them. fjall
//! leaves out what a batch has for a keyspace whose tables have its number or a higher one, and panics at numbers from
//! 2^63 on. A crash leaves no whole batch with another number than its own, so a number that does not rise is damage.
//!
//! When fjall opens a database, it cuts a journal off at the first batch whose form is wrong, **even if whole batches
//! follow, and in the middle of a row of journals** (fjall-rs/fjall#311). If only the checksum is wrong, it refuses to
//! open, even if it is the last batch, of which a power cut has left a part. So the journals are read before:
//! - A journal before one with a batch has to be whole, and no number may be missing. All else is damage.
//! - The last journal with a batch may end with a torn one. It is then cut off before that batch. If the checkpoint
//!   (`files/checkpoint.rs`) says that more was durable, the opening is refused before. If no step of the store's
//!   precedes the damage, but step n follows it, the last one that can be there is n - 1.
//! - Each step of the store's has the next number. Once fjall is open, and says what its tables have, [`gap`] compares.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::store::embedded::{Checkpoint, FileDamage, TOTALS, Totals};

/// The directory of the keyspaces, each of which is a directory with its number.
pub(super) const KEYSPACES: &str = "keyspaces";

const BATCH: [u8; 1] = [1];
const ENTRY: [u8; 1] = [2];
const END: [u8; 1] = [3];
const CLEAR: [u8; 1] = [4];
const TRAILER: &[u8; 4] = b"FJL\x03";
/// The sequence numbers from here on are not for batches.
const NUMBERS: u64 = 1 << 63;

/// The suffix of a journal behind a loss that was accepted. fjall does not read it.
const LOST: &str = "lost";

/// The journals of a database, in the order of their numbers.
struct Journals {
    files: Vec<(u64, PathBuf)>,
    /// The numbers of the keyspaces that the batches that can be read write to.
    keyspaces: BTreeSet<u64>,
    /// Where they can't be read any more, if they go on.
    broken: Option<Break>,
}

/// The end of what can be read.
struct Break {
    /// The index of the journal, and the length of its whole batches.
    file: usize,
    length: usize,
    damage: FileDamage,
}

/// A whole batch.
struct JournalBatch {
    length: usize,
    number: u64,
    /// The numbers of the keyspaces that it writes to, and of those that it clears afterwards.
    keyspaces: Vec<u64>,
    cleared: Vec<u64>,
    /// The step of the totals that it writes.
    step: Option<Checkpoint>,
}

/// Returns the numbers of the journals, in their order. fjall writes to the last one.
pub(super) fn numbers(path: &Path) -> io::Result<Vec<u64>> {
    Ok(files(path)?.into_iter().map(|(number, _)| number).collect())
}

/// Returns the name of a journal.
pub(super) fn file(path: &Path, number: u64) -> PathBuf {
    path.join(format!("{number}.jnl"))
}

/// Returns the length of the whole batches that `bytes` begin with.
pub(super) fn whole(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    // The steps of the store's don't matter, so no keyspace is the store's.
    while let Some(batch) = JournalBatch::read(rest, u64::MAX) {
        rest = &rest[batch.length..];
    }
    bytes.len() - rest.len()
}

/// Returns what is wrong with the journals of the database in `path`, and which keyspaces they write to.
pub(super) fn examine(path: &Path) -> io::Result<(Option<FileDamage>, BTreeSet<u64>)> {
    let Journals { keyspaces, broken, .. } = Journals::read(path)?;
    Ok((broken.map(|broken| broken.damage), keyspaces))
}

/// Returns two steps of the store's between which others are missing, if there are such. `step` is the last one in the
/// tables of the store's keyspace, and `last` the highest sequence number there: fjall leaves out the batches up to it.
pub(super) fn gap(path: &Path, store: u64, last: Option<u64>, mut step: u64) -> io::Result<Option<(u64, u64)>> {
    for (_, file) in files(path)? {
        let bytes = read(&file)?;
        let mut rest = &bytes[..];
        while let Some(batch) = JournalBatch::read(rest, store) {
            rest = &rest[batch.length..];
            let Some(next) = batch.step.filter(|_| last < Some(batch.number)) else { continue };
            if next.step > step.saturating_add(1) {
                return Ok(Some((step, next.step)));
            }
            step = next.step;
        }
    }
    Ok(None)
}

/// Cuts the journals off where they can't be read: a power cut has left a part of the last batch, or the loss of what
/// follows is accepted. Journals behind that place get another name, if anything is in them. If the process dies
/// meanwhile, the damage is still there.
pub(super) fn cut_off(path: &Path) -> io::Result<()> {
    let Journals { files, broken, .. } = Journals::read(path)?;
    let Some(Break { file, length, damage: FileDamage { what, .. } }) = broken else { return Ok(()) };
    for (_, name) in files[file + 1..].iter().rev() {
        if read(name)?.is_empty() {
            fs::remove_file(name)?;
            continue;
        }
        let (mut lost, mut more) = (name.with_extension(LOST), 0);
        while lost.try_exists()? {
            more += 1;
            lost = name.with_extension(format!("{more}.{LOST}"));
        }
        fs::rename(name, lost)?;
    }
    File::open(path)?.sync_all()?;
    let journal = OpenOptions::new().write(true).open(&files[file].1)?;
    journal.set_len(length as u64)?;
    journal.sync_all()?;
    tracing::info!(target: "tower_idempotency", path = %path.display(), what, "fjall's journals are cut off there");
    Ok(())
}

impl Journals {
    fn read(path: &Path) -> io::Result<Self> {
        let mut journals = Self { files: files(path)?, keyspaces: BTreeSet::new(), broken: None };
        let store = store_keyspace(path)?;
        // The last sequence number in each keyspace, and the last step of the store's.
        let (mut numbers, mut last) = (HashMap::new(), None);
        for (index, (number, file)) in journals.files.iter().enumerate() {
            let bytes = read(file)?;
            let (mut length, mut is_wrong) = (0, false);
            while let Some(batch) = JournalBatch::read(&bytes[length..], store) {
                is_wrong = !batch.rises(&mut numbers);
                if is_wrong {
                    break;
                }
                length += batch.length;
                last = batch.step.or(last);
                journals.keyspaces.extend(batch.keyspaces);
            }
            let next = journals.files.get(index + 1).map(|(next, _)| *next);
            let (what, is_certain) = if length < bytes.len() {
                let mut later =
                    (length + 1..bytes.len()).filter_map(|at| JournalBatch::read(&bytes[at..], store)).peekable();
                let mut goes_on = false;
                for (_, later) in &journals.files[index + 1..] {
                    goes_on |= !read(later)?.is_empty();
                }
                let is_followed = later.peek().is_some();
                let behind = match (is_wrong, goes_on || is_followed) {
                    (true, _) => ", where the number of a batch is wrong",
                    (false, true) => ", though it goes on after that",
                    (false, false) => "",
                };
                // A write that fails halfway leaves nothing behind it, and all before was synced.
                let is_certain = is_wrong || goes_on || (next.is_some() && is_followed);
                if !is_certain && last.is_none() {
                    let before = |step: Checkpoint| Checkpoint { step: step.step.saturating_sub(1), ..step };
                    last = later.find_map(|batch| batch.step).map(before);
                }
                (format!("the journal {number}.jnl can't be read from byte {length} on{behind}"), is_certain)
            } else if next.is_some_and(|next| next != number + 1) {
                (format!("the journal {}.jnl is missing", number + 1), true)
            } else {
                continue;
            };
            journals.broken = Some(Break { file: index, length, damage: FileDamage { what, is_certain, last } });
            break;
        }
        Ok(journals)
    }
}

impl JournalBatch {
    /// Reads the batch that `bytes` begin with, if it is whole. `store` is the number of the store's keyspace.
    fn read(bytes: &[u8], store: u64) -> Option<Self> {
        let mut rest = bytes;
        (take(&mut rest)? == BATCH).then_some(())?;
        let (count, number) = (u32::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        let mut batch = Self { length: 0, number, keyspaces: Vec::new(), cleared: Vec::new(), step: None };
        let entries = rest;
        for _ in 0..count {
            match take(&mut rest)? {
                ENTRY => batch.entry(&mut rest, store)?,
                CLEAR => batch.cleared.push(u64::from_le_bytes(take(&mut rest)?)),
                _ => return None,
            }
        }
        let entries = &entries[..entries.len() - rest.len()];
        (take(&mut rest)? == END).then_some(())?;
        (u64::from_le_bytes(take(&mut rest)?) == xxh3_64(entries)).then_some(())?;
        (take(&mut rest)? == *TRAILER).then_some(())?;
        batch.length = bytes.len() - rest.len();
        Some(batch)
    }

    /// Reads an entry.
    fn entry(&mut self, rest: &mut &[u8], store: u64) -> Option<()> {
        let [_, compression] = take(rest)?;
        let (keyspace, key) = (u64::from_le_bytes(take(rest)?), u16::from_le_bytes(take(rest)?));
        let [value, stored] = [u32::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?)];
        // No checksum covers this either; fjall relies on it.
        (compression != 0 || value == stored).then_some(())?;
        let (key, value) = (split(rest, key.into())?, split(rest, stored as usize)?);
        if !self.keyspaces.contains(&keyspace) {
            self.keyspaces.push(keyspace);
        }
        // The application may have the same key.
        if keyspace == store && key == TOTALS {
            self.step = Totals::decode(value).map(|totals| totals.checkpoint());
        }
        Some(())
    }

    /// Returns whether its sequence number is higher than the last one in each of its keyspaces, and notes it there.
    fn rises(&self, numbers: &mut HashMap<u64, u64>) -> bool {
        let mut rises = self.number < NUMBERS;
        for keyspace in &self.keyspaces {
            rises &= numbers.insert(*keyspace, self.number).is_none_or(|last| last < self.number);
        }
        // What is written later may have a number again that only keys of a cleared keyspace had.
        numbers.retain(|keyspace, _| !self.cleared.contains(keyspace));
        rises
    }
}

/// Returns the number of the store's keyspace. It is the lowest one: the store makes its keyspace before it lends
/// others, and fjall gives out each number once. (Number 0 is its own.)
fn store_keyspace(path: &Path) -> io::Result<u64> {
    let mut lowest = u64::MAX;
    match fs::read_dir(path.join(KEYSPACES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        keyspaces => {
            for keyspace in keyspaces? {
                let number = keyspace?.file_name().to_str().and_then(|name| name.parse().ok());
                lowest = number.filter(|number| *number > 0).unwrap_or(lowest).min(lowest);
            }
        }
    }
    Ok(lowest)
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

/// Reads a journal up to its last byte that is not zero. fjall makes it 64 MiB long before it writes to it, so what is
/// read and found empty takes no memory.
fn read(journal: &Path) -> io::Result<Vec<u8>> {
    static ZEROS: [u8; 65_536] = [0; 65_536];
    let (mut file, mut chunk) = (File::open(journal)?, Vec::with_capacity(ZEROS.len()));
    let (mut bytes, mut length) = (Vec::new(), 0);
    while file.by_ref().take(ZEROS.len() as u64).read_to_end(&mut chunk)? > 0 {
        if chunk != ZEROS[..chunk.len()] {
            bytes.resize(length, 0);
            bytes.extend_from_slice(&chunk);
        }
        length += chunk.len();
        chunk.clear();
    }
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(bytes)
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
