//! A whole record as bytes, as the embedded stores keep it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CodecError, HEAD_BYTES, VERSION, open, seal};
use crate::digest::raw;
use crate::key::RecordId;
use crate::record::{Owner, Record, State};

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
    Chunked {
        length: u64,
        #[serde(with = "raw")]
        digest: [u8; 16],
    },
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
    blake3::hash(outcome).as_bytes().as_chunks().0[0]
}

/// Returns the bytes of `record`.
pub(crate) fn encode(id: &RecordId, record: &Record<Stored>) -> Result<Vec<u8>, CodecError> {
    let outcome = match &record.state {
        State::Completed { outcome: Stored::Inline(outcome) } => outcome.len(),
        // There is none, or it is in chunks elsewhere.
        _ => 0,
    };
    seal(id, VERSION, record, HEAD_BYTES + outcome)
}

/// Returns the record that `bytes` encode.
pub(crate) fn decode(id: &RecordId, bytes: &[u8]) -> Result<Record<Stored>, CodecError> {
    let record: Record<Stored> = open(id, &[VERSION], bytes)?;
    // A record of an earlier boot number is marked as interrupted before it is read, so a running one belongs to this
    // process.
    let owner = if matches!(record.state, State::Running { .. }) { Owner::Here } else { Owner::None };
    Ok(Record { owner, ..record })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::checksum;
    use super::*;
    use crate::clock::Timestamp;
    use crate::fingerprint::Fingerprint;
    use crate::record::{Cause, ClaimPolicy, Described, Fence, Origin};
    use arbtest::arbtest;

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
        let interrupted = |cause| State::Interrupted { policy: ClaimPolicy::Rerun, run: Fence(1 << 40 | 2), cause };
        let in_chunks = Stored::Chunked { length: 5_000, digest: digest(&[1; 5_000]) };
        [
            ("running", running.clone()),
            ("described", Record { origin, ..running }),
            ("interrupted", record(interrupted(Cause::Unknown))),
            ("completed", record(State::Completed { outcome: Stored::Inline("answer".into()) })),
            ("chunked", record(State::Completed { outcome: in_chunks })),
            ("consumed", record(State::Consumed { status: 200 })),
            ("answered", record(interrupted(Cause::Answered(504)))),
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

    #[test]
    fn no_bytes_make_the_reader_panic() {
        arbtest(|source| {
            let many = source.int_in_range(0..=200)?;
            let bytes = source.bytes(many)?;
            assert!(decode(&ID, bytes).is_err());
            // The same with a checksum that fits.
            let mut content = vec![VERSION];
            content.extend_from_slice(bytes);
            let sum = checksum(ID.as_bytes(), &content);
            content.extend_from_slice(&sum);
            let _ = decode(&ID, &content);
            Ok(())
        });
    }
}
