//! What both stores have after a copy.

use testkit::lab::steps::Steps as _;
use testkit::lab::time::{DAY, HOUR, NOON};
use testkit::lab::{done, hold, id};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Origin, Record, Records as _, Reply, State};
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{AnyStore, Fence, Fingerprint, MemoryStore, RecordId, SledStore};

use super::compare::{Compared, both};
use super::records::Copied;
use super::sides::tests::end;

fn of(number: u8) -> RecordId {
    RecordId::from_bytes([number; 32])
}

fn paid(number: u8, body: &'static str, expires: Timestamp) -> (RecordId, Record) {
    let record = Record {
        fence: Fence(number.into()),
        began: NOON,
        since: NOON,
        expires: Some(expires),
        fingerprint: Fingerprint::of(b"m"),
        attempt: 1,
        origin: Origin::default(),
        state: State::Completed { outcome: body.into() },
        owner: Default::default(),
    };
    (of(number), record)
}

/// An end with these records, whose clock shows this time.
async fn with(now: Timestamp, records: Vec<(RecordId, Record)>) -> super::sides::Side {
    let store = AnyStore::new(MemoryStore::builder().clock(ManualClock::new(now)).build());
    let adopted = store.adopt(records).await.unwrap();
    assert!(adopted.iter().all(|applied| applied.reply == Reply::Taken));
    end(store)
}

#[tokio::test]
async fn what_is_missing_or_another_one_in_the_new_store_is_named() {
    let (now, later) = (NOON.plus(HOUR), NOON.plus(DAY));
    let just_later = Timestamp::from_millis(now.as_millis() + 1);
    let unreadable = |number: u8| (of(number), Record::unreadable(Fence(number.into()), NOON, NOON, later));
    let old = vec![
        paid(1, "same", later),
        paid(2, "this", later),
        paid(3, "missing", later),
        // By the clock of the new store it has expired.
        paid(4, "gone", now),
        paid(5, "still there", just_later),
        paid(6, "can't be read", later),
        paid(7, "can be read", later),
    ];
    let new =
        vec![paid(1, "same", later), paid(2, "that", later), unreadable(6), unreadable(7), paid(8, "its own", later)];
    let (from, to) = (with(NOON, old).await, with(now, new).await);
    let copied = Copied { damaged: vec![(of(6), "why".to_owned())], ..Copied::default() };
    let Compared { from, to, mut unequal, others } = both(&from, &to, &copied).await.unwrap();
    unequal.sort();
    assert_eq!(unequal, [2, 3, 5, 7].map(of));
    assert_eq!(others, 1);
    assert_eq!(from.into_iter().collect::<Vec<_>>(), [("completed", 7)]);
    assert_eq!(to.into_iter().collect::<Vec<_>>(), [("completed", 3), ("interrupted", 2)]);
}

/// The lists show nothing of it.
#[tokio::test]
async fn a_record_whose_outcome_is_damaged_is_not_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let old = SledStore::builder().outcome_cache_bytes(0).open(directory.path()).unwrap();
    let new = MemoryStore::new();
    for key in ["whole", "damaged"] {
        let held = hold(&old, key).await;
        old.complete(done(held, vec![b'x'; 10_000], DAY)).await.unwrap();
        let record = old.load(id(key)).await.unwrap().unwrap();
        new.adopt(vec![(id(key), record)]).await.unwrap();
    }
    let tree = old.db().unwrap().open_tree("tower-idempotency").unwrap();
    let prefix = [b"c", id("damaged").as_bytes().as_slice()].concat();
    let (key, mut value) = tree.scan_prefix(prefix).last().unwrap().unwrap();
    let last = value.len() - 1;
    value[last] ^= 1;
    tree.insert(key, value).unwrap();
    let (old, new) = (end(AnyStore::new(old)), end(AnyStore::new(new)));
    for (from, to) in [(&old, &new), (&new, &old)] {
        let compared = both(from, to, &Copied::default()).await.unwrap();
        assert_eq!((compared.unequal, compared.others), (vec![id("damaged")], 0));
    }
}
