//! Calls and answers that are lost, doubled or late.

use std::collections::HashMap;
use std::time::Duration;

use testkit::Gate;
use testkit::lab::asked::leave_interrupted_under;
use testkit::lab::{Lab, id, post, settle};
use tokio::time::{Instant, sleep};
use tower_idempotency::internals::ClaimPolicy;
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, Fault, FaultRates, MemoryBackend};
use tower_idempotency_shared::{GRACE, Kind};

use crate::world::{Effects, LEASE, two};

// Seeded faults: a write whose answer was lost is sent again with another token; it counts as not done once a copy of
// it is refused.
#[tokio::test(start_paused = true)]
async fn a_claim_or_an_outcome_whose_answer_is_lost_is_known_for_its_own_when_it_is_sent_again() {
    let pairs = [
        [Fault::LoseAnswer; 2],
        [Fault::LoseCall; 2],
        [Fault::Late; 2],
        [Fault::Late, Fault::LoseAnswer],
        // A copy that is refused shows nothing about the first one.
        [Fault::LoseAnswer, Fault::Refuse],
        [Fault::Late, Fault::Refuse],
    ];
    for faults in pairs {
        for at in ["claim", "outcome"] {
            let [(here, one), (_, other)] = two().await;
            let (effects, gate) = (Effects::default(), Gate::default());
            let server = effects.behind(IdempotencyLayer::new(one), &gate);
            let fail = || faults.into_iter().for_each(|fault| here.fail_next(Call::Put, fault));
            if at == "claim" {
                fail();
            }
            let mut run = server.spawn(post("k", "a"));
            tokio::select! {
                () = gate.arrival() => {}
                answer = &mut run => panic!("{faults:?} {at}: {answer:?}"),
            }
            if at == "outcome" {
                fail();
            }
            gate.open();
            assert_eq!(run.await.unwrap().text(), "effect 1", "{faults:?} {at}");
            here.deliver_late();
            let replay = effects.server(&other, OnInterrupted::Refuse).post("k", "a").await;
            assert_eq!((replay.text(), replay.is_replay()), ("effect 1", true), "{faults:?} {at}");
            assert_eq!(effects.count(), 1);
        }
    }
}

// "No call deletes": a claim that comes late, after its own release, finds no absent row.
#[tokio::test(start_paused = true)]
async fn trap_95_a_claim_that_comes_late_after_its_release_leaves_no_run_without_an_owner() {
    let [(here, one), (_, other)] = two().await;
    let freeing =
        Lab::new(IdempotencyLayer::new(one), |n| async move { (tower_idempotency::Release, format!("released {n}")) });
    here.fail_next(Call::Put, Fault::Double);
    assert_eq!(freeing.post("k", "a").await.text(), "released 1");
    assert_eq!(here.deliver_late(), 1);
    settle().await;
    let effects = Effects::default();
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
}

// A seeded fault: the token of a write is the number of writes that the row has had.
#[tokio::test(start_paused = true)]
async fn trap_94_a_write_that_outlives_its_row_does_nothing_to_the_next_one() {
    const KEPT: Duration = Duration::from_secs(600);
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    let [gate, next_gate] = [Gate::default(), Gate::default()];
    let server = effects.behind(IdempotencyLayer::new(one).retention(KEPT), &gate);
    let next_server = effects.behind(IdempotencyLayer::new(other).retention(KEPT), &next_gate);
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    here.fail_next(Call::Put, Fault::Double);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    let row = || here.database().rows("").into_iter().find(|row| row.id == id("k"));
    let begin = Instant::now();
    while row().is_some() {
        assert!(begin.elapsed() < (KEPT + GRACE) * 2, "the row is deleted");
        sleep(Duration::from_secs(10)).await;
    }
    let run = next_server.spawn(post("k", "a"));
    next_gate.arrival().await;
    let claimed = row();
    assert_eq!(here.deliver_late(), 1);
    assert_eq!(row(), claimed);
    next_gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 2");
    let replay = server.post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay()), ("effect 2", true));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_answered_too_late_runs_nothing_and_is_given_back() {
    let [(here, one), (_, other)] = two().await;
    let effects = Effects::default();
    let held = here.hold_answers(Call::Put);
    let refused = effects.server(&one, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!((refused.problem().as_str(), effects.count()), ("store-unavailable", 0));
    held.release();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
}

/// The kinds of the rows that were written for a key.
fn written(backend: &MemoryBackend, key: &str) -> Vec<Kind> {
    let written = backend.database().written();
    written.into_iter().filter(|write| write.id == id(key)).map(|write| write.kind).collect()
}

// A seeded fault: a claim whose answer was lost is sent again, and granted, after its request was refused.
#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_not_granted_after_its_requester_was_told_no() {
    for rates in [
        FaultRates { lose_call: 1_000, ..NONE },
        FaultRates { late: 1_000, ..NONE },
        FaultRates { lose_answer: 1_000, ..NONE },
    ] {
        let [(here, one), (_, other)] = two().await;
        let effects = Effects::default();
        here.fail_at_random(1, rates);
        let refused = effects.server(&one, OnInterrupted::Refuse).post("k", "a").await;
        assert_eq!(refused.problem(), "store-unavailable", "{rates:?}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        here.fail_no_more();
        tokio::time::sleep(Duration::from_secs(5)).await;
        here.deliver_late();
        let is_done = rates.lose_answer > 0;
        assert_eq!(written(&here, "k").contains(&Kind::Running), is_done, "{rates:?}: {:?}", written(&here, "k"));
        assert_eq!(written(&here, "k").last(), Some(&Kind::Released), "{rates:?}: {:?}", written(&here, "k"));
        assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1", "{rates:?}");
    }
}

// A seeded fault: a row that was to be taken over stays as its claim expects it.
#[tokio::test(start_paused = true)]
async fn an_operation_is_not_taken_over_after_the_requester_was_told_no() {
    let [(here, one), (there, other)] = two().await;
    leave_interrupted_under(ClaimPolicy::Rerun, &one, "k").await;
    let row = || here.database().rows("").into_iter().find(|row| row.id == id("k")).unwrap();
    let before = row();
    let effects = Effects::default();
    let held = there.hold(Call::Put);
    let retry = effects.server(&other, OnInterrupted::Rerun).spawn(post("k", "a"));
    held.wait_until_held(1).await;
    // The claim gets the record; the next write is the takeover.
    there.fail_next(Call::Put, Fault::Late);
    assert!(held.release_one());
    settle().await;
    assert_eq!(there.late(), 1);
    there.fail_at_random(1, FaultRates { lose_call: 1_000, ..NONE });
    drop(held);
    assert!(matches!(retry.await.unwrap().problem().as_str(), "overloaded" | "store-unavailable"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    there.fail_no_more();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(there.deliver_late(), 1);
    let after = row();
    assert_eq!(
        (after.kind, after.fence, after.state, after.since),
        (before.kind, before.fence, before.state, before.since)
    );
    assert_eq!((written(&here, "k").contains(&Kind::Released), effects.count()), (false, 0));
    assert_eq!(effects.server(&other, OnInterrupted::Rerun).post("k", "a").await.text(), "effect 1");
}

// A seeded fault: a claim that comes too late is given back a few times, and then never.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_granted_too_late_is_given_back_when_the_database_takes_it() {
    let here = crate::world::database();
    let there = here.another_process();
    let builder = crate::world::builder(&here).lease(LEASE * 2).call_timeout(LEASE / 3);
    let (one, other) = (builder.open(here.clone()).await.unwrap(), crate::world::process(&there).await);
    let effects = Effects::default();
    let held = here.hold_answers(Call::Put);
    let refused = effects.server(&one, OnInterrupted::Refuse).post("k", "a").await;
    assert_eq!(refused.problem(), "store-unavailable");
    here.fail_at_random(1, FaultRates { refuse: 1_000, ..NONE });
    held.release();
    tokio::time::sleep(Duration::from_secs(5)).await;
    here.fail_no_more();
    tokio::time::sleep(LEASE).await;
    assert_eq!(written(&here, "k"), [Kind::Running, Kind::Released]);
    assert_eq!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.text(), "effect 1");
}

// A seeded fault: the row of an outcome is kept for no longer than the outcome.
#[tokio::test(start_paused = true)]
async fn a_claim_that_arrives_once_more_after_a_short_retention_leaves_no_run() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    gate.open();
    let [server, elsewhere] = [one, other].map(|store| {
        effects.behind(IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject).retention(SHORT), &gate)
    });
    here.fail_next(Call::Put, Fault::Double);
    for is_replay in [false, true] {
        let answer = server.post("k", "a").await;
        assert_eq!((answer.text(), answer.is_replay()), ("effect 1", is_replay));
    }
    assert!(elsewhere.post("k", "a").await.is_replay());
    tokio::time::sleep(SHORT).await;
    assert_eq!(here.deliver_late(), 1);
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 2", "the retention is over");
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}

// A seeded fault: an outcome that is not kept is gone at once.
#[tokio::test(start_paused = true)]
async fn a_duplicate_that_waits_elsewhere_is_given_an_outcome_that_is_not_kept() {
    let [(_, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let [server, elsewhere] =
        [one, other].map(|store| effects.behind(IdempotencyLayer::new(store).retention(Duration::ZERO), &gate));
    let run = server.spawn(post("k", "a"));
    gate.arrival().await;
    let duplicate = elsewhere.spawn(post("k", "a"));
    settle().await;
    gate.open();
    for answer in [run.await.unwrap(), duplicate.await.unwrap()] {
        assert_eq!(answer.text(), "effect 1");
    }
}

/// A retention that is over before a write may have arrived.
const SHORT: Duration = Duration::from_secs(1);

/// No fault at all.
const NONE: FaultRates =
    FaultRates { refuse: 0, lose_call: 0, lose_answer: 0, late: 0, double: 0, deliver: 0, delay: Duration::ZERO };

/// Sends requests of a few keys from two processes whose calls suffer faults at random, and checks the answers.
async fn storm(seed: u64, policy: OnInterrupted) -> usize {
    const KEYS: usize = 12;
    const ROUNDS: usize = 12;
    let processes = two().await;
    for (number, (backend, _)) in processes.iter().enumerate() {
        let rates = FaultRates { delay: Duration::from_millis(20), ..FaultRates::default() };
        backend.fail_at_random(seed * 2 + number as u64, rates);
    }
    let effects: [Effects; KEYS] = std::array::from_fn(|_| Effects::default());
    let gate = Gate::default();
    gate.open();
    let servers: Vec<Vec<Lab>> = effects
        .iter()
        .map(|effects| {
            let layer = |store: &_| IdempotencyLayer::new(Clone::clone(store)).on_interrupted(policy);
            processes
                .iter()
                .map(|(_, store)| effects.behind(layer(store).on_in_flight(OnInFlight::Reject), &gate))
                .collect()
        })
        .collect();
    let mut told: HashMap<usize, String> = HashMap::new();
    let mut answered = 0;
    for round in 0..ROUNDS {
        let asked = (0..KEYS * 2).map(|number| {
            let (key, server) = (number / 2, &servers[number / 2][(number + round) % 2]);
            async move { (key, server.post(&format!("k{key}"), "a").await) }
        });
        for (key, answer) in futures_util::future::join_all(asked).await {
            if answer.status.is_success() {
                answered += 1;
                let text = told.entry(key).or_insert_with(|| answer.text().to_owned());
                assert_eq!(text, answer.text(), "seed {seed}, key {key}");
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for (backend, _) in &processes {
        backend.fail_no_more();
        backend.deliver_late();
    }
    // Everything is known in the end.
    tokio::time::sleep(Duration::from_secs(120)).await;
    for (key, effects) in effects.iter().enumerate() {
        assert!(effects.count() <= 1, "seed {seed}, key {key}: {} effects", effects.count());
        let answers =
            [servers[key][0].post(&format!("k{key}"), "a").await, servers[key][1].post(&format!("k{key}"), "a").await];
        for answer in answers {
            assert_eq!(
                answer.text(),
                told.get(&key).cloned().unwrap_or_else(|| "effect 1".into()),
                "seed {seed}, key {key}"
            );
        }
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn whatever_is_lost_doubled_or_late_each_key_has_one_effect_and_one_answer() {
    let mut answered = 0;
    for seed in 0..40 {
        for policy in [OnInterrupted::Refuse, OnInterrupted::Rerun] {
            answered += storm(seed, policy).await;
        }
    }
    assert!(answered > 1_000, "{answered} answers are too few to say anything");
}
