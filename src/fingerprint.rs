//! The digest of a request: the [`Fingerprint`] that is stored with a claim and compared with every retry.
//!
//! Three parts, each of them BLAKE3 over labelled, length-prefixed fields, so that no two lists of fields give the same
//! bytes:
//! - The *operation* digest covers what is to be done: of an HTTP request the method, the path, the query and the body.
//!   The keys for downstream calls are derived from it. So it survives what may change between two attempts of one
//!   operation: another host, a refreshed token, other options, another release. 16 bytes of it are kept.
//! - The *request* digest covers the operation and all else that must be the same in a retry, such as the host.
//! - The *credentials* digest, present only where no scope is configured, covers who asks. It is apart because who asks
//!   is compared first: another client learns nothing else. It covers the record's id as well: equal passwords are not
//!   equal bytes in two records.
//!
//! *Marks* of 16 bits, one for each [`RequestPart`] but the body, let a mismatch say where it lies. They decide
//! nothing.
//!
//! A fingerprint carries the version of these rules and a digest of the options it was made with. What was recorded
//! under others can't be compared, and is said to be [`Match::NotVerifiable`].

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::digest::raw;
use crate::digest::{DigestKey, Digester, digest_of, purpose};
use crate::key::RecordId;
use crate::named::named;

/// The version of the rules by which a request becomes fields, and fields a digest. It changes when a digest of the
/// same request would. 1 is the first that was released.
///
/// The rules by which an *operation* becomes a digest have a version of their own, which is in the context of that
/// digest. It never changes for a body of a kind that there is already: where a retry finds no record, the derived keys
/// are all that protects it, and an upgrade must not change them.
const VERSION: u8 = 1;
/// The version of the fingerprint of a record that cannot be read.
const UNREADABLE: u8 = 0;

/// The options digest of a fingerprint made without any option.
const NO_OPTIONS: [u8; 8] = [0; 8];

// The texts are part of the stored format: with other texts, no retry would match its record, and calls downstream
// would get other keys.
static OPERATION: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 operation v1"));
static REQUEST: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 request v1"));
static CREDENTIALS: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 credentials v1"));
static DERIVED_KEY: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 derived key v1"));
/// The credentials of a request that has none, in every record.
static NO_CREDENTIALS: LazyLock<[u8; 32]> = LazyLock::new(|| Digester::new(&CREDENTIALS).finish());

/// A request's digest, as stored with its outcome. Stored bytes have the fields in this order, so the order stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The version of the rules. Fingerprints of different versions are not compared.
    version: u8,
    /// The digest of the layer's options that decide what is compared; zeros if there are none.
    #[serde(with = "raw")]
    options: [u8; 8],
    /// The digest of all that must be the same in a retry, without the credentials.
    #[serde(with = "raw")]
    request: [u8; 32],
    /// The part from which keys for downstream calls are derived.
    pub(crate) operation: OperationDigest,
    /// The digest of who asks; `None` under a scope, which is part of the record's id.
    #[serde(with = "raw::optional")]
    credentials: Option<[u8; 32]>,
    /// The marks of the request's parts.
    #[serde(with = "raw")]
    marks: [u8; Marks::LENGTH],
}

/// The digest of what is to be done: the first 16 bytes of the operation digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct OperationDigest(#[serde(with = "raw")] [u8; 16]);

impl OperationDigest {
    /// Returns the key for a downstream call of this operation, which has the record `id`: 32 hex digits, the first 128
    /// bits of a digest of the record's id, the operation digest and `step`.
    pub(crate) fn derived_key(&self, id: &RecordId, step: &str) -> String {
        // The first two have a fixed length.
        let digest = digest_of(&DERIVED_KEY, &[id.as_bytes(), &self.0, step.as_bytes()]);
        blake3::Hash::from_bytes(digest).to_hex()[..32].to_owned()
    }
}

/// The result of comparing a presented request with a recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Match {
    /// The same request.
    Same,
    /// Another request, with the same credentials. The first part that differs is named.
    Other(RequestPart),
    /// Another client's: the credentials differ, or there are some where there were none. Whether the request is the
    /// same is not said.
    OtherCredentials,
    /// Recorded by rules that this build, with these options, can't apply.
    NotVerifiable,
}

named! {
    /// A part of a request that has to be the same in a retry, in the order in which they are compared.
    RequestPart {
        /// The method.
        Method: "method",
        /// The host.
        Host: "host",
        /// The path.
        Path: "path",
        /// The query.
        Query: "query",
        /// The content type, or a header that
        /// [`fingerprint_headers`](crate::IdempotencyLayer::fingerprint_headers) names.
        Headers: "headers",
        /// The body, or a consumer's message. Said, too, of another part whose mark is equal by chance: of one in
        /// 65,536.
        Body: "body",
    }
}

/// How many parts have a mark: all but the body.
const MARKS: usize = RequestPart::ALL.len() - 1;

/// Marks of the parts: 16 bits of a checksum of each, which only say whether it is likely to be the same.
#[derive(Debug, Clone, Copy)]
struct Marks([u64; MARKS]);

impl Marks {
    const LENGTH: usize = 2 * MARKS;

    /// Adds a value to the mark of its part; the body has none.
    #[cfg(feature = "server")]
    #[inline]
    fn add(&mut self, part: RequestPart, value: &[u8]) {
        let Some(mark) = self.0.get_mut(part as usize) else { return };
        // As rustc's FxHash, which is fast; a strange factor moves each bit to the upper ones.
        let mut mix = |word: u64| *mark = (mark.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        let (words, rest) = value.as_chunks();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        // An empty value is another one than none.
        mix(rest.iter().fold(value.len() as u64 + 1, |word, byte| word << 8 | u64::from(*byte)));
    }

    fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        for (bytes, mark) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *bytes = ((mark >> 48) as u16).to_be_bytes();
        }
        bytes
    }
}

impl Fingerprint {
    /// Starts a fingerprint over labelled fields, for the record `id`. With credentials, it is of no use for another
    /// record.
    #[inline]
    pub fn builder(id: &RecordId) -> FingerprintBuilder {
        let (operation, context) = (Digester::new(&OPERATION), Digester::new(&REQUEST));
        FingerprintBuilder {
            id: *id,
            operation,
            context,
            credentials: None,
            options: NO_OPTIONS,
            marks: Marks([0; MARKS]),
        }
    }

    /// The fingerprint of one sequence of bytes: all a message consumer needs.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        // Only credentials depend on the id.
        Self::builder(&RecordId::from_bytes([0; 32])).field("message", message).finish()
    }

    /// Returns the operation, unless the record could not be read.
    pub(crate) fn readable_operation(&self) -> Option<OperationDigest> {
        (self.version != UNREADABLE).then_some(self.operation)
    }

    /// A fingerprint that can be compared with no other: of a record whose own can't be read.
    pub(crate) fn unverifiable() -> Self {
        Self {
            version: UNREADABLE,
            options: NO_OPTIONS,
            request: [0; 32],
            operation: OperationDigest([0; 16]),
            credentials: None,
            marks: [0; Marks::LENGTH],
        }
    }

    /// Compares a presented request with this recorded one, by the rules of the recorded one.
    ///
    /// Credentials come first, even before the options: a client that knows another one's key must not learn from the
    /// answer what was requested under it, and on which of several layers.
    #[must_use]
    pub fn compare(&self, presented: &Self) -> Match {
        if self.version != presented.version {
            return Match::NotVerifiable;
        }
        match (self.credentials, presented.credentials) {
            // Recorded under a scope, which is part of the record's id: who asks was compared already.
            (None, _) => {}
            (Some(_), None) => return Match::NotVerifiable,
            (Some(recorded), Some(presented)) if recorded == presented => {}
            (Some(_), Some(_)) => return Match::OtherCredentials,
        }
        if self.options != presented.options {
            Match::NotVerifiable
        } else if self.request != presented.request {
            Match::Other(self.differing(presented))
        } else {
            Match::Same
        }
    }

    /// Returns the first part whose mark differs, or else the body.
    fn differing(&self, presented: &Self) -> RequestPart {
        let (recorded, presented) = (self.marks.chunks(2), presented.marks.chunks(2));
        let differs = recorded.zip(presented).position(|(one, other)| one != other);
        differs.map_or(RequestPart::Body, |at| RequestPart::ALL[at])
    }
}

/// Makes a [`Fingerprint`], field by field.
#[derive(Debug, Clone)]
#[must_use]
pub struct FingerprintBuilder {
    /// The record's id. Only the digest of the credentials covers it.
    id: RecordId,
    operation: Digester,
    /// The other fields that must be the same in a retry.
    context: Digester,
    /// The credentials; `None` if they are no part of the fingerprint.
    credentials: Option<Digester>,
    options: [u8; 8],
    marks: Marks,
}

impl FingerprintBuilder {
    /// Adds a field of what is asked for. The keys that a run derives for its downstream calls depend on all such
    /// fields.
    pub fn field(mut self, label: &str, value: &[u8]) -> Self {
        self.add_field(label, value);
        self
    }

    /// Adds a field that must be the same in a retry, and on which no derived key depends. It is public for the tests
    /// of this crate.
    #[doc(hidden)]
    pub fn context_field(mut self, label: &str, value: &[u8]) -> Self {
        self.add_context_field(label, value);
        self
    }

    /// Makes the credentials part of the fingerprint, even where a request has none: then only a request that has
    /// none either is the same.
    pub fn with_credentials(mut self) -> Self {
        self.add_credentials();
        self
    }

    /// Adds a field of who asks.
    pub fn credential(mut self, label: &str, value: &[u8]) -> Self {
        self.add_credential(label, value);
        self
    }

    // The same without moving the builder, which has room for the fields of most requests.

    pub(crate) fn add_field(&mut self, label: &str, value: &[u8]) {
        self.operation.part(label.as_bytes()).part(value);
    }

    pub(crate) fn add_context_field(&mut self, label: &str, value: &[u8]) {
        self.context.part(label.as_bytes()).part(value);
    }

    /// Lets a mismatch name the part of the request in which this value is.
    #[cfg(feature = "server")]
    pub(crate) fn mark(&mut self, part: RequestPart, value: &[u8]) {
        self.marks.add(part, value);
    }

    pub(crate) fn add_credentials(&mut self) -> &mut Digester {
        self.credentials.get_or_insert_with(|| Digester::new(&CREDENTIALS))
    }

    pub(crate) fn add_credential(&mut self, label: &str, value: &[u8]) {
        self.add_credentials().part(label.as_bytes()).part(value);
    }

    /// Sets the digest of the options by which it is made.
    #[cfg(feature = "server")]
    pub(crate) fn set_options(&mut self, digest: [u8; 8]) {
        self.options = digest;
    }

    /// The fingerprint of all fields so far.
    #[must_use]
    #[inline]
    pub fn finish(mut self) -> Fingerprint {
        let whole = self.operation.finish();
        // What follows the fields has a fixed length: the whole digest of the operation, and the record's id.
        let request = self.context.update(&whole).finish();
        let credentials = self.credentials.as_mut().map(|credentials| {
            if credentials.is_empty() { *NO_CREDENTIALS } else { credentials.update(self.id.as_bytes()).finish() }
        });
        Fingerprint {
            version: VERSION,
            options: self.options,
            request,
            operation: OperationDigest(whole.as_chunks().0[0]),
            credentials,
            marks: self.marks.bytes(),
        }
    }
}
