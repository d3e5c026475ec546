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
//! A fingerprint carries the version of these rules and a digest of the options it was made with. What was recorded
//! under others can't be compared, and is said to be [`Match::NotVerifiable`].

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::digest::{DigestKey, Digester, digest_of, purpose};
use crate::key::RecordId;

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

static OPERATION: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 operation v1"));
static REQUEST: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 request v1"));
static CREDENTIALS: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 credentials v1"));
static DERIVED_KEY: DigestKey = LazyLock::new(|| purpose("tower-idempotency 2026 derived key v1"));
/// The credentials of a request that has none, in every record.
static NO_CREDENTIALS: LazyLock<[u8; 32]> = LazyLock::new(|| Digester::new(&CREDENTIALS).finish());

/// A request's digest, as stored with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    version: u8,
    options: [u8; 8],
    request: [u8; 32],
    pub(crate) operation: Operation,
    credentials: Option<[u8; 32]>,
}

/// The digest of what is to be done: the first 16 bytes of the operation digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Operation([u8; 16]);

impl Operation {
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
    /// Another request, with the same credentials.
    Other,
    /// Another client's: the credentials differ, or there are some where there were none. Whether the request is the
    /// same is not said.
    OtherCredentials,
    /// Recorded by rules that this build, with these options, can't apply.
    NotVerifiable,
}

impl Fingerprint {
    /// Starts a fingerprint over labelled fields, for the record `id`. With credentials, it is of no use for another
    /// record.
    pub fn builder(id: &RecordId) -> FingerprintBuilder {
        let (operation, context) = (Digester::new(&OPERATION), Digester::new(&REQUEST));
        FingerprintBuilder { id: *id, operation, context, credentials: None, options: NO_OPTIONS }
    }

    /// The fingerprint of one sequence of bytes: all a message consumer needs.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        // Only credentials depend on the id.
        Self::builder(&RecordId::from_bytes([0; 32])).field("message", message).finish()
    }

    /// Returns the operation, unless the record could not be read.
    pub(crate) fn readable_operation(&self) -> Option<Operation> {
        (self.version != UNREADABLE).then_some(self.operation)
    }

    /// A fingerprint that can be compared with no other: of a record whose own can't be read.
    #[cfg(feature = "shared")]
    pub(crate) fn unverifiable() -> Self {
        Self {
            version: UNREADABLE,
            options: NO_OPTIONS,
            request: [0; 32],
            operation: Operation([0; 16]),
            credentials: None,
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
            Match::Other
        } else {
            Match::Same
        }
    }
}

/// Makes a [`Fingerprint`], field by field.
#[derive(Debug, Clone)]
#[must_use]
pub struct FingerprintBuilder {
    id: RecordId,
    operation: Digester,
    // What must be the same in a retry besides the operation.
    context: Digester,
    credentials: Option<Digester>,
    options: [u8; 8],
}

impl FingerprintBuilder {
    /// Adds a field of what is asked for. The keys that a run derives for its downstream calls depend on all such
    /// fields.
    pub fn field(mut self, label: &str, value: &[u8]) -> Self {
        self.operation.part(label.as_bytes()).part(value);
        self
    }

    /// Adds a field that must be the same in a retry, and on which no derived key depends. It is public for the tests
    /// of this crate.
    #[doc(hidden)]
    pub fn context_field(mut self, label: &str, value: &[u8]) -> Self {
        self.context.part(label.as_bytes()).part(value);
        self
    }

    /// Makes the credentials part of the fingerprint, even where a request has none: then only a request that has
    /// none either is the same.
    pub fn with_credentials(mut self) -> Self {
        self.credentials.get_or_insert_with(|| Digester::new(&CREDENTIALS));
        self
    }

    /// Adds a field of who asks.
    pub fn credential(mut self, label: &str, value: &[u8]) -> Self {
        self = self.with_credentials();
        if let Some(credentials) = &mut self.credentials {
            credentials.part(label.as_bytes()).part(value);
        }
        self
    }

    /// Says by which options it is made.
    #[cfg(feature = "server")]
    pub(crate) fn options(mut self, digest: [u8; 8]) -> Self {
        self.options = digest;
        self
    }

    /// The fingerprint of all fields so far.
    #[must_use]
    pub fn finish(mut self) -> Fingerprint {
        let whole = self.operation.finish();
        let mut operation = [0; 16];
        operation.copy_from_slice(&whole[..16]);
        // What follows the fields has a fixed length: the whole digest of the operation, and the record's id.
        let request = self.context.update(&whole).finish();
        let credentials = self.credentials.map(|mut credentials| {
            if credentials.is_empty() { *NO_CREDENTIALS } else { credentials.update(self.id.as_bytes()).finish() }
        });
        Fingerprint { version: VERSION, options: self.options, request, operation: Operation(operation), credentials }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    const ID: RecordId = RecordId::from_bytes([7; 32]);

    fn request(body: &[u8]) -> FingerprintBuilder {
        Fingerprint::builder(&ID).field("method", b"POST").field("body", body)
    }

    #[test]
    fn fields_never_run_together() {
        let of = |fields: &[(&str, &[u8])]| {
            let builder = Fingerprint::builder(&ID);
            fields.iter().fold(builder, |builder, (label, value)| builder.field(label, value)).finish()
        };
        let long = "a".repeat(300);
        let lists: [&[(&str, &[u8])]; 7] = [
            &[("a", b"bc")],
            &[("ab", b"c")],
            &[("a", b"b"), ("c", b"")],
            &[("a", b""), ("b", b"c")],
            &[("a", b"\x01b\x01c")],
            &[(long.as_str(), b"b")],
            &[(&long[..172], &[b'a'; 129])],
        ];
        for (number, one) in lists.iter().enumerate() {
            for other in &lists[number + 1..] {
                let (one, other) = (of(one), of(other));
                assert_eq!(one.compare(&other), Match::Other, "{number}");
                assert_ne!(one.operation, other.operation, "{number}");
            }
        }
        // What is of the operation and what is not never run together either.
        let context = Fingerprint::builder(&ID).context_field("a", b"b");
        assert_ne!(context.clone().field("c", b"d").finish().request, of(&[("a", b"b"), ("c", b"d")]).request);
        assert_ne!(context.finish().request, of(&[("a", b"b")]).request);
    }

    #[test]
    fn credentials_are_compared_before_options_and_request() {
        let recorded = request(b"1").credential("authorization", b"alice").finish();
        let retried = request(b"1").credential("authorization", b"bob").finish();
        let without = request(b"1").with_credentials().finish();
        let another = request(b"2").credential("authorization", b"alice").finish();
        let strangers = request(b"2").credential("authorization", b"bob").finish();
        assert_eq!(recorded.compare(&recorded), Match::Same);
        assert_eq!(recorded.compare(&another), Match::Other);
        assert_eq!(recorded.compare(&Fingerprint { options: [1; 8], ..another }), Match::NotVerifiable);
        for stranger in [retried, without, strangers, Fingerprint { options: [1; 8], ..strangers }] {
            assert_eq!(recorded.compare(&stranger), Match::OtherCredentials);
        }
    }

    #[test]
    fn trap_31_another_version_of_the_rules_is_not_a_mismatch() {
        let recorded = Fingerprint { version: VERSION + 1, ..request(b"1").finish() };
        assert_eq!(recorded.compare(&request(b"1").finish()), Match::NotVerifiable);
        assert_eq!(recorded.compare(&request(b"2").finish()), Match::NotVerifiable);
    }

    #[test]
    fn recorded_without_credentials_is_compared_without_them() {
        let recorded = request(b"1").finish();
        assert_eq!(recorded.compare(&request(b"1").credential("cookie", b"x").finish()), Match::Same);
        let with = request(b"1").credential("cookie", b"x").finish();
        assert_eq!(with.compare(&recorded), Match::NotVerifiable);
    }

    #[test]
    fn trap_33_a_digest_has_256_bits_of_blake3() {
        // As another implementation of BLAKE3 gives it for the same bytes: neither truncated nor home-made, and the
        // same in every release.
        let digest = blake3::Hash::from_bytes(Fingerprint::of(b"m").request).to_hex();
        assert_eq!(digest.as_str(), "a310ee11d32239f1ce7865fd5486db2312b87a78e9e7b4ca1e8c7b5cbdf08460");
    }

    /// The fingerprint of a request, and the derived key of its first step.
    fn derived(key: &str, step: &str, change: impl FnOnce(FingerprintBuilder) -> FingerprintBuilder) -> String {
        let id = RecordId::new(None, &Key::new(key).unwrap());
        let builder = Fingerprint::builder(&id).field("method", b"POST").field("target", b"/charges");
        change(builder).finish().operation.derived_key(&id, step)
    }

    // It is the same in every release: where a retry finds no record, the service downstream has only this.
    #[test]
    fn a_derived_key_is_128_bits_of_blake3_over_record_id_operation_and_step() {
        // As another implementation of BLAKE3 gives it for the same bytes.
        let charge = derived("k", "charge", |builder| builder.field("body", b"a"));
        assert_eq!(charge, "45606d2885a0e0398df2db3ea962630a");
        let id = RecordId::new(None, &Key::new("k").unwrap());
        let of_message = Fingerprint::of(b"m").operation.derived_key(&id, "charge");
        assert_eq!(of_message, "3cbce97d9638e08a99cee74c3ff419e6");
    }

    #[test]
    fn a_derived_key_depends_on_the_operation_and_on_nothing_that_changes_between_attempts() {
        let body = |builder: FingerprintBuilder| builder.field("body", b"a");
        let charge = derived("k", "charge", body);
        assert_eq!(charge.len(), 32);
        let others = [
            derived("k", "mail", body),
            derived("other", "charge", body),
            derived("k", "charge", |builder| builder.field("body", b"b")),
            derived("k", "charge", |builder| builder.field("json", b"a")),
            derived("k", "charge", |builder| body(builder.field("query", b"q"))),
        ];
        for (number, other) in others.iter().enumerate() {
            assert_ne!(*other, charge, "{number}");
        }
        let same = [
            derived("k", "charge", |builder| body(builder.context_field("host", b"pay.example"))),
            derived("k", "charge", |builder| body(builder).credential("authorization", b"refreshed")),
            derived("k", "charge", |builder| body(builder).with_credentials()),
        ];
        for (number, same) in same.iter().enumerate() {
            assert_eq!(*same, charge, "{number}");
        }
        let later = Fingerprint { version: VERSION + 1, options: [9; 8], ..body(request(b"")).finish() };
        assert_eq!(later.readable_operation(), Some(body(request(b"")).finish().operation));
    }

    #[test]
    #[cfg(feature = "shared")]
    fn of_a_record_that_cannot_be_read_no_derived_key_is_made_up() {
        assert_eq!(Fingerprint::unverifiable().readable_operation(), None);
    }

    #[test]
    fn equal_credentials_are_not_equal_bytes_in_two_records() {
        let of = |id: u8| {
            let builder = Fingerprint::builder(&RecordId::from_bytes([id; 32])).field("body", b"a");
            builder.credential("authorization", b"Basic aHVudGVyMg==").finish()
        };
        let (one, other) = (of(1), of(2));
        assert_eq!((one.request, one.operation), (other.request, other.operation));
        assert_ne!(one.credentials, other.credentials);
        assert_eq!(one.compare(&of(1)), Match::Same);
        assert_eq!(one.compare(&other), Match::OtherCredentials);
    }
}
