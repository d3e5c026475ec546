//! The digest of a request, which is the same in every release: its fields never run together, the client is compared
//! first, and the keys for downstream calls depend on the operation alone.

use testkit::lab::time::NOON;
use testkit::lab::{foreign, id};
use tower_idempotency::internals::{Cause, ClaimPolicy, Fence, Origin, Owner, Record, State};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::{Fingerprint, FingerprintBuilder, Match, RecordId, RequestPart};

const ID: RecordId = RecordId::from_bytes([7; 32]);

/// The version of the rules.
const VERSION: u8 = 1;

fn request(body: &[u8]) -> FingerprintBuilder {
    Fingerprint::builder(&ID).field("method", b"POST").field("body", body)
}

/// Returns the digests of the request, of the operation and of the credentials. In a record, they follow the version
/// and the options, each behind its length.
fn digests(fingerprint: Fingerprint) -> [Vec<u8>; 3] {
    let stored = postcard::to_allocvec(&fingerprint).unwrap();
    [&stored[11..43], &stored[44..60], &stored[60..]].map(<[u8]>::to_vec)
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
            assert_eq!(one.compare(&other), Match::Other(RequestPart::Body), "{number}");
            assert_ne!(digests(one)[1], digests(other)[1], "{number}");
        }
    }
    // Fields of the operation and other fields never run together either.
    let context = Fingerprint::builder(&ID).context_field("a", b"b");
    let with_context = context.clone().field("c", b"d").finish();
    assert_eq!(with_context.compare(&of(&[("a", b"b"), ("c", b"d")])), Match::Other(RequestPart::Body));
    assert_eq!(context.finish().compare(&of(&[("a", b"b")])), Match::Other(RequestPart::Body));
}

#[test]
fn credentials_are_compared_before_options_and_request() {
    let recorded = request(b"1").credential("authorization", b"alice").finish();
    let retried = request(b"1").credential("authorization", b"bob").finish();
    let without = request(b"1").with_credentials().finish();
    let another = request(b"2").credential("authorization", b"alice").finish();
    let strangers = request(b"2").credential("authorization", b"bob").finish();
    let by_other_options = |fingerprint| foreign(fingerprint, VERSION, [1; 8]);
    assert_eq!(recorded.compare(&recorded), Match::Same);
    assert_eq!(recorded.compare(&another), Match::Other(RequestPart::Body));
    assert_eq!(recorded.compare(&by_other_options(another)), Match::NotVerifiable);
    for stranger in [retried, without, strangers, by_other_options(strangers)] {
        assert_eq!(recorded.compare(&stranger), Match::OtherCredentials);
    }
}

#[test]
fn trap_31_another_version_of_the_rules_is_not_a_mismatch() {
    let recorded = foreign(request(b"1").finish(), VERSION + 1, [0; 8]);
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
    // Another implementation of BLAKE3 returns this for the same bytes: it is neither truncated nor home-made, and the
    // same in every release.
    let [request, ..] = digests(Fingerprint::of(b"m"));
    let digest = blake3::Hash::from_bytes(request.try_into().unwrap()).to_hex();
    assert_eq!(digest.as_str(), "a310ee11d32239f1ce7865fd5486db2312b87a78e9e7b4ca1e8c7b5cbdf08460");
}

/// Returns the key for `step` that an interrupted run of the operation has.
fn derived_key(id: RecordId, fingerprint: Fingerprint, step: &str) -> String {
    let state = State::<()>::Interrupted { policy: ClaimPolicy::Refuse, run: Fence(1), cause: Cause::Unknown };
    let (origin, owner, expires) = (Origin::default(), Owner::None, Some(NOON));
    let record =
        Record { fence: Fence(1), began: NOON, since: NOON, expires, fingerprint, attempt: 1, origin, state, owner };
    InterruptedRun::of(id, &record).unwrap().derived_key(step).unwrap()
}

/// Returns the derived key of a charge.
fn derived(key: &str, step: &str, change: impl FnOnce(FingerprintBuilder) -> FingerprintBuilder) -> String {
    let builder = Fingerprint::builder(&id(key)).field("method", b"POST").field("target", b"/charges");
    derived_key(id(key), change(builder).finish(), step)
}

// It is the same in every release: if a retry finds no record, the service downstream has only this.
#[test]
fn a_derived_key_is_128_bits_of_blake3_over_record_id_operation_and_step() {
    // Another implementation of BLAKE3 returns this for the same bytes.
    let charge = derived("k", "charge", |builder| builder.field("body", b"a"));
    assert_eq!(charge, "45606d2885a0e0398df2db3ea962630a");
    let of_message = derived_key(id("k"), Fingerprint::of(b"m"), "charge");
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
    let now = body(request(b"")).finish();
    let later = foreign(now, VERSION + 1, [9; 8]);
    assert_eq!(derived_key(ID, later, "charge"), derived_key(ID, now, "charge"));
}

#[test]
fn equal_credentials_are_not_equal_bytes_in_two_records() {
    let of = |id: u8| {
        let builder = Fingerprint::builder(&RecordId::from_bytes([id; 32])).field("body", b"a");
        builder.credential("authorization", b"Basic aHVudGVyMg==").finish()
    };
    let (one, other) = (of(1), of(2));
    assert_eq!(digests(one)[..2], digests(other)[..2]);
    assert_ne!(digests(one)[2], digests(other)[2]);
    assert_eq!(one.compare(&of(1)), Match::Same);
    assert_eq!(one.compare(&other), Match::OtherCredentials);
}
