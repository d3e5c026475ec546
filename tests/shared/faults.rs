//! Calls and answers that are lost, doubled or late.

use std::collections::HashMap;
use std::time::Duration;

use tower_idempotency::store::shared::memory_backend::{Call, Fault, Odds};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};

use crate::common::lab::{Gate, Lab, post, settle};
use crate::world::{Effects, two};

// A seeded fault: a write whose answer was lost is sent again with another token.
#[tokio::test(start_paused = true)]
async fn a_claim_or_an_outcome_whose_answer_is_lost_is_known_for_its_own_when_it_is_sent_again() {
    for faults in [[Fault::LoseAnswer; 2], [Fault::LoseCall; 2], [Fault::Late; 2], [Fault::Late, Fault::LoseAnswer]] {
        for at in ["claim", "outcome"] {
            let [(here, one), (_, other)] = two().await;
            let (effects, gate) = (Effects::default(), Gate::default());
            let server = effects.behind(IdempotencyLayer::new(one), &gate);
            let fail = || faults.into_iter().for_each(|fault| here.fail_next(Call::Put, fault));
            if at == "claim" {
                fail();
            }
            let run = server.spawn(post("k", "a"));
            gate.arrival().await;
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

// "No verb deletes": a claim that comes late, after its own release, finds no absent row.
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

/// Sends requests of a few keys from two processes whose calls suffer faults at random, and checks what was told.
async fn storm(seed: u64, policy: OnInterrupted) -> usize {
    const KEYS: usize = 12;
    const ROUNDS: usize = 12;
    let processes = two().await;
    for (number, (backend, _)) in processes.iter().enumerate() {
        let odds = Odds { delay: Duration::from_millis(20), ..Odds::default() };
        backend.fail_at_random(seed * 2 + number as u64, odds);
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
