//! What a request was, digested: the [`Fingerprint`] that is stored with a claim and compared with every retry.
//!
//! Two parts. The *request* digest covers what is asked for; the *credentials* digest, present only where no scope is
//! configured, covers who asks. They are apart because who asks is compared first: another client learns nothing else.
//! Each part is BLAKE3 over labelled, length-prefixed fields, so that no two lists of fields give the same bytes.
//!
//! A fingerprint carries the version of these rules and a digest of the options it was made with. What was recorded
//! under others can't be compared, and is said to be [`Match::NotVerifiable`].

use std::sync::LazyLock;

use blake3::hazmat::hash_derive_key_context;
use serde::{Deserialize, Serialize};

use crate::digest::{Digester, Purpose};

/// The version of the rules by which a request becomes fields, and fields a digest. It changes when a digest of the
/// same request would. 2: hosts, media types, cookies and forms are written in one way before they are digested.
const VERSION: u8 = 2;

/// The options digest of a fingerprint made without any option.
const NO_OPTIONS: [u8; 8] = [0; 8];

static REQUEST: Purpose = LazyLock::new(|| hash_derive_key_context("tower-idempotency 2026 request v1"));
static CREDENTIALS: Purpose = LazyLock::new(|| hash_derive_key_context("tower-idempotency 2026 credentials v1"));
/// The credentials of a request that has none.
static NO_CREDENTIALS: LazyLock<[u8; 32]> = LazyLock::new(|| Digester::new(&CREDENTIALS).finish());

/// A request's digest, as stored beside its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    version: u8,
    options: [u8; 8],
    request: [u8; 32],
    credentials: Option<[u8; 32]>,
}

/// How a presented request compares with a recorded one.
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
    /// Starts a fingerprint over labelled fields.
    pub fn builder() -> FingerprintBuilder {
        FingerprintBuilder { request: Digester::new(&REQUEST), credentials: None, options: NO_OPTIONS }
    }

    /// The fingerprint of one sequence of bytes: all a message consumer needs.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        Self::builder().field("message", message).finish()
    }

    /// A fingerprint that can be compared with no other: of a record whose own can't be read.
    #[cfg(feature = "shared")]
    pub(crate) fn unverifiable() -> Self {
        Self { version: 0, options: NO_OPTIONS, request: [0; 32], credentials: None }
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
    request: Digester,
    credentials: Option<Digester>,
    options: [u8; 8],
}

impl FingerprintBuilder {
    /// Adds a field of what is asked for.
    pub fn field(mut self, label: &str, value: &[u8]) -> Self {
        add(&mut self.request, label, value);
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
            add(credentials, label, value);
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
    pub fn finish(self) -> Fingerprint {
        Fingerprint {
            version: VERSION,
            options: self.options,
            request: self.request.finish(),
            credentials: self
                .credentials
                .map(|credentials| if credentials.is_empty() { *NO_CREDENTIALS } else { credentials.finish() }),
        }
    }
}

fn add(digester: &mut Digester, label: &str, value: &[u8]) {
    for part in [label.as_bytes(), value] {
        digester.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &[u8]) -> FingerprintBuilder {
        Fingerprint::builder().field("method", b"POST").field("body", body)
    }

    #[test]
    fn fields_never_run_together() {
        let one = Fingerprint::builder().field("a", b"bc").finish();
        let two = Fingerprint::builder().field("ab", b"c").finish();
        assert_eq!(one.compare(&two), Match::Other);
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
        // As BLAKE3's implementation for Python gives it for the same bytes: neither truncated nor home-made, and the
        // same in every release.
        let digest = blake3::Hash::from_bytes(Fingerprint::of(b"m").request).to_hex();
        assert_eq!(digest.as_str(), "2e4ee41361e314bbb0ff413998eb56e442d270e54de9870b369a66e76f772602");
    }
}
