use testkit::lab::steps::Steps as _;
use testkit::lab::time::{HOUR, clock};
use testkit::lab::{done, hold};
use tower_idempotency::internals::{Origin, OutcomeStart};
use tower_idempotency::{AnyStore, Fence, Fingerprint, MemoryStore};

use super::super::sides::tests::end;
use super::*;

/// A record as it is listed, with an outcome of this length.
fn listed(length: u64) -> ListedRecord {
    let now = testkit::lab::time::NOON;
    let record = Record {
        fence: Fence(1),
        began: now,
        since: now,
        expires: Some(now.plus(HOUR)),
        fingerprint: Fingerprint::of(b"m"),
        attempt: 1,
        origin: Origin::default(),
        state: State::Completed { outcome: OutcomeStart { length, start: Default::default() } },
        owner: Default::default(),
    };
    ListedRecord { id: RecordId::from_bytes([1; 32]), record: Ok(record), session: None }
}

#[test]
fn a_group_has_no_more_records_and_bytes_than_it_may() {
    const MIB: u64 = 1 << 20;
    for (lengths, sizes) in [
        (vec![], &[][..]),
        (vec![1; 256], &[256]),
        (vec![1; 257], &[256, 1]),
        (vec![0; 513], &[256, 256, 1]),
        (vec![2 * MIB, 2 * MIB, 1], &[2, 1]),
        (vec![2 * MIB, 2 * MIB + 1, 1], &[1, 2]),
        // One that is larger than a group comes alone.
        (vec![1, 9 * MIB, 1], &[1, 1, 1]),
    ] {
        let groups = groups(lengths.iter().copied().map(listed).collect());
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{} records", lengths.len());
    }
}

#[tokio::test]
async fn a_record_that_expires_while_it_is_copied_is_counted() {
    let clock = clock();
    let [from, to] = [(); 2].map(|()| MemoryStore::builder().clock(clock.clone()).build());
    let held = hold(&from, "k").await;
    from.complete(done(held, "paid", HOUR)).await.unwrap();
    let [from, to] = [from, to].map(|store| end(AnyStore::new(store)));
    let page = from.store.list(List::All, None, PAGE).await.unwrap();
    clock.advance(HOUR);
    let copied = copy_group(&from, &to, page.records).await.unwrap();
    assert_eq!((copied.expired, copied.copied, copied.already, copied.read()), (1, 0, 0, 1), "{copied:?}");
}
