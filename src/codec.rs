//! Records as bytes.
//!
//! # Format 2
//! ```text
//! ┌─────────┬──────────────────────────┬──────────────────────┐
//! │ 1 byte  │ n bytes                  │ 8 bytes              │
//! │ version │ postcard of Record<Held> │ checksum             │
//! └─────────┴──────────────────────────┴──────────────────────┘
//! ```
//! - *version*: 2.
//! - *record*: [postcard's wire format](https://postcard.jamesmunns.com/wire-format) of [`Record`] with its fields in
//!   the order of their declaration: integers are varints, arrays stand without a length, enums begin with their index.
//!   An outcome is [`Stored::Inline`] up to 3 KiB, or else [`Stored::Chunked`]: its length and a 16-byte digest
//!   (BLAKE3), the bytes being kept elsewhere in pieces.
//! - *checksum*: the first 8 bytes of BLAKE3 over record id, version and record. A record that was damaged, or that
//!   stands under another id than its own, doesn't pass.
//!
//! # Versions
//! | version | since | what changed |
//! |---|---|---|
//! | 1 | before 0.1 | the first |
//! | 2 | 0.1 | an interrupted record ends with the status that its client was answered, if it was |
//!
//! A format changes only in a breaking release, which goes on reading the older ones. Files of each version are kept
//! under `tests/fixtures` and read by a test.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::key::RecordId;
use crate::record::{Record, State};

const VERSION: u8 = 2;
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// The longest outcome that is kept within its record, in bytes.
pub(crate) const MAX_INLINE: usize = 3 * 1024;

/// How an outcome is held in a record's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stored {
    /// Here.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// In pieces elsewhere.
    Chunked { length: u64, digest: [u8; 16] },
}

impl Stored {
    /// How `outcome` is to be held.
    pub(crate) fn of(outcome: &Bytes) -> Self {
        if outcome.len() <= MAX_INLINE {
            Self::Inline(outcome.to_vec())
        } else {
            Self::Chunked { length: outcome.len() as u64, digest: digest(outcome) }
        }
    }

    /// The bytes of the outcome.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Chunked { length, .. } => *length,
        }
    }
}

/// The digest by which an outcome put together again from its pieces is checked.
pub(crate) fn digest(outcome: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(outcome).as_bytes()[..16]);
    digest
}

/// Bytes that are not a record of this id. The store was damaged, or another program wrote to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the record is of format {0}; this release reads formats 1 to {VERSION}")]
    Version(u8),
    #[error("the record's checksum does not fit its bytes")]
    Checksum,
    #[error("the record's bytes make no sense, though their checksum fits")]
    Content,
}

/// The bytes of `record`.
pub(crate) fn encode(id: &RecordId, record: &Record<Stored>) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(record_bytes(record));
    bytes.push(VERSION);
    let mut bytes = postcard::to_extend(record, bytes).map_err(|_| CodecError::Content)?;
    let checksum = checksum(id.as_bytes(), &bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// About what a record takes.
fn record_bytes(record: &Record<Stored>) -> usize {
    const HEAD: usize = 192;
    match &record.state {
        State::Completed { outcome: Stored::Inline(outcome), .. } => HEAD + outcome.len(),
        _ => HEAD,
    }
}

/// The record that `bytes` are.
pub(crate) fn decode(id: &RecordId, bytes: &[u8]) -> Result<Record<Stored>, CodecError> {
    let (content, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(CodecError::Checksum)?;
    let (version, record) = content.split_first().ok_or(CodecError::Checksum)?;
    if !(1..=VERSION).contains(version) {
        return Err(CodecError::Version(*version));
    }
    if checksum(id.as_bytes(), content) != *sum {
        return Err(CodecError::Checksum);
    }
    let decoded = if *version == 1 { decode_format_1(record) } else { decode_whole(record) };
    decoded.ok_or(CodecError::Content)
}

fn decode_whole(record: &[u8]) -> Option<Record<Stored>> {
    match postcard::take_from_bytes(record) {
        Ok((record, [])) => Some(record),
        _ => None,
    }
}

/// An interrupted record had no status, which format 2 writes as one zero at its end.
fn decode_format_1(record: &[u8]) -> Option<Record<Stored>> {
    decode_whole(record).or_else(|| decode_whole(&[record, &[0]].concat()))
}

/// The checksum of what stands under `key`: it doesn't pass under another one.
pub(crate) fn checksum(key: &[u8], content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let hash = blake3::Hasher::new().update(key).update(content).finalize();
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::fingerprint::Fingerprint;
    use crate::record::Fence;
    use proptest::prelude::*;

    const ID: RecordId = RecordId::from_bytes([7; 32]);

    fn records() -> [(&'static str, Record<Stored>); 6] {
        let fingerprint = Fingerprint::builder().field("body", b"a=1").credential("cookie", b"c").foreign(1, [0; 8]);
        let fingerprint = fingerprint.finish();
        let time = Timestamp::from_millis;
        let (since, expires) = (time(1_700_000_000_000), time(1_700_086_400_000));
        let record = |state| Record { fingerprint, fence: Fence(1 << 40 | 3), attempt: 2, began: since, state };
        let chunked = Stored::Chunked { length: 5_000, digest: digest(&[1; 5_000]) };
        [
            ("running", record(State::Running { nonce: [9; 16], interrupted_retention: 86_400_000 })),
            ("interrupted", record(State::Interrupted { since, expires, status: None })),
            ("completed", record(State::Completed { outcome: Stored::Inline(b"answer".to_vec()), expires })),
            ("chunked", record(State::Completed { outcome: chunked, expires })),
            ("consumed", record(State::Consumed { status: 200, expires })),
            ("answered", record(State::Interrupted { since, expires, status: Some(504) })),
        ]
    }

    fn fixture(format: u8, name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/record-v{format}-{name}.bin", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn records_of_format_1_are_read() {
        for (name, record) in &records()[..5] {
            assert_eq!(decode(&ID, &fixture(1, name)).as_ref(), Ok(record), "{name}");
        }
    }

    #[test]
    fn records_of_format_2_are_read_and_written_as_they_were() {
        for (name, record) in records() {
            let bytes = fixture(2, name);
            assert_eq!(decode(&ID, &bytes).as_ref(), Ok(&record), "{name}");
            assert_eq!(encode(&ID, &record).unwrap(), bytes, "{name}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_record_is_an_error() {
        let bytes = encode(&ID, &records()[2].1).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&ID, &damaged).is_err(), "a flipped bit at {at} went unseen");
            assert!(decode(&ID, &bytes[..at]).is_err(), "a cut at {at} went unseen");
        }
        assert_eq!(decode(&RecordId::from_bytes([8; 32]), &bytes), Err(CodecError::Checksum));
        let mut newer = bytes;
        newer[0] = 3;
        assert_eq!(decode(&ID, &newer), Err(CodecError::Version(3)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&ID, &bytes).is_err());
            // With a checksum that fits, too.
            let mut content = vec![VERSION];
            content.extend_from_slice(&bytes);
            let sum = checksum(ID.as_bytes(), &content);
            content.extend_from_slice(&sum);
            let _ = decode(&ID, &content);
        }
    }
}
