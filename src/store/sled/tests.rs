use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::batch::{Batch, MAX_STEP};
use super::durable::{Disk, Nudge};
use super::open::cut_some_short;
use super::present::Present;
use super::state::{Database, Shared, health_at};
use super::sweep::{Slice, sweep};
use super::totals::Totals;
use super::transaction::{Abort, Purpose, Transact, TransactionTree, effect};
use super::verb::{Step, Verb};
use super::writer::{Asked, SWEPT_IDLE, beside, decide, sweep_asked};
use super::writes::ENTRY_BYTES;
use super::{SledStore, keys, listing, read, watchdog};
use crate::clock::{ManualClock, Timestamp};
use crate::fingerprint::Fingerprint;
use crate::key::{Key, RecordId};
use crate::record::{
    Applied, Claim, Completion, Fence, Hold, Record, Reply, Resolution, Settlement, State, Transition,
};
use crate::store::{Health, OpenError, Page, Store, StoreError};

const HOUR: Duration = Duration::from_secs(3_600);

fn id(name: &str) -> RecordId {
    RecordId::new(None, &Key::new(name).unwrap())
}

fn wish() -> Claim {
    let fingerprint = Fingerprint::of(b"m");
    let (may_repeat, bound, interrupted_retention, patience) = (false, HOUR, HOUR, HOUR);
    Claim { fingerprint, origin: None, may_repeat, bound, interrupted_retention, patience }
}

fn completion(hold: Hold, outcome: impl Into<Bytes>) -> Completion {
    let settlement = Settlement::Outcome(outcome.into());
    Completion { hold, fingerprint: wish().fingerprint, settlement, retention: HOUR }
}

/// A step, and where its answer will be.
fn sent(id: RecordId, transition: Transition) -> (Verb, oneshot::Receiver<Result<Applied, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    (Verb::Apply(Step::new(id, transition, reply)), answer)
}

fn step(batch: &mut Batch<'_>, id: RecordId, transition: Transition) -> oneshot::Receiver<Result<Applied, StoreError>> {
    let (verb, answer) = sent(id, transition);
    decide(batch, verb);
    answer
}

fn claimed(id: RecordId, answer: Result<Applied, StoreError>) -> Hold {
    match answer.unwrap() {
        Applied { reply: Reply::Taken, record: Some(record) } => {
            Hold { id, fence: record.fence, attempt: record.attempt }
        }
        other => panic!("{other:?}"),
    }
}

async fn run(store: &SledStore, name: &str) {
    let id = id(name);
    let hold = claimed(id, store.apply(id, Transition::Claim(wish())).await);
    let applied = store.apply(id, Transition::Complete(completion(hold, "done"))).await.unwrap();
    assert_eq!(applied.reply, Reply::Taken);
}

#[tokio::test]
async fn a_poisoned_store_answers_what_memory_knows_and_refuses_the_rest_until_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = SledStore::open(&path).unwrap();
    run(&store, "cached").await;
    store.inner().poison("a test".to_owned());

    assert!(matches!(store.health(), Health::Poisoned { reason } if reason == "a test"));
    assert!(store.load(id("cached")).await.unwrap().is_some());
    let unavailable = |error: StoreError| matches!(error, StoreError::Unavailable { .. });
    assert!(unavailable(store.load(id("other")).await.unwrap_err()));
    for may_repeat in [false, true] {
        let claim = Transition::Claim(Claim { may_repeat, ..wish() });
        assert!(unavailable(store.apply(id("other"), claim).await.unwrap_err()));
    }
    assert!(unavailable(store.sync().await.unwrap_err()));
    assert!(unavailable(store.interrupted(Page::first(1)).await.unwrap_err()));
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
        let hold = Hold { id: id(&format!("k{number}")), fence: shared.next_fence().unwrap(), attempt: 1 };
        let mut batch = Batch::new(&shared, &database, &disk);
        let _answer = step(&mut batch, hold.id, Transition::Complete(completion(hold, vec![1; 1 << 20])));
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
    let queued: Vec<_> =
        (0..100).map(|number| store.apply(id(&format!("k{number}")), Transition::Claim(wish()))).collect();
    store.inner().poison("a test".to_owned());
    let mut refused = 0;
    for answer in queued {
        match answer.await {
            Ok(Applied { reply: Reply::Taken, .. }) => {
                assert_eq!(refused, 0, "in order: nothing is done after something was not");
            }
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
        Some(read::whole(&self.database.tree, id, &head).ok().expect("it is whole"))
    }
}

// A seeded fault: a batch is written although one of its reads has failed.
#[test]
fn a_sweep_whose_read_fails_deletes_nothing() {
    let still = Still::new();
    let mut batch = still.batch();
    let id = complete(&still, &mut batch, "k", "done".into());
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
        let [Hold { id, fence, .. }] = claim(&still, &["k"])[..] else { panic!("one") };
        let mut batch = still.batch();
        let _answer = step(&mut batch, id, Transition::Interrupt { fence, status: None });
        // What a run leaves that is killed between the pieces of its outcome and its record.
        batch.write(&keys::grave(&id, fence), &[]);
        batch.write(&keys::chunk(&id, fence, 0), b"a piece");
        batch.commit(false).unwrap();

        let outcome = Bytes::from(vec![7; 5_000]);
        let resolution = Resolution::Outcome { outcome: outcome.clone(), retention: HOUR };
        let (resolve, _answer) = sent(id, Transition::Resolve(fence, resolution));
        let swept = Verb::Sweep(100, oneshot::channel().0);
        let verbs = if sweep_first { [swept, resolve] } else { [resolve, swept] };
        let mut batch = still.batch();
        verbs.into_iter().for_each(|verb| decide(&mut batch, verb));
        let sweeps = std::mem::take(&mut batch.sweeps);
        for (limit, reply) in sweeps {
            assert!(sweep_asked(&mut batch, Asked::new(limit, reply)).is_none());
        }
        batch.commit(false).unwrap();
        let Some(Record { state: State::Completed { outcome: found }, .. }) = still.load(id) else { panic!("gone") };
        assert_eq!(found, outcome);
    }
}

// A seeded fault: transactions are not made durable in between, however much they write.
#[test]
fn transactions_write_little_between_two_syncs() {
    let still = Still::new();
    let mut batch = still.batch();
    for number in 0..8 {
        let hold = Hold { id: id(&format!("k{number}")), fence: still.shared.next_fence().unwrap(), attempt: 1 };
        let closure = |[]: [TransactionTree<'_>; 0]| Ok::<_, Abort<()>>(Bytes::from(vec![7; 50_000]));
        let transact = Transact {
            purpose: Purpose::Run(Completion {
                hold,
                fingerprint: wish().fingerprint,
                settlement: Settlement::Outcome(()),
                retention: HOUR,
            }),
            trees: Vec::new(),
            effect: effect(closure, |()| {}),
            answer: Box::new(|result| assert!(result.is_ok())),
        };
        decide(&mut batch, Verb::Transact(Box::new(transact)));
        assert!((50_000..=MAX_STEP * 3 / 2).contains(&batch.unsynced()), "{}", batch.unsynced());
    }
    batch.commit(false).unwrap();
}

fn complete(still: &Still, batch: &mut Batch<'_>, name: &str, outcome: Bytes) -> RecordId {
    let hold = Hold { id: id(name), fence: still.shared.next_fence().unwrap(), attempt: 1 };
    let _answer = step(batch, hold.id, Transition::Complete(completion(hold, outcome)));
    hold.id
}

// "A claim carries a deadline, and the writer answers it unavailable without doing it once that is past."
#[test]
fn trap_83_a_claim_that_the_writer_comes_to_too_late_is_not_done() {
    let still = Still::new();
    let late = Claim { patience: Duration::ZERO, ..wish() };
    let mut batch = still.batch();
    let answers = [Transition::Claim(late.clone()), Transition::Reclaim(late, Fence(1))]
        .map(|transition| step(&mut batch, id("k"), transition));
    batch.commit(true).unwrap();
    for mut answer in answers {
        assert!(matches!(answer.try_recv().unwrap(), Err(StoreError::Unavailable { .. })));
    }
    assert!(still.load(id("k")).is_none());
}

#[test]
fn while_the_writer_is_behind_new_keys_are_refused_at_once() {
    let still = Still::new();
    let after = |age, waiting| {
        still.shared.set_batch(Some(Instant::now().checked_sub(Duration::from_millis(age)).unwrap()));
        still.shared.check_load(waiting)
    };
    assert!(after(2_000, 4_095).is_ok());
    assert!(matches!(after(2_600, 0), Err(StoreError::Overloaded { .. })));
    assert!(matches!(after(0, 4_096), Err(StoreError::Overloaded { .. })));
    still.shared.set_batch(None);
    assert!(still.shared.check_load(0).is_ok());
    // A write that never returned is no reason to come again in a moment.
    still.shared.poison("a write has not returned".to_owned());
    assert!(matches!(after(61_000, 5_000), Err(StoreError::Unavailable { .. })));
}

// "`sweep(usize::MAX)` is one batch."
#[test]
fn a_sweep_of_everything_is_cut_into_slices() {
    let still = Still::new();
    for slice in 0..3 {
        let mut batch = still.batch();
        for number in 0..100 {
            complete(&still, &mut batch, &format!("k{slice}-{number}"), "done".into());
        }
        batch.commit(false).unwrap();
    }
    still.clock.advance(HOUR);
    let (reply, mut answer) = oneshot::channel();
    let (mut asked, mut left) = (Some(Asked::new(usize::MAX, reply)), vec![300]);
    while let Some(unfinished) = asked {
        let mut batch = still.batch();
        asked = sweep_asked(&mut batch, unfinished);
        batch.commit(false).unwrap();
        left.push(still.database.tree.scan_prefix("r").count());
    }
    assert_eq!((left, answer.try_recv().unwrap().unwrap()), (vec![300, 172, 44, 0], 300));
}

// "Count every operation … divide a batch that is over the bound."
#[test]
fn trap_86_a_batch_is_written_in_steps_each_of_which_is_bounded_whatever_its_verbs_are() {
    let still = Still::new();
    let mut batch = still.batch();
    let ids: Vec<_> = (0..600)
        .map(|number| {
            let id = complete(&still, &mut batch, &format!("k{number}"), Bytes::from(vec![7; 1_000]));
            batch.divide();
            assert!(batch.step_bytes() <= MAX_STEP && batch.unsynced() <= MAX_STEP);
            id
        })
        .collect();
    assert!(batch.unsynced() > 0, "some is written");
    batch.commit(false).unwrap();
    assert!(ids.iter().all(|id| still.load(*id).is_some()));
    // What a verb takes is counted in full: keys, values, and what sled adds.
    let mut batch = still.batch();
    complete(&still, &mut batch, "one", Bytes::from(vec![7; 1_000]));
    assert!(batch.step_bytes() > 1_000 + 33 + ENTRY_BYTES, "{}", batch.step_bytes());
    still.clock.advance(HOUR);
    let mut batch = still.batch();
    sweep(&mut batch, Slice { records: 50, pieces: 0 }).unwrap();
    assert!(batch.step_bytes() > 50 * (33 + ENTRY_BYTES), "removals count too: {}", batch.step_bytes());
}

#[test]
fn max_bytes_refuses_claims_and_is_given_back_by_the_sweep() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Timestamp::from_millis(1_000_000));
    let builder = SledStore::builder().clock(clock.clone()).max_bytes(10_000);
    let (shared, disk) = builder.prepare(&directory.path().join("s")).unwrap();
    let still = Still { database: shared.database().unwrap(), shared, disk, clock, _directory: directory };
    let claim = |name: &str| {
        let mut batch = still.batch();
        let mut claimed = step(&mut batch, id(name), Transition::Claim(wish()));
        batch.commit(false).unwrap();
        claimed.try_recv().unwrap().map(|applied| applied.reply)
    };
    let mut batch = still.batch();
    complete(&still, &mut batch, "inline", Bytes::from(vec![7; 3_000]));
    complete(&still, &mut batch, "in pieces", Bytes::from(vec![7; 7_000]));
    batch.commit(false).unwrap();
    assert!(matches!(claim("new"), Err(StoreError::Full { limit: "max_bytes" })));
    assert!(matches!(claim("inline"), Ok(Reply::Refused)));
    still.clock.advance(HOUR);
    let mut batch = still.batch();
    sweep(&mut batch, SWEPT_IDLE).unwrap();
    batch.commit(false).unwrap();
    assert!(matches!(claim("new"), Ok(Reply::Taken)));
}

/// A store on the system's clock.
fn opened(directory: &tempfile::TempDir) -> Still {
    let (shared, disk) = SledStore::builder().prepare(&directory.path().join("s")).unwrap();
    let (database, clock) = (shared.database().unwrap(), ManualClock::new(Timestamp::from_millis(0)));
    Still { shared, disk, database, clock, _directory: tempfile::tempdir().unwrap() }
}

/// What is in the step that is cut short, beside what was there before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One run ends, one begins, and one is completed whose claim left no trace.
    OfEach,
    /// Of two runs that one list names, one ends.
    OneOfTwo,
    /// A key is claimed again that was released, and whose list stays for another run's sake.
    ClaimedAgain,
}

fn claim(still: &Still, names: &[&str]) -> Vec<Hold> {
    let mut batch = still.batch();
    let sent: Vec<_> =
        names.iter().map(|name| (id(name), step(&mut batch, id(name), Transition::Claim(wish())))).collect();
    batch.commit(false).unwrap();
    sent.into_iter().map(|(id, mut answer)| claimed(id, answer.try_recv().unwrap())).collect()
}

fn end(batch: &mut Batch<'_>, hold: Hold) {
    let _answer = step(batch, hold.id, Transition::Complete(completion(hold, vec![7; 500])));
}

/// What the tree says as it stands: nothing has to be made anew.
fn assert_listed(still: &Still) {
    let totals = Totals::decode(&still.database.tree.get(keys::TOTALS).unwrap().unwrap()).unwrap();
    let listed = Present::load(&still.database.tree, totals.count, &totals.entries).unwrap();
    assert!(listed.is_whole, "nothing has to be made anew");
}

/// A step of which only the first keys are recovered, and the openings after it. `None`: it has no more keys.
fn opened_after(shape: Shape, count: usize) -> Option<usize> {
    let directory = tempfile::tempdir().unwrap();
    let still = opened(&directory);
    let before = claim(&still, &["claimed before", "beside it"]);
    let mut batch = still.batch();
    match shape {
        Shape::OfEach => {
            before.iter().for_each(|hold| end(&mut batch, *hold));
            let _answer = step(&mut batch, id("claimed now"), Transition::Claim(wish()));
            complete(&still, &mut batch, "completed now", Bytes::from(vec![7; 300]));
        }
        Shape::OneOfTwo => end(&mut batch, before[0]),
        Shape::ClaimedAgain => {
            let _answer = step(&mut batch, before[0].id, Transition::Release(before[0].fence));
            batch.commit(false).unwrap();
            batch = still.batch();
            let _answer = step(&mut batch, id("claimed before"), Transition::Claim(wish()));
        }
    }
    let keys = batch.next_step();
    drop(batch);
    if count > keys.len() {
        return None;
    }
    for (key, value) in keys.into_iter().take(count) {
        let tree = &still.database.tree;
        value.map_or_else(|| tree.remove(&key), |value| tree.insert(&key, value)).unwrap();
    }
    still.disk.sync(&still.database.db).unwrap();
    assert_listed(&still);
    drop(still);

    let mut found = 0;
    // And once more: what the opening itself has written counts too.
    for _ in 0..2 {
        let still = opened(&directory);
        assert_listed(&still);
        found = assert_known(&still);
    }
    Some(found)
}

/// Memory knows all that is in the tree; says how many records that are.
fn assert_known(still: &Still) -> usize {
    let ids: Vec<_> =
        still.database.tree.scan_prefix("r").keys().map(|key| keys::id_of(&key.unwrap()).unwrap()).collect();
    assert!(ids.iter().all(|id| still.shared.present.may_have(id)), "memory knows every record");
    assert_eq!(still.shared.count.load(Ordering::Relaxed), ids.len() as u64, "the count doesn't drift");
    let bytes = |id: &RecordId| match still.load(*id).unwrap().state {
        State::Completed { outcome } => outcome.len() as u64,
        State::Running { .. } => panic!("a run of the last process"),
        State::Interrupted { .. } | State::Consumed { .. } => 0,
    };
    assert_eq!(still.shared.bytes.load(Ordering::Relaxed), ids.iter().map(bytes).sum::<u64>(), "nor do the bytes");
    ids.len()
}

#[test]
fn whatever_prefix_of_a_step_is_recovered_makes_sense_and_needs_no_repair() {
    for (shape, keys, last) in [(Shape::OfEach, 8, 4), (Shape::OneOfTwo, 3, 2), (Shape::ClaimedAgain, 3, 2)] {
        let seen: Vec<usize> = (0..).map_while(|count| opened_after(shape, count)).collect();
        assert!(seen.len() > keys && seen.last() == Some(&last), "{seen:?}");
    }
}

// A crash between two steps of an opening: what lists the runs is removed after they are said to be cut short.
#[test]
fn an_opening_that_is_cut_short_between_two_steps_loses_no_run() {
    let directory = tempfile::tempdir().unwrap();
    let still = opened(&directory);
    let names: Vec<String> = (0..450).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for some in names.chunks(150) {
        claim(&still, some);
    }
    // What the opening does first, of which the last step does not reach the disk.
    let batch = first_steps_of_cutting_short(&still);
    assert!(batch > 0, "more than one step");
    let tree = &still.database.tree;
    let listed: HashSet<_> = tree
        .scan_prefix(keys::RUNNING)
        .flat_map(|entry| {
            let (key, value) = entry.unwrap();
            listing::read(&key, &value).unwrap()
        })
        .map(|(id, _)| id)
        .collect();
    for name in names {
        let id = id(name);
        let is_running = matches!(still.load(id).unwrap().state, State::Running { .. });
        assert!(!is_running || listed.contains(&id), "{name} runs and is listed nowhere");
    }
}

/// Says how many bytes were written before the last step.
fn first_steps_of_cutting_short(still: &Still) -> usize {
    let mut batch = still.batch();
    cut_some_short(&mut batch).unwrap();
    batch.unsynced()
}

// A repair that is cut short is begun again: the lists that it found damaged are not taken for whole.
#[test]
fn a_repair_that_fails_half_way_is_done_again_by_the_next_opening() {
    let directory = tempfile::tempdir().unwrap();
    let still = opened(&directory);
    let mut batch = still.batch();
    for number in 0..300 {
        complete(&still, &mut batch, &format!("k{number}"), "done".into());
    }
    batch.commit(false).unwrap();
    // As many listings of what is gone as make up for the list that is lost: each list stays for one run's sake.
    let names: Vec<String> = (0..200).map(|number| format!("released{number}")).collect();
    let held = claim(&still, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut batch = still.batch();
    for hold in held.iter().enumerate().filter(|(number, _)| number % 100 > 0).map(|(_, hold)| hold) {
        let _answer = step(&mut batch, hold.id, Transition::Release(hold.fence));
    }
    batch.commit(false).unwrap();
    let lists: Vec<_> = still.database.tree.scan_prefix(keys::EXPIRY).keys().map(Result::unwrap).collect();
    still.database.tree.remove(&lists[1]).unwrap();
    // As an error of the disk does, it ends the repair after the opening has written its first batch.
    still.database.tree.insert(b"r-no-record", b"").unwrap();
    still.disk.sync(&still.database.db).unwrap();
    drop(still);
    let path = directory.path().join("s");
    for _ in 0..2 {
        let failed = SledStore::builder().prepare(&path).unwrap_err();
        assert!(matches!(failed, OpenError::Database { .. }), "{failed:?}");
    }
    let db = sled::Config::new().path(&path).segment_size(8 << 20).open().unwrap();
    db.open_tree(keys::TREE).unwrap().remove(b"r-no-record").unwrap();
    drop(db);
    let still = opened(&directory);
    assert_eq!(assert_known(&still), 302, "two runs were cut short");
    assert_listed(&still);
}
