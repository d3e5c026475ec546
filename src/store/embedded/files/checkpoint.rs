//! The checkpoint: a small file of the store's own that says which step was the last durable one, so that an opening
//! notices what a damaged disk has taken.
//!
//! After a crash, an engine takes damage in its log for the torn end of the log, and drops everything that follows. The
//! totals cannot show that, because they are in the same log and go with it. The checkpoint is outside of the engine.
//! If the last step that the engine recovers is an earlier one than the checkpoint's, steps that were durable are
//! missing.
//!
//! A new checkpoint is written to another file, synced, and renamed over the old one, and the directory is synced. So
//! there is always one whole checkpoint. A checkpoint never says more than what was durable when it was written. It may
//! say less: `checkpointer.rs` writes one at most once a second.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::directory::{self, CHECKPOINT_FILE, NEW_CHECKPOINT_FILE};
use crate::clock::Timestamp;
use crate::codec::{CHECKSUM_BYTES, checksum};
use crate::store::OpenError;
use crate::store::embedded::layout::storage_engine::FileDamage;
use crate::store::embedded::layout::totals::Checkpoint;

/// The beginning of the file. The numbers of the checkpoint follow, and a checksum.
const HEAD: &[u8] = b"tower-idempotency checkpoint\n";

/// The checkpoint, or what there is in place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its checksum fits.
    Whole(Checkpoint),
    /// There is no such file, as in a new store.
    Missing,
    /// There is a file, but its checksum does not fit. It may hide a loss, so an opening is refused.
    Damaged,
}

/// The facts about a store's directory that are known before its engine is opened.
#[derive(Debug)]
pub(crate) struct Prior<'a> {
    pub(crate) path: &'a Path,
    /// `true` if the lock file says that an opening was complete.
    pub(crate) is_complete: bool,
    /// `true` if something may have been recorded.
    pub(crate) was_used: bool,
    /// The content of the checkpoint file, which says up to which step everything was durable.
    pub(crate) checkpoint: Found,
    /// The step after which a loss is accepted.
    pub(crate) accepted: Option<u64>,
    /// What is wrong with the engine's files, once they are examined.
    pub(crate) damage: Option<FileDamage>,
}

/// The finding about the checkpoint when a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// It is as it should be.
    Holds,
    /// There is none yet. Nothing was recorded in the directory before.
    New,
    /// Something was missing, and the builder accepts that. The checkpoint is written anew, and says what is there.
    Accepted,
}

impl Checkpoint {
    fn encode(self) -> Vec<u8> {
        let numbers = [self.step, self.time.as_millis()].map(u64::to_be_bytes).concat();
        [HEAD, &numbers, &checksum(HEAD, &numbers)].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, sum) = bytes.strip_prefix(HEAD)?.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(HEAD, numbers) != *sum {
            return None;
        }
        let ([step, time], []) = numbers.as_chunks::<8>() else { return None };
        Some(Self { step: u64::from_be_bytes(*step), time: Timestamp::from_millis(u64::from_be_bytes(*time)) })
    }

    /// Makes this the checkpoint of the store in `path`, durably.
    pub(crate) fn write(self, path: &Path) -> Result<(), OpenError> {
        let (new, old) = (path.join(NEW_CHECKPOINT_FILE), path.join(CHECKPOINT_FILE));
        let written =
            File::create(&new).and_then(|mut file| file.write_all(&self.encode()).and_then(|()| file.sync_all()));
        written.map_err(directory::io_error("writing", &new))?;
        fs::rename(&new, &old).map_err(directory::io_error("renaming", &new))?;
        directory::sync_one(path)
    }
}

/// Reads the checkpoint of the store in `path`.
pub(crate) fn read(path: &Path) -> Result<Found, OpenError> {
    let file = path.join(CHECKPOINT_FILE);
    match fs::read(&file) {
        Ok(bytes) => Ok(Checkpoint::decode(&bytes).map_or(Found::Damaged, Found::Whole)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Missing),
        Err(error) => Err(directory::io_error("reading", &file)(error)),
    }
}

impl Prior<'_> {
    /// Compares the checkpoint that was found with the last step that was recovered.
    pub(crate) fn check(&self, last: Checkpoint) -> Result<Check, OpenError> {
        let damage = self.damage.as_ref();
        match self.checkpoint {
            // `check_damage` has accepted it, and has removed the checkpoint.
            Found::Whole(found) if found.step <= last.step && damage.is_some_and(|damage| damage.is_certain) => {}
            Found::Whole(found) if found.step <= last.step => return Ok(Check::Holds),
            Found::Missing if !self.was_used => return Ok(Check::New),
            _ => self.require_accepted(self.lost(last, damage))?,
        }
        last.write(self.path)?;
        Ok(Check::Accepted)
    }

    /// Returns the error for a loss of what came after `last`.
    fn lost(&self, last: Checkpoint, damage: Option<&FileDamage>) -> OpenError {
        // The number of missing steps, if it is known, and the loss in words, for the error and the log.
        let (missing, what) = match self.checkpoint {
            Found::Whole(found) => {
                let missing = found.step.saturating_sub(last.step);
                (Some(missing), format!("the last {missing} batches of writes are missing, until {}", utc(found.time)))
            }
            Found::Missing => (None, format!("{CHECKPOINT_FILE} is missing, so it is unknown how much else is")),
            Found::Damaged => (None, format!("{CHECKPOINT_FILE} is damaged, so it is unknown how much is missing")),
        };
        let damage = damage.map_or_else(String::new, |damage| format!("; {}", damage.what));
        let reason =
            format!("{what}. The last batch that is there, number {}, is of {}{damage}", last.step, utc(last.time));
        OpenError::Lost { path: self.path.into(), last: last.step, missing, since: Some(last.time), reason }
    }

    /// Refuses a store whose files are certainly damaged, or damaged before the step of the checkpoint, or damaged
    /// without a checkpoint, unless that loss is accepted. Without a checkpoint and a known step,
    /// [`check`](Self::check) refuses it.
    ///
    /// If it is accepted, the checkpoint is removed until the opening has written a new one. The engine forgets the
    /// damage when it is opened, so a process that dies meanwhile must not leave a store that looks whole.
    pub(crate) fn check_damage(&self, damage: Option<&FileDamage>) -> Result<(), OpenError> {
        let Some(FileDamage { what, is_certain, last }) = damage else { return Ok(()) };
        let last_of_lost = match self.checkpoint {
            Found::Whole(found) => last.filter(|last| last.step < found.step),
            Found::Missing if !self.was_used => None,
            // Nothing says that no more was durable.
            Found::Missing | Found::Damaged => *last,
        };
        if let Some(last) = last_of_lost {
            // `check` finds the same loss once the engine is open, and logs that it is accepted.
            return if self.accepted == Some(last.step) { Ok(()) } else { Err(self.lost(last, damage)) };
        }
        let (Found::Whole(Checkpoint { step, time }), true) = (self.checkpoint, *is_certain) else { return Ok(()) };
        let reason = format!(
            "records that changed since the opening before the last one may be missing: {what}. The last batch of the \
             checkpoint, number {step}, is of {}",
            utc(time)
        );
        self.require_accepted(OpenError::Lost {
            path: self.path.into(),
            last: step,
            missing: None,
            since: None,
            reason,
        })?;
        let file = self.path.join(CHECKPOINT_FILE);
        fs::remove_file(&file).map_err(directory::io_error("removing", &file))?;
        directory::sync_one(self.path)
    }

    /// Returns the loss as an error, unless it is the one that is accepted.
    fn require_accepted(&self, lost: OpenError) -> Result<(), OpenError> {
        match &lost {
            OpenError::Lost { path, last, missing, reason, .. } if self.accepted == Some(*last) => tracing::error!(
                target: "tower_idempotency", path = %path.display(), last, missing, reason,
                "the store has lost records and is opened without them, as accept_loss_after says: their keys can run again"
            ),
            _ => return Err(lost),
        }
        Ok(())
    }
}

/// Returns a time in the form of RFC 3339.
fn utc(time: Timestamp) -> String {
    let seconds = time.as_millis() / 1_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from the first of March of the year 0, so that a leap day is the last of its year. 400 years
    // have 146,097 days, and five months from March on 153.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: u64) -> Checkpoint {
        Checkpoint { step, time: Timestamp::from_millis(1_000) }
    }

    #[test]
    fn times_are_written_as_people_read_them() {
        let written = |seconds: u64| utc(Timestamp::from_millis(seconds * 1_000));
        assert_eq!(written(0), "1970-01-01T00:00:00Z");
        assert_eq!(written(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(written(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(written(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(written(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(written(1_798_761_599), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn a_checkpoint_of_which_any_bit_or_byte_is_wrong_is_no_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), Found::Missing);
        checkpoint(7).write(directory.path()).unwrap();
        checkpoint(8).write(directory.path()).unwrap();
        assert_eq!(read(directory.path()).unwrap(), Found::Whole(checkpoint(8)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left of the writing");
        let bytes = checkpoint(8).encode();
        for at in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(Checkpoint::decode(&flipped), None, "bit {bit} of byte {at}");
            }
        }
        assert_eq!(Checkpoint::decode(&[&bytes[..], b"x"].concat()), None);
    }

    #[test]
    fn a_loss_is_accepted_after_the_named_batch_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let check = |found, was_used, accepted| {
            let known = Prior { path, is_complete: was_used, was_used, checkpoint: found, accepted, damage: None };
            known.check(checkpoint(5))
        };
        for found in [Found::Whole(checkpoint(4)), Found::Whole(checkpoint(5))] {
            assert_eq!(check(found, true, None).unwrap(), Check::Holds);
        }
        assert_eq!(check(Found::Missing, false, None).unwrap(), Check::New);
        for (found, used, expected) in [
            (Found::Whole(checkpoint(6)), true, Some(1)),
            // The file that says that the directory was used may have been lost too.
            (Found::Whole(checkpoint(9)), false, Some(4)),
            (Found::Damaged, true, None),
            (Found::Missing, true, None),
        ] {
            for accepted in [None, Some(4), Some(6)] {
                let lost = check(found, used, accepted).unwrap_err();
                assert!(matches!(lost, OpenError::Lost { last: 5, missing, .. } if missing == expected), "{lost:?}");
                assert!(lost.to_string().contains("restore the directory from a backup"), "{lost}");
                assert!(lost.to_string().contains("accept_loss_after(5)"), "{lost}");
            }
            assert_eq!(check(found, used, Some(5)).unwrap(), Check::Accepted);
            assert_eq!(read(directory.path()).unwrap(), Found::Whole(checkpoint(5)), "the loss is over");
        }
    }
}
