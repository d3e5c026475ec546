//! The numbers that the page draws.

use std::time::Duration;

use serde_json::json;
use testkit::Gate;
use testkit::lab::asked::leave_interrupted;
use testkit::lab::settle;
use testkit::lab::time::{HOUR, NOON};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::Store as _;
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{MemoryStore, OnInFlight};
use tower_idempotency_admin::{Access, AdminPage, Latencies};

use crate::desk::{Desk, authorize, layer};

fn observed() -> Desk {
    let (store, latencies) = (MemoryStore::new(), Latencies::new());
    store.observe(latencies.clone()).unwrap();
    let layer = layer(store);
    let page = AdminPage::new(layer.operations(), |parts| authorize(parts, Access::READ)).latencies(latencies);
    Desk::of(layer, page)
}

#[tokio::test]
async fn what_happens_is_counted_and_timed_and_large_numbers_are_texts() {
    let desk = observed();
    for key in ["a", "b", "a"] {
        desk.charge(key, "17").await;
    }
    desk.interrupted("c").await;
    desk.charge("c", "unknown").await;
    let stats = desk.get("/api/stats").await.json();
    for (name, count) in [("runs", "3"), ("replays", "1"), ("rejections", "1"), ("interrupted", "1"), ("live", "0")] {
        assert_eq!(stats["counts"][name], count, "{name}: {stats}");
    }
    assert!(stats["counts"].as_object().unwrap().values().all(serde_json::Value::is_string));
    let timed = |name: &str| {
        let counts = stats["latencies"][name].as_array().unwrap();
        assert_eq!(counts.len(), stats["latencies"]["bounds_micros"].as_array().unwrap().len() + 1);
        counts.iter().map(|count| count.as_str().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    assert_eq!(["claim", "run", "record", "replay", "wait"].map(timed), [3, 3, 3, 1, 0]);
    assert_eq!(stats["interrupted"]["count"], 1);
    assert_eq!(stats["store"], json!({ "name": "memory", "is_good": true, "health": "works" }));
}

#[tokio::test]
async fn the_numbers_are_whole_without_javascript() {
    let desk = observed();
    desk.charge("a", "17").await;
    let page = desk.get("").await;
    for part in ["Handlers run", "Claiming a key", "In flight", "Interrupted", "Disputed", "since the start"] {
        assert!(page.text().contains(part), "{part}");
    }
    for (time, is_there) in [("claim", true), ("run", true), ("record", true), ("replay", false), ("wait", false)] {
        let row = page.text().split_once(&format!("data-time=\"{time}\"")).unwrap().1;
        for part in ["median", "high"] {
            let shown = row.split_once(&format!("<span data-part=\"{part}\">")).unwrap().1;
            assert_eq!(!shown.starts_with('–'), is_there, "{part} of {time}: {}", page.text());
        }
    }
    // What only the script fills is not there without it.
    for line in page.text().split("<").filter(|tag| tag.contains("script-only")) {
        assert!(line.contains(" hidden"), "{line}");
    }
    let without = Desk::new().get("").await;
    assert!(!without.text().contains("Claiming a key"));
}

#[tokio::test]
async fn what_is_in_flight_is_counted_with_its_age() {
    let (store, gate) = (MemoryStore::new(), Gate::default());
    let layer = layer(store);
    let lab = testkit::lab::gated(layer.clone(), &gate);
    let desk = Desk::over(layer, Access::READ);
    let run = lab.spawn(testkit::lab::post("k", "a"));
    gate.arrival().await;
    let stats = desk.get("/api/stats").await.json();
    assert_eq!((&stats["running"]["count"], &stats["counts"]["live"]), (&json!(1), &json!("1")));
    assert!(stats["running"]["oldest"].is_string());
    let listed = desk.listed("running").await;
    assert_eq!((listed.len(), &listed[0]["server"]), (1, &json!("here")));
    gate.open();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_for_the_first_request_is_timed() {
    let (store, gate, latencies) = (MemoryStore::new(), Gate::default(), Latencies::new());
    store.observe(latencies.clone()).unwrap();
    let layer = layer(store).on_in_flight(OnInFlight::Wait(HOUR));
    let lab = testkit::lab::gated(layer.clone(), &gate);
    let page = AdminPage::new(layer.operations(), |parts| authorize(parts, Access::READ)).latencies(latencies);
    let desk = Desk::of(layer, page);
    let first = lab.spawn(testkit::lab::post("k", "a"));
    gate.arrival().await;
    let retry = lab.spawn(testkit::lab::post("k", "a"));
    settle().await;
    gate.open();
    assert!(!first.await.unwrap().is_replay() && retry.await.unwrap().is_replay());
    let waits = desk.get("/api/stats").await.json()["latencies"]["wait"].clone();
    assert_eq!(waits.as_array().unwrap().iter().filter(|count| *count == "1").count(), 1, "{waits}");
}

#[tokio::test(start_paused = true)]
async fn the_store_is_asked_again_after_five_seconds() {
    let store = MemoryStore::new();
    let desk = Desk::over(layer(store.clone()), Access::ALL);
    let count = async || desk.get("/api/stats").await.json()["interrupted"]["count"].clone();
    assert_eq!(count().await, 0);
    let hold = leave_interrupted(&store, "k").await;
    for (millis, interrupted) in [(4_999, 0), (1, 1)] {
        tokio::time::advance(Duration::from_millis(millis)).await;
        assert_eq!(count().await, interrupted);
    }
    // After a change, it is asked at once.
    let (id, fence) = (hold.id.to_string(), desk.listed("interrupted").await[0]["fence"].as_str().unwrap().to_owned());
    assert_eq!(desk.change(&(id, fence), "release").await.status, 200);
    assert_eq!(count().await, 0);
}

#[tokio::test]
async fn the_last_time_of_the_calendar_is_shown_though_it_is_ahead_of_this_process() {
    let clock = ManualClock::new(Timestamp::from_millis(253_402_300_799_999));
    let desk = Desk::over(layer(MemoryStore::builder().clock(clock).build()), Access::READ);
    let (id, _) = desk.interrupted("k").await;
    let listed = desk.listed("interrupted").await.remove(0);
    assert_eq!((&listed["since"], &listed["expires"]), (&json!("9999-12-31T23:59:59.999Z"), &json!(null)));
    let page = desk.get(&format!("?id={id}")).await;
    assert!(page.text().contains("9999-12-31 23:59:59 UTC (0 s ago)"), "{}", page.text());
}

// Seeded fault: the newest one's time is shown.
#[tokio::test]
async fn the_age_of_what_is_interrupted_is_that_of_the_oldest() {
    let clock = ManualClock::new(NOON);
    let desk = Desk::over(layer(MemoryStore::builder().clock(clock.clone()).build()), Access::READ);
    for key in ["first", "second", "third"] {
        desk.interrupted(key).await;
        clock.advance(HOUR);
    }
    let stats = desk.get("/api/stats").await.json();
    let listed = desk.listed("interrupted").await;
    assert_eq!((&stats["interrupted"]["oldest"], listed.len()), (&listed[0]["since"], 3));
    assert!(listed[0]["since"].as_str() < listed[1]["since"].as_str(), "{listed:?}");
}
