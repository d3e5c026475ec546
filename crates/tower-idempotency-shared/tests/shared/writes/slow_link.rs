//! A link to the database that carries few bytes a second, and answers that are large for it.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::Gate;
use testkit::lab::steps::Steps as _;
use testkit::lab::{Lab, done, hold, id, post, settle};
use tokio::time::{Instant, sleep};
use tower_idempotency::internals::{Completion, Records as _, RunResult, State};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend, Replication};
use tower_idempotency_shared::{Kind, Row, Token};

use crate::world::{Effects, LEASE, Store, two};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Links in megabits a second, and answers.
const LINKS: [u64; 3] = [4, 12, 32];
const SIZES: [(usize, usize); 4] = [(64 * KIB, 320), (256 * KIB, 60), (MIB, 20), (16 * MIB - 64 * KIB, 2)];

fn bytes_per_second(megabits: u64) -> u64 {
    megabits * 1_000_000 / 8
}

/// The time that the link takes for this number of bytes.
fn takes(bytes: usize, megabits: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_second(megabits) as f64)
}

/// A server whose handlers answer with this number of bytes.
pub(crate) fn answering(store: &Store, size: usize) -> Lab {
    let layer = IdempotencyLayer::new(store.clone()).max_response_body(16 * MIB);
    Lab::new(layer, move |_| async move { vec![b'x'; size] })
}

/// Returns how many of the rows are completed.
fn completed(backend: &MemoryBackend) -> usize {
    backend.database().rows("").iter().filter(|row| row.kind == Kind::Completed && row.state.len() > KIB).count()
}

/// The sessions' ids: one that was lost has another one after it.
fn sessions(backend: &MemoryBackend) -> Vec<tower_idempotency::RecordId> {
    let rows = backend.database().rows("").into_iter();
    rows.filter(|row| matches!(row.kind, Kind::Session)).map(|row| row.id).collect()
}

// Seeded faults: a call takes as long whatever its size; claims wait behind large writes.
#[tokio::test(start_paused = true)]
async fn on_a_slow_link_no_new_key_is_refused_and_large_answers_are_recorded_once() {
    for megabits in LINKS {
        for (size, count) in SIZES {
            let what = format!("{count} answers of {size} bytes at {megabits} Mbit/s");
            let [(here, one), _] = two().await;
            let before = (here.counts().bytes, sessions(&here));
            here.link(Some(bytes_per_second(megabits)));
            let large = answering(&one, size);
            let small = Effects::default().server(&one, OnInterrupted::Refuse);
            let began = Instant::now();
            let answers: Vec<_> = (0..count).map(|n| large.spawn(post(&format!("large-{n}"), "a"))).collect();
            settle().await;
            // Twice as long as the link is saturated, at most.
            let most = takes(size * count, megabits) * 2 + Duration::from_secs(5);
            let mut number = 0;
            while completed(&here) < count {
                assert!(began.elapsed() < most, "{what}: {} are recorded", completed(&here));
                let answer = small.post(&format!("new-{number}"), "a").await;
                assert!(answer.status.is_success(), "{what}: {answer:?} after {:?}", began.elapsed());
                number += 1;
                sleep(Duration::from_millis(300)).await;
            }
            for answer in join_all(answers).await {
                assert_eq!(answer.unwrap().body.len(), size, "{what}");
            }
            assert!(number > 0, "{what}");
            let sent = usize::try_from(here.counts().bytes - before.0).unwrap();
            assert!(sent < size * count * 11 / 10 + count * KIB + number * KIB, "{what}: {sent} bytes were sent");
            assert_eq!(sessions(&here), before.1, "{what}: the session was lost");
        }
    }
}

// Seeded faults: a row is read again and again, and each time for no longer than a small one; the result is lost if its
// waiter has gone.
#[tokio::test(start_paused = true)]
async fn on_a_slow_link_a_large_answer_is_replayed_elsewhere_and_meanwhile_no_new_key_is_refused() {
    for megabits in LINKS {
        for (size, _) in SIZES {
            let what = format!("{size} bytes at {megabits} Mbit/s");
            let [(_, one), (there, other)] = two().await;
            assert_eq!(answering(&one, size).post("large", "a").await.body.len(), size);
            there.link(Some(bytes_per_second(megabits)));
            let (large, small) = (answering(&other, size), Effects::default().server(&other, OnInterrupted::Refuse));
            let began = Instant::now();
            let most = takes(size, megabits) * 2 + Duration::from_secs(8);
            for number in 0.. {
                let (retry, new) =
                    tokio::join!(large.post("large", "a"), small.spawn(post(&format!("new-{number}"), "a")));
                let new = new.unwrap();
                assert!(new.status.is_success(), "{what}: {new:?} after {:?}", began.elapsed());
                if retry.is_replay() {
                    assert_eq!(retry.body.len(), size, "{what}");
                    break;
                }
                assert_eq!(retry.status, 503, "{what}: {retry:?}");
                assert!(began.elapsed() < most, "{what}");
                sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

/// An answer that takes longer over 4 Mbit/s than a claim may, and is cached.
const LONG: usize = 3 * MIB;

/// A process that asks for a large answer over a slow link, and gives up before it has come.
async fn gave_up(there: &MemoryBackend, elsewhere: &Lab) {
    there.link(Some(bytes_per_second(4)));
    let began = Instant::now();
    assert_eq!(elsewhere.post("k", "a").await.status, 503);
    assert!(began.elapsed() < takes(LONG, 4));
    sleep(takes(LONG, 4)).await;
    there.link(None);
}

// Seeded fault: the result of a read is lost if it has no waiter when it comes.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_comes_when_nobody_waits_for_it_is_replayed_to_the_next_retry() {
    let [(_, one), (there, other)] = two().await;
    let elsewhere = answering(&other, LONG);
    assert_eq!(answering(&one, LONG).post("k", "a").await.status, 200);
    gave_up(&there, &elsewhere).await;
    let gets = there.counts().gets;
    assert!(elsewhere.post("k", "a").await.is_replay());
    assert_eq!(there.counts().gets, gets, "it is not read again");
}

// Seeded fault: the failure of the read is kept as well.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_was_lost_on_its_way_after_its_requester_had_gone_is_read_again_for_the_next_retry() {
    let [(_, one), (there, other)] = two().await;
    let elsewhere = answering(&other, 4 * MIB);
    assert_eq!(answering(&one, 4 * MIB).post("k", "a").await.status, 200);
    let held = there.hold(Call::Get);
    assert_eq!(elsewhere.post("k", "a").await.status, 503);
    held.wait_until_held(1).await;
    held.drop_held();
    settle().await;
    held.release();
    assert!(elsewhere.post("k", "a").await.is_replay());
}

// Seeded fault: if the row differs from the one that was kept, the kept one is read once more.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_has_come_and_was_put_back_after_a_failover_is_replayed() {
    let [(here, one), (there, other)] = two().await;
    let elsewhere = answering(&other, 256 * KIB);
    here.database().replication(Replication::Behind);
    assert_eq!(answering(&one, 256 * KIB).post("k", "a").await.status, 200);
    let held = there.hold(Call::Get);
    assert_eq!(elsewhere.post("k", "a").await.status, 503);
    held.wait_until_held(1).await;
    held.release();
    settle().await;
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    sleep(LEASE).await;
    let replay = elsewhere.post("k", "a").await;
    assert!(replay.is_replay(), "{replay:.200?}");
}

// Seeded faults: the row that was read counts as shown by the server that answered the claim; its bytes count as those
// of the row that the claim met.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_was_read_from_another_server_than_answered_the_claim_is_told_when_that_is_durable() {
    let [(_, one), (there, other)] = two().await;
    assert_eq!(answering(&one, 64 * KIB).post("k", "a").await.status, 200);
    let read = there.hold(Call::Get);
    let retry = answering(&other, 64 * KIB).spawn(post("k", "a"));
    read.wait_until_held(1).await;
    let database = there.database();
    database.restart();
    let row = database.rows("").into_iter().find(|row| row.id == id("k")).expect("it has a row");
    database.insert_raw("", Row { token: Token([7; 16]), ..row });
    let barrier = there.hold(Call::Put);
    read.release();
    barrier.wait_until_held(1).await;
    assert!(!retry.is_finished(), "a write is under way behind which it may be told");
    barrier.release();
    assert!(retry.await.unwrap().is_replay());
}

// Seeded fault: the kept answer is given though the row has changed.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_has_come_is_not_told_after_its_retention() {
    let [(_, one), (there, other)] = two().await;
    let retention = takes(LONG, 4) * 2;
    let [server, elsewhere] = [one, other].map(|store| {
        let layer = IdempotencyLayer::new(store).max_response_body(16 * MIB).retention(retention);
        Lab::new(layer, move |number| async move { vec![b'0' + u8::try_from(number).unwrap(); LONG] })
    });
    assert_eq!(server.post("k", "a").await.body[0], b'1');
    gave_up(&there, &elsewhere).await;
    sleep(retention / 2).await;
    assert_eq!(server.post("k", "a").await.body[0], b'2', "the retention is over");
    let replay = elsewhere.post("k", "a").await;
    assert_eq!((replay.body[0], replay.is_replay()), (b'2', true));
}

// Seeded fault: a kept row is used whatever its state is.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_met_where_a_large_answer_had_been_is_not_told_after_its_end() {
    const RETENTION: Duration = Duration::from_secs(10);
    let [(_, one), (there, other)] = two().await;
    let large = RunResult::Outcome(vec![b'x'; MIB].into());
    let first = hold(&one, "k").await;
    one.complete(Completion { result: large, ..done(first, "", RETENTION) }).await.unwrap();
    let gets = there.hold(Call::Get);
    other.load(id("k")).await.unwrap_err();
    // The row is read by itself now. Before that is done, the key is claimed anew.
    sleep(RETENTION).await;
    let second = hold(&one, "k").await;
    gets.release();
    settle().await;
    one.complete(done(second, "second", LEASE)).await.unwrap();
    let told = other.load(id("k")).await.unwrap().expect("it is there");
    assert_eq!(told.state, State::Completed { outcome: "second".into() });
}

// Seeded fault: a row that does not come in time is asked for as before.
#[tokio::test(start_paused = true)]
async fn a_duplicate_that_waits_elsewhere_is_told_a_large_answer_over_a_slow_link() {
    let [(_, one), (there, other)] = two().await;
    let gate = Gate::default();
    let (found, layer) = (gate.clone(), IdempotencyLayer::new(one).max_response_body(16 * MIB));
    let server = Lab::new(layer, move |_| {
        let gate = found.clone();
        async move {
            gate.pass().await;
            vec![b'x'; LONG]
        }
    });
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    there.link(Some(bytes_per_second(4)));
    let layer = IdempotencyLayer::new(other).max_response_body(16 * MIB).on_in_flight(OnInFlight::Wait(LEASE * 2));
    let duplicate = Lab::counting(layer).spawn(post("k", "a"));
    sleep(Duration::from_secs(1)).await;
    gate.open();
    assert_eq!(run.await.unwrap().body.len(), LONG);
    let answer = duplicate.await.unwrap();
    assert_eq!((answer.body.len(), answer.is_replay()), (LONG, true), "{}", answer.problem());
}

// Seeded faults: two rows are read at a time; a row is read once for each request.
#[tokio::test(start_paused = true)]
async fn large_answers_are_read_one_at_a_time_and_once_for_all_who_ask() {
    let [(_, one), (there, other)] = two().await;
    let (server, elsewhere) = (answering(&one, MIB), answering(&other, MIB));
    for key in ["k", "other"] {
        assert_eq!(server.post(key, "a").await.status, 200);
    }
    let gets = there.counts().gets;
    let held = there.hold(Call::Get);
    let replays = ["k", "other"].map(|key| elsewhere.spawn(post(key, "a")));
    settle().await;
    // The second request for a row. One by the layer would wait at the slot of its key.
    let known = tokio::spawn(async move { other.load(id("k")).await });
    settle().await;
    assert_eq!(held.held(), 1);
    held.release();
    for replay in replays {
        assert!(replay.await.unwrap().is_replay());
    }
    assert!(known.await.unwrap().unwrap().is_some());
    assert_eq!(there.counts().gets - gets, 2);
}

// Seeded faults: a row that was read before it changed is returned; it is read once for each round.
#[tokio::test(start_paused = true)]
async fn a_large_answer_that_was_read_before_the_row_that_a_claim_met_is_read_once_more() {
    let [(_, one), (there, other)] = two().await;
    assert_eq!(answering(&one, MIB).post("k", "a").await.status, 200);
    let elsewhere = answering(&other, MIB);
    let answers = there.hold_answers(Call::Get);
    let first = elsewhere.spawn(post("k", "a"));
    answers.wait_until_held(1).await;
    let database = there.database();
    let row = database.rows("").into_iter().find(|row| row.id == id("k")).expect("it has a row");
    database.insert_raw("", Row { token: Token([7; 16]), ..row });
    let gets = there.counts().gets;
    let second = tokio::spawn(async move { other.load(id("k")).await });
    settle().await;
    answers.release();
    assert!(first.await.unwrap().is_replay());
    assert!(second.await.unwrap().unwrap().is_some());
    assert_eq!(there.counts().gets - gets, 1);
}

// A seeded fault: each row that was late is met by a call of its own.
#[tokio::test(start_paused = true)]
async fn rows_that_were_late_together_are_met_in_one_call() {
    let [(_, one), (there, other)] = two().await;
    let keys = ["one", "two", "three"];
    for key in keys {
        assert_eq!(answering(&one, MIB).post(key, "a").await.status, 200);
    }
    let answers = there.hold_answers(Call::Get);
    let loads = keys.map(|key| {
        let store = other.clone();
        tokio::spawn(async move { store.load(id(key)).await })
    });
    answers.wait_until_held(1).await;
    let meets = there.hold(Call::Put);
    meets.wait_until_held(1).await;
    settle().await;
    assert_eq!((answers.held(), meets.held()), (1, 1));
    meets.release();
    answers.release();
    for load in loads {
        assert!(load.await.unwrap().unwrap().is_some());
    }
}

// Seeded faults: the store meets the row without its bytes after every failure, or never.
#[tokio::test(start_paused = true)]
async fn a_row_is_met_without_its_bytes_only_after_a_read_that_was_late() {
    let [(_, one), (there, other)] = two().await;
    assert_eq!(answering(&one, MIB).post("k", "a").await.status, 200);
    let puts = there.counts().puts;
    there.fail_next(Call::Get, Fault::Refuse);
    other.load(id("k")).await.unwrap_err();
    assert_eq!(there.counts().puts, puts);
    there.link(Some(bytes_per_second(4)));
    assert!(other.load(id("k")).await.unwrap().is_some());
    assert!(there.counts().puts > puts);
}
