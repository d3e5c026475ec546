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
//! - *record*: [postcard's wire format](https://postcard.jamesmunns.com/wire-format) of `Record` with its fields in the
//!   order of their declaration: integers are varints, digests begin with their length, enums with their index, options
//!   with 0 or 1, and durations are seconds and nanoseconds. A store that several processes share keeps the first four
//!   fields, which the store stamps, as columns of their own; its bytes begin with the fifth. The owner of a record is
//!   not in its bytes. An outcome is `Stored::Inline` up to 3 KiB, or else `Stored::Chunked`: its length and a 16-byte
//!   digest (BLAKE3), while its bytes are kept elsewhere in chunks.
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

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::key::RecordId;

#[cfg(feature = "_embedded")]
mod stored;

#[cfg(feature = "_embedded")]
pub(crate) use stored::{MAX_INLINE, Stored, decode, digest, encode};

/// The format that this release writes: the first byte of a record.
pub const VERSION: u8 = 1;
/// About how many bytes a record takes without its outcome. A wrong guess costs only an allocation.
pub const HEAD_BYTES: usize = 192;
/// The length of the checksum. It shows damage; it is no protection against a program that forges records.
pub const CHECKSUM_BYTES: usize = 8;

/// The bytes are not a record of this id. The store was damaged, or another program wrote to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A later release wrote it.
    #[error("the record is of format {0}; this release reads format {VERSION}")]
    Version(u8),
    /// The bytes are damaged, or those of another id.
    #[error("the record's checksum does not fit its bytes")]
    Checksum,
    /// The bytes are no value of this type.
    #[error("the record's bytes make no sense, though their checksum fits")]
    Content,
}

/// Returns the bytes of `value`, about this many: a version, the value, and their checksum.
pub fn seal(id: &RecordId, version: u8, value: &impl Serialize, about: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(about);
    bytes.push(version);
    let mut bytes = postcard::to_extend(value, bytes).map_err(|_| CodecError::Content)?;
    let checksum = checksum(id.as_bytes(), &bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// Returns the value that [`seal`] made the bytes of, with one of these versions.
pub fn open<T: DeserializeOwned>(id: &RecordId, versions: &[u8], bytes: &[u8]) -> Result<T, CodecError> {
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

/// Returns the checksum of the content under `key`, which does not pass under another key.
pub fn checksum(key: &[u8], content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    blake3::Hasher::new().update(key).update(content).finalize().as_bytes().as_chunks().0[0]
}
