//! Random ids and bytes, which no other test has.

use tower_idempotency::RecordId;

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("the operating system has no random bytes: {error}"));
    bytes
}

pub(super) fn fresh_id() -> RecordId {
    RecordId::from_bytes(random())
}

pub(super) fn fresh_ids(count: usize) -> Vec<RecordId> {
    (0..count).map(|_| fresh_id()).collect()
}
