use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::batch::{Batch, MAX_STEP};
use super::durable::{Disk, Nudge};
use super::state::{Database, Shared, health_at};
use super::sweep::sweep;
use super::transaction::{Abort, Transact, TransactionTree, effect};
use super::verb::Verb;
use super::writer::{SWEPT_IDLE, beside, decide, sweep_asked};
use super::{SledStore, keys, read, watchdog};
use crate::clock::{ManualClock, Timestamp};
use crate::fingerprint::Fingerprint;
use crate::key::{Key, RecordId};
use crate::record::{Claim, Claimed, Completion, Hold, Record, Resolution, Settled, Settlement, State};
use crate::store::{Health, Store, StoreError};

const HOUR: Duration = Duration::from_secs(3_600);

fn wish(name: &str) -> Claim {
    let id = RecordId::new(None, &Key::new(name).unwrap());
    let fingerprint = Fingerprint::of(b"m");
    Claim { id, fingerprint, nonce: [1; 16], durable: true, interrupted_retention: HOUR }
}

async fn run(store: &SledStore, name: &str) {
    let Claimed::Fresh(hold) = store.claim(wish(name)).await.unwrap() else { panic!("held") };
    let settlement = Settlement::Outcome("done".into());
    let completion = Completion { hold, fingerprint: wish(name).fingerprint, settlement, retention: HOUR };
    assert_eq!(store.complete(completion).await.unwrap(), Settled::Done);
}

#[tokio::test]
async fn a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = SledStore::open(&path).unwrap();
    run(&store, "cached").await;
    store.inner().poison("a test".to_owned());

    assert!(matches!(store.health(), Health::Poisoned { reason } if reason == "a test"));
    assert!(store.load(wish("cached").id).await.unwrap().is_some());
    let unavailable = |error: StoreError| matches!(error, StoreError::Unavailable { .. });
    assert!(unavailable(store.load(wish("other").id).await.unwrap_err()));
    for durable in [true, false] {
        assert!(unavailable(store.claim(Claim { durable, ..wish("other") }).await.unwrap_err()));
    }
    assert!(unavailable(store.sync().await.unwrap_err()));
    assert!(unavailable(store.interrupted(1, None).await.unwrap_err()));
    assert!(matches!(store.close().await, Err(StoreError::Uncertain { .. })));

    let store = SledStore::open(&path).unwrap();
    assert_eq!(store.health(), Health::Good);
    run(&store, "other").await;
}

#[test]
fn trap_54_a_slice_of_the_sweep_is_small_however_long_the_outcomes_are() {
    const PIECES: usize = 263; // of a megabyte
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let builder = SledStore::builder().clock(clock.clone());
    // Without the writer's thread, which sweeps by itself.
    let (shared, disk) = builder.prepare(&directory.path().join("s")).unwrap();
    let database = shared.database().unwrap();
    let count = |kind: &str| database.tree.scan_prefix(kind).count();
    for number in 0..4 {
        let Claim { id, fingerprint, .. } = wish(&format!("k{number}"));
        let (fence, began) = (shared.next_fence().unwrap(), shared.time.now());
        let hold = Hold { id, fence, attempt: 1, began, recorded: false };
        let settlement = Settlement::Outcome(vec![1; 1 << 20].into());
        let mut batch = Batch::new(&shared, &database, &disk);
        let (reply, _answer) = oneshot::channel();
        decide(&mut batch, Verb::Complete(Completion { hold, fingerprint, settlement, retention: HOUR }, reply));
        assert_eq!(beside(&batch).pieces, 2 * PIECES, "sweeping keeps up with writing");
        batch.commit(false).unwrap();
    }
    assert_eq!((count("r"), count("c")), (4, 4 * PIECES));
    clock.advance(HOUR);
    let mut left = count("c");
    loop {
        let mut batch = Batch::new(&shared, &database, &disk);
        let swept = sweep(&mut batch, SWEPT_IDLE).unwrap();
        batch.commit(false).unwrap();
        if !swept.more {
            break;
        }
        let now = count("c");
        assert!(left - now <= SWEPT_IDLE.pieces, "{} in one slice", left - now);
        left = now;
    }
    assert_eq!([count("r"), count("e"), count("g"), count("c")], [0; 4]);
}

#[test]
fn a_batch_that_takes_too_long_shows_in_the_health() {
    assert_eq!(health_at(None), Health::Good);
    assert_eq!(health_at(Some(Duration::from_millis(4_999))), Health::Good);
    let since = Duration::from_secs(5);
    assert_eq!(health_at(Some(since)), Health::Slow { since });
}

#[test]
fn who_is_not_answered_because_the_database_panicked_finds_the_store_poisoned_and_the_others_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let (shared, disk) = SledStore::builder().prepare(&directory.path().join("s")).unwrap();
    let database = shared.database().unwrap();
    let mut batch = Batch::new(&shared, &database, &disk);
    let ((one, mut first), (other, mut second)) = (oneshot::channel(), oneshot::channel());
    batch.answer::<()>(one, |_| panic!("as sled does"));
    batch.answer(other, |_| Ok(2));
    batch.commit(true).unwrap();
    assert!(matches!(first.try_recv().unwrap(), Err(StoreError::Unavailable { .. })));
    assert!(shared.is_poisoned());
    assert_eq!(second.try_recv().unwrap().unwrap(), 2);
}

#[tokio::test]
async fn what_was_queued_when_the_store_was_poisoned_is_not_said_to_be_done() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path().join("s")).unwrap();
    let queued: Vec<_> = (0..100).map(|number| store.claim(wish(&format!("k{number}")))).collect();
    store.inner().poison("a test".to_owned());
    let mut refused = 0;
    for answer in queued {
        match answer.await {
            Ok(Claimed::Fresh(_)) => assert_eq!(refused, 0, "in order: nothing is done after something was not"),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(matches!(error, StoreError::Uncertain { .. }), "{error:?}");
                refused += 1;
            }
        }
    }
}

#[test]
fn a_write_that_never_returns_shows_in_the_health_and_poisons_the_store_after_a_minute() {
    let directory = tempfile::tempdir().unwrap();
    // Without the writer's thread, which would write.
    let (shared, _disk) = SledStore::builder().prepare(&directory.path().join("s")).unwrap();
    let mut reported = false;
    let mut look_after = |seconds| {
        shared.set_batch(Some(Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap()));
        (watchdog::look(&shared, &Nudge::default(), &mut reported), shared.health())
    };
    assert_eq!(look_after(1), (false, Health::Good));
    assert!(matches!(look_after(6), (false, Health::Slow { .. })));
    let (given_up, health) = look_after(61);
    assert!(given_up);
    assert!(matches!(health, Health::Poisoned { reason } if reason.contains("60s")));
    shared.set_batch(None);
    assert!(matches!(shared.health(), Health::Poisoned { .. }), "it stays so: what is on disk is unknown");
    assert!(shared.check().is_err());
}

/// A store without its writer's thread, in which nothing happens by itself.
struct Still {
    shared: Shared,
    disk: Disk,
    database: Database,
    clock: ManualClock,
    _directory: tempfile::TempDir,
}

impl Still {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
        let (shared, disk) = SledStore::builder().clock(clock.clone()).prepare(&directory.path().join("s")).unwrap();
        let database = shared.database().unwrap();
        Self { shared, disk, database, clock, _directory: directory }
    }

    fn batch(&self) -> Batch<'_> {
        Batch::new(&self.shared, &self.database, &self.disk)
    }

    /// What stands in the tree, past the cache.
    fn load(&self, id: RecordId) -> Option<Record> {
        let head = read::head(&self.database.tree, id).ok().expect("it can be read")?;
        Some(read::whole(&self.database.tree, id, head).ok().expect("it is whole"))
    }
}

// A seeded fault: a batch is written although one of its reads has failed.
#[test]
fn a_sweep_whose_read_fails_deletes_nothing() {
    let still = Still::new();
    let Claim { id, fingerprint, .. } = wish("k");
    let (fence, began) = (still.shared.next_fence().unwrap(), still.shared.time.now());
    let hold = Hold { id, fence, attempt: 1, began, recorded: false };
    let completion = Completion { hold, fingerprint, settlement: Settlement::Outcome("done".into()), retention: HOUR };
    let mut batch = still.batch();
    decide(&mut batch, Verb::Complete(completion, oneshot::channel().0));
    batch.commit(false).unwrap();
    still.clock.advance(HOUR);
    let mut batch = still.batch();
    assert_eq!(sweep(&mut batch, SWEPT_IDLE).unwrap().records, 1);
    // As a read does that the operating system refuses.
    still.shared.poison("EIO".to_owned());
    assert!(batch.commit(false).unwrap_err().contains("a read failed"));
    assert!(still.load(id).is_some());
}

// A seeded fault: the tombstone of a record is swept that the same batch has changed. And a sweep that came before an
// operator's answer, in one batch with it.
#[test]
fn trap_87_a_sweep_in_one_batch_with_an_operators_answer_leaves_the_answer_whole() {
    for sweep_first in [true, false] {
        let still = Still::new();
        let claim = wish("k");
        let id = claim.id;
        let mut batch = still.batch();
        let (reply, mut claimed) = oneshot::channel();
        decide(&mut batch, Verb::Claim(claim, reply));
        batch.commit(false).unwrap();
        let Ok(Claimed::Fresh(Hold { fence, .. })) = claimed.try_recv().unwrap() else { panic!("held") };
        let mut batch = still.batch();
        decide(&mut batch, Verb::Interrupt(id, fence, None, oneshot::channel().0));
        // What a run leaves that is killed between the pieces of its outcome and its record.
        batch.write(&keys::grave(&id, fence), &[]);
        batch.write(&keys::chunk(&id, fence, 0), b"a piece");
        batch.commit(false).unwrap();

        let outcome = Bytes::from(vec![7; 5_000]);
        let resolution = Resolution::Outcome { outcome: outcome.clone(), retention: HOUR };
        let resolve = Verb::Resolve(id, fence, resolution, oneshot::channel().0);
        let swept = Verb::Sweep(100, oneshot::channel().0);
        let verbs = if sweep_first { [swept, resolve] } else { [resolve, swept] };
        let mut batch = still.batch();
        verbs.into_iter().for_each(|verb| decide(&mut batch, verb));
        sweep_asked(&mut batch);
        batch.commit(false).unwrap();
        let Some(Record { state: State::Completed { outcome: found, .. }, .. }) = still.load(id) else {
            panic!("gone")
        };
        assert_eq!(found, outcome);
    }
}

// A seeded fault: transactions are not made durable in between, however much they write.
#[test]
fn transactions_write_little_between_two_syncs() {
    let still = Still::new();
    let mut batch = still.batch();
    for number in 0..8 {
        let Claim { id, fingerprint, .. } = wish(&format!("k{number}"));
        let (fence, began) = (still.shared.next_fence().unwrap(), still.shared.time.now());
        let hold = Hold { id, fence, attempt: 1, began, recorded: false };
        let closure = |[]: [TransactionTree<'_>; 0]| Ok::<_, Abort<()>>(Bytes::from(vec![7; 50_000]));
        let transact = Transact {
            hold,
            fingerprint,
            retention: HOUR,
            trees: Vec::new(),
            effect: effect(closure, |()| {}),
            answer: Box::new(|result| assert!(result.is_ok())),
        };
        decide(&mut batch, Verb::Transact(Box::new(transact)));
        assert!((50_000..=MAX_STEP).contains(&batch.unsynced()), "{}", batch.unsynced());
    }
    batch.commit(false).unwrap();
}
