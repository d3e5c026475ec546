//! Service and proxy are killed under load, again and again: no order takes effect twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::tempdir;
use testkit::{Answer, Call, Connection, Dice, dice, skipped};

use super::parts::{Language, Parts};

const CLIENTS: usize = 8;
/// Orders of each client, and the least number of kills of either process.
const ORDERS: usize = 40;
const KILLS: usize = 4;
/// How often a client sends an order at most.
const ATTEMPTS: usize = 400;

#[derive(Debug, Default)]
struct Seen {
    done: AtomicUsize,
    unknown: AtomicUsize,
    /// Attempts that got no answer, or one that says "send again".
    again: AtomicUsize,
}

/// Sends an order until it is decided. Returns the key that its effect has, if it is done.
async fn order(parts: &Parts, key: &str, seen: &Seen) -> Option<String> {
    let call = Call::post("/orders", "item=book").header("idempotency-key", key);
    for _ in 0..ATTEMPTS {
        let answer = attempt(parts, &call).await;
        match answer.as_ref().map(|answer| (answer.status.as_u16(), answer.problem())) {
            Some((201, _)) => {
                seen.done.fetch_add(1, Ordering::Relaxed);
                return answer.unwrap().json()["key"].as_str().map(str::to_owned);
            }
            Some((409, problem)) if problem == "outcome-unknown" => {
                seen.unknown.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            // No answer, in flight, 502, 503: the client can't know, and sends again.
            _ => seen.again.fetch_add(1, Ordering::Relaxed),
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{key} is never decided");
}

async fn attempt(parts: &Parts, call: &Call) -> Option<Answer> {
    let sending = async { Connection::http1(parts.proxy).await.ok()?.send(call).await.ok() };
    tokio::time::timeout(Duration::from_secs(20), sending).await.ok()?
}

async fn no_order_takes_effect_twice(language: Language) {
    let promise = "behind the proxy no order takes effect twice, although both ends are killed";
    if !language.is_there() {
        return skipped(promise, &format!("there is no interpreter for {language:?}"));
    }
    let directory = tempdir().unwrap();
    let (parts, seen) = (Arc::new(Parts::new(language, directory.path())), Arc::new(Seen::default()));
    let seed = dice::seed();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (parts, seen) = (Arc::clone(&parts), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut done = Vec::new();
                for number in 0..ORDERS {
                    done.extend(order(&parts, &format!("client-{client}-order-{number}"), &seen).await);
                }
                done
            })
        })
        .collect();
    let (mut service, mut proxy) = (parts.start_service().await, parts.start_proxy(&[]).await);
    let mut dice = Dice::new(seed);
    let mut kills = [0, 0];
    // The kills are spread over the load: each comes after some more orders.
    while kills.iter().any(|kills| *kills < KILLS) {
        let decided = || seen.done.load(Ordering::Relaxed) + seen.unknown.load(Ordering::Relaxed);
        let next = decided() + 1 + dice.below(12);
        testkit::process::until("the load goes on", async || decided() >= next.min(CLIENTS * ORDERS)).await;
        if dice.percent(50) {
            service.kill();
            service = parts.start_service().await;
            kills[0] += 1;
        } else {
            proxy.kill();
            proxy = parts.start_proxy(&[]).await;
            kills[1] += 1;
        }
    }
    let mut done = Vec::new();
    for client in clients {
        done.extend(client.await.unwrap());
    }
    let effects = parts.effects();
    let once: HashSet<_> = effects.iter().collect();
    let how = format!("seed {seed}, {seen:?}, {} effects, {kills:?} kills of service and proxy", effects.len());
    assert_eq!(once.len(), effects.len(), "an order took effect twice; {how}: {effects:?}");
    assert!(done.iter().all(|key| once.contains(key)), "an order that was answered has no effect; {how}");
    // An outcome that is unknown is an effect or none.
    let unknown = seen.unknown.load(Ordering::Relaxed);
    assert!(done.len() <= effects.len() && effects.len() <= done.len() + unknown, "{how}");
    assert_eq!(done.len() + unknown, CLIENTS * ORDERS);
    assert!(seen.again.load(Ordering::Relaxed) > 0, "the kills met no request: this shows nothing; {how}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_front_of_a_service_in_python() {
    no_order_takes_effect_twice(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_front_of_a_service_in_node() {
    no_order_takes_effect_twice(Language::Node).await;
}
