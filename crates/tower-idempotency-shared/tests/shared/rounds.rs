//! The number of database calls that a request costs, and the records that processes share.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use http::StatusCode;
use testkit::Gate;
use testkit::lab::{Lab, keyed, post, settle};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};

use crate::world::{Effects, Store, two};

/// The calls that a process has sent: gets and puts.
fn calls(backend: &tower_idempotency_conformance::memory_backend::MemoryBackend) -> (u64, u64) {
    let counts = backend.counts();
    (counts.gets, counts.puts)
}

#[tokio::test(start_paused = true)]
async fn a_first_run_takes_two_calls_a_replay_elsewhere_one_and_the_next_one_there_none() {
    let [(here, one), (there, other)] = two().await;
    let effects = Effects::default();
    let servers = [effects.server(&one, OnInterrupted::Refuse), effects.server(&other, OnInterrupted::Refuse)];
    let (before, before_there) = (calls(&here), calls(&there));
    assert_eq!(servers[0].post("k", "a").await.text(), "effect 1");
    assert_eq!(calls(&here), (before.0, before.1 + 2));
    for (server, puts) in [(&servers[0], 0), (&servers[1], 1), (&servers[1], 1)] {
        let replay = server.post("k", "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("effect 1", true));
        assert_eq!(calls(&here), (before.0, before.1 + 2));
        assert_eq!(calls(&there), (before_there.0, before_there.1 + puts));
    }
    servers[1].post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(effects.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_answer_that_says_that_nothing_was_done_another_server_runs_the_key_with_other_credentials() {
    let [(_, one), (_, other)] = two().await;
    for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
        let server = |store: &Store| {
            let layer = IdempotencyLayer::new(store.clone()).on_interrupted(policy);
            let sign_in = async |request: Request| match request.headers().contains_key("authorization") {
                true => "done".into_response(),
                false => StatusCode::UNAUTHORIZED.into_response(),
            };
            Lab::of(Router::new().fallback(sign_in).layer(layer))
        };
        let (key, servers) = (format!("{policy:?}"), [server(&one), server(&other)]);
        for server in &servers {
            assert_eq!(server.post(&key, "a").await.status, 401);
        }
        let signed_in =
            || keyed("POST", "/elsewhere", &key).header("authorization", "Bearer a").body("b".into()).unwrap();
        assert_eq!(servers[1].send(signed_in()).await.text(), "done");
        assert!(servers[0].send(signed_in()).await.is_replay());
    }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_of_a_run_elsewhere_takes_one_call_and_one_when_it_is_told_of_the_end() {
    let [(_, one), (there, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let servers =
        [effects.behind(IdempotencyLayer::new(one), &gate), effects.behind(IdempotencyLayer::new(other), &gate)];
    let run = servers[0].spawn(post("k", "a"));
    gate.arrival().await;
    let (gets, puts) = calls(&there);
    let duplicates = [servers[1].spawn(post("k", "a")), servers[1].spawn(post("k", "a"))];
    settle().await;
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    for duplicate in duplicates {
        assert!(duplicate.await.unwrap().is_replay());
    }
    // The duplicates have met at the slot, or one after the other.
    let (gets, puts) = (calls(&there).0 - gets, calls(&there).1 - puts);
    assert!(gets == 1 && puts <= 2, "{gets} {puts}");
    assert_eq!(effects.count(), 1);
}

// A fault of the past: a duplicate that met another one's slot got `in-flight`. It was seen with a PostgreSQL under
// load, where `what_one_process_has_done_the_others_replay` failed. It never happens on one thread.
#[tokio::test(start_paused = true)]
async fn however_many_duplicates_come_elsewhere_each_waits_for_the_end() {
    let [(_, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let servers =
        [effects.behind(IdempotencyLayer::new(one), &gate), effects.behind(IdempotencyLayer::new(other), &gate)];
    let run = servers[0].spawn(post("k", "a"));
    gate.arrival().await;
    // One comes at each moment of the claims of those before it.
    let mut duplicates = Vec::new();
    for _ in 0..400 {
        duplicates.push(servers[1].spawn(post("k", "a")));
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    for duplicate in duplicates {
        let answer = duplicate.await.unwrap();
        assert!(answer.is_replay(), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_elsewhere_learns_of_the_end_where_the_database_says_nothing() {
    let [(here, one), (_, other)] = two().await;
    here.database().mute_notifications(true);
    let (effects, gate) = (Effects::default(), Gate::default());
    let servers =
        [effects.behind(IdempotencyLayer::new(one), &gate), effects.behind(IdempotencyLayer::new(other), &gate)];
    let run = servers[0].spawn(post("k", "a"));
    gate.arrival().await;
    let duplicate = servers[1].spawn(post("k", "a"));
    settle().await;
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert!(duplicate.await.unwrap().is_replay());
}

// A seeded fault: its row is read until its run ends.
#[tokio::test(start_paused = true)]
async fn a_run_elsewhere_for_which_no_duplicate_waits_any_more_takes_no_call() {
    let [(here, one), (there, other)] = two().await;
    here.database().mute_notifications(true);
    let (effects, gate) = (Effects::default(), Gate::default());
    let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let elsewhere = effects.server(&other, OnInterrupted::Refuse);
    let before = calls(&there).0;
    assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    assert!(calls(&there).0 > before, "it was waited for");
    // A read may be due already.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = calls(&there).0;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(calls(&there).0, before);
    // A duplicate that waits from now on still learns of the end.
    let duplicate = elsewhere.spawn(post("k", "a"));
    settle().await;
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert!(duplicate.await.unwrap().is_replay());
}

// Seeded faults: each duplicate that waits reads its row by itself; each reads at moments of its own.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_runs_elsewhere_read_their_rows_together() {
    const KEYS: usize = 200;
    let [(here, one), (there, other)] = two().await;
    here.database().mute_notifications(true);
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = |store| IdempotencyLayer::new(store).on_in_flight(OnInFlight::Wait(Duration::from_secs(60)));
    let servers = [effects.behind(layer(one), &gate), effects.behind(layer(other), &gate)];
    let post = |number| post(&format!("k{number}"), "a");
    let runs: Vec<_> = (0..KEYS).map(|number| servers[0].spawn(post(number))).collect();
    settle().await;
    let mut duplicates = Vec::new();
    for number in 0..KEYS {
        duplicates.push(servers[1].spawn(post(number)));
        // They begin to wait at many moments.
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let before = calls(&there).0;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let gets = calls(&there).0 - before;
    assert!((2..=100).contains(&gets), "{gets}");
    gate.open();
    for run in runs {
        assert!(!run.await.unwrap().is_replay());
    }
    for duplicate in duplicates {
        assert!(duplicate.await.unwrap().is_replay());
    }
    assert_eq!(effects.count(), KEYS);
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_first_requests_over_two_processes_one_runs() {
    let [(_, one), (_, other)] = two().await;
    let effects = Effects::default();
    let servers = [effects.server(&one, OnInterrupted::Rerun), effects.server(&other, OnInterrupted::Rerun)];
    let all = futures_util::future::join_all((0..1_000).map(|number| servers[number % 2].post("k", "a"))).await;
    assert!(all.iter().all(|answer| answer.text() == "effect 1"), "each waits for the one that runs");
    assert_eq!(effects.count(), 1);
}
