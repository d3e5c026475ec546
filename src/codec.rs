//! Encodes records as bytes.
//!
//! # Format 1
//! ```text
//! ┌─────────┬──────────────────────────┬──────────────────────┐
//! │ 1 byte  │ n bytes                  │ 8 bytes              │
//! │ version │ postcard of Record<Stored> │ checksum             │
//! └─────────┴──────────────────────────┴──────────────────────┘
//! ```
//! - *version*: 1.
//! - *record*: [postcard's wire format](https://postcard.jamesmunns.com/wire-format) of [`Record`] with its fields in
//!   the order of their declaration: integers are varints, arrays have no length, enums begin with their index, options
//!   with 0 or 1, and durations are seconds and nanoseconds. A store that several processes share keeps the first four
//!   fields, which the store stamps, as columns of their own; its bytes begin with the fifth. The owner of a record is
//!   not in its bytes. An outcome is [`Stored::Inline`] up to 3 KiB, or else [`Stored::Chunked`]: its length and a
//!   16-byte digest (BLAKE3), while its bytes are kept elsewhere in chunks.
//! - *checksum*: the first 8 bytes of BLAKE3 over record id, version and record. A record that was damaged, or that is
//!   stored under another id than its own, does not pass.
//!
//! # Versions
//! | version | since | what changed |
//! |---|---|---|
//! | 1 | 0.1 | the first released version |
//!
//! A format changes only in a breaking release, which goes on reading the older ones. Files of each version are kept
//! under `tests/fixtures` and read by a test. Those of a new version are written by
//! `cargo test --lib codec -- --ignored`.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::key::RecordId;
use crate::record::{Owner, Record, State};

/// The format that this release writes: the first byte of a record.
pub(crate) const VERSION: u8 = 1;
/// The length of the checksum. It shows damage; it is no protection against a program that forges records.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// The longest outcome that is kept within its record, in bytes. With the other fields the value stays below 4 KiB:
/// sled keeps longer ones in files that it never syncs.
pub(crate) const MAX_INLINE: usize = 3 * 1024;

/// The form in which an outcome is stored in a record's bytes. They have a variant's index, so the order of the
/// variants stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stored {
    /// The outcome's bytes are here.
    Inline(Bytes),
    /// The outcome's bytes are in chunks elsewhere.
    Chunked { length: u64, digest: [u8; 16] },
}

impl Stored {
    /// Returns the form in which `outcome` is stored.
    pub(crate) fn of(outcome: &Bytes) -> Self {
        if outcome.len() <= MAX_INLINE {
            Self::Inline(outcome.clone())
        } else {
            Self::Chunked { length: outcome.len() as u64, digest: digest(outcome) }
        }
    }

    /// Returns the length of the outcome.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunked { length, .. } => *length,
        }
    }
}

/// Returns the digest by which an outcome is checked after it was put together from its chunks.
pub(crate) fn digest(outcome: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(outcome).as_bytes()[..16]);
    digest
}

/// The bytes are not a record of this id. The store was damaged, or another program wrote to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the record is of format {0}; this release reads format {VERSION}")]
    Version(u8),
    #[error("the record's checksum does not fit its bytes")]
    Checksum,
    #[error("the record's bytes make no sense, though their checksum fits")]
    Content,
}

/// Returns the bytes of `record`.
pub(crate) fn encode(id: &RecordId, record: &Record<Stored>) -> Result<Vec<u8>, CodecError> {
    seal(id, VERSION, record, record_bytes(record))
}

/// Returns the bytes of `value`, about this many: a version, the value, and their checksum.
pub(crate) fn seal(id: &RecordId, version: u8, value: &impl Serialize, about: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(about);
    bytes.push(version);
    let mut bytes = postcard::to_extend(value, bytes).map_err(|_| CodecError::Content)?;
    let checksum = checksum(id.as_bytes(), &bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// Returns the value that [`seal`] made the bytes of, with one of these versions.
pub(crate) fn open<T: DeserializeOwned>(id: &RecordId, versions: &[u8], bytes: &[u8]) -> Result<T, CodecError> {
    // A later release may write entirely different bytes after the first.
    if let Some(version) = bytes.first().filter(|version| !versions.contains(version)) {
        return Err(CodecError::Version(*version));
    }
    let (content, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(CodecError::Checksum)?;
    let (_, value) = content.split_first().ok_or(CodecError::Checksum)?;
    if checksum(id.as_bytes(), content) != *sum {
        return Err(CodecError::Checksum);
    }
    // Bytes after the value are no part of any format, so they are damage too.
    let Ok((value, [])) = postcard::take_from_bytes(value) else { return Err(CodecError::Content) };
    Ok(value)
}

/// Returns about how many bytes a record takes.
fn record_bytes(record: &Record<Stored>) -> usize {
    // The other fields take about this much. A wrong guess costs only an allocation.
    const HEAD: usize = 192;
    match &record.state {
        State::Completed { outcome: Stored::Inline(outcome), .. } => HEAD + outcome.len(),
        // There is no outcome, or it is in chunks elsewhere.
        _ => HEAD,
    }
}

/// Returns the record that `bytes` encode.
pub(crate) fn decode(id: &RecordId, bytes: &[u8]) -> Result<Record<Stored>, CodecError> {
    let record: Record<Stored> = open(id, &[VERSION], bytes)?;
    // A record of an earlier boot number is marked as interrupted before it is read, so a running one belongs to this
    // process.
    let owner = if matches!(record.state, State::Running { .. }) { Owner::Here } else { Owner::None };
    Ok(Record { owner, ..record })
}

/// Returns the checksum of the content under `key`, which does not pass under another key.
pub(crate) fn checksum(key: &[u8], content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let hash = blake3::Hasher::new().update(key).update(content).finalize();
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::fingerprint::Fingerprint;
    use crate::record::{ClaimPolicy, Described, Fence, Origin};
    use proptest::prelude::*;

    const ID: RecordId = RecordId::from_bytes([7; 32]);

    fn records() -> [(&'static str, Record<Stored>); 7] {
        let fingerprint = Fingerprint::builder(&ID).field("body", b"a=1").credential("cookie", b"c").finish();
        let time = Timestamp::from_millis;
        let (began, since) = (time(1_700_000_000_000), time(1_700_000_001_000));
        let (expires, fence, attempt) = (Some(time(1_700_086_400_000)), Fence(1 << 40 | 3), 2);
        let (origin, owner) = (Origin::default(), Owner::None);
        let record =
            |state| Record { fence, began, since, expires, fingerprint, attempt, origin: origin.clone(), state, owner };
        let running =
            State::Running { policy: ClaimPolicy::Refuse, interrupted_retention: Duration::from_secs(86_400) };
        let running = Record { expires: None, owner: Owner::Here, ..record(running) };
        let label = Some("POST /v1/charges".to_owned());
        let origin = Origin::of(Described { scope: Some([3; 32]), label, trace: Some([4; 16]) });
        let interrupted = |status| State::Interrupted { policy: ClaimPolicy::Rerun, run: Fence(1 << 40 | 2), status };
        let in_chunks = Stored::Chunked { length: 5_000, digest: digest(&[1; 5_000]) };
        [
            ("running", running.clone()),
            ("described", Record { origin, ..running }),
            ("interrupted", record(interrupted(None))),
            ("completed", record(State::Completed { outcome: Stored::Inline("answer".into()) })),
            ("chunked", record(State::Completed { outcome: in_chunks })),
            ("consumed", record(State::Consumed { status: 200 })),
            ("answered", record(interrupted(Some(504)))),
        ]
    }

    fn fixture(name: &str) -> String {
        format!("{}/tests/fixtures/record-v{VERSION}-{name}.bin", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    #[ignore = "it writes the fixtures of a new format, and is run by hand"]
    fn the_fixtures_are_written() {
        for (name, record) in records() {
            std::fs::write(fixture(name), encode(&ID, &record).unwrap()).unwrap();
        }
    }

    #[test]
    fn records_of_format_1_are_read_and_written_as_they_were() {
        for (name, record) in records() {
            let path = fixture(name);
            let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(decode(&ID, &bytes).as_ref(), Ok(&record), "{name}");
            assert_eq!(encode(&ID, &record).unwrap(), bytes, "{name}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_record_is_an_error() {
        let bytes = encode(&ID, &records()[3].1).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&ID, &damaged).is_err(), "a flipped bit at {at} went unseen");
            assert!(decode(&ID, &bytes[..at]).is_err(), "a cut at {at} went unseen");
        }
        assert_eq!(decode(&RecordId::from_bytes([8; 32]), &bytes), Err(CodecError::Checksum));
        let mut newer = bytes;
        newer[0] = VERSION + 1;
        assert_eq!(decode(&ID, &newer), Err(CodecError::Version(VERSION + 1)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&ID, &bytes).is_err());
            // The same with a checksum that fits.
            let mut content = vec![VERSION];
            content.extend_from_slice(&bytes);
            let sum = checksum(ID.as_bytes(), &content);
            content.extend_from_slice(&sum);
            let _ = decode(&ID, &content);
        }
    }
}
