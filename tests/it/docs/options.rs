//! The guide's tables of the layer's options have a row for each, and the defaults that they give hold.

use std::collections::BTreeSet;
use std::future::pending;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use testkit::Answer;
use testkit::lab::time::{DAY, SECOND};
use testkit::lab::{Lab, at_once, layer, post};
use tower::{BoxError, ServiceExt as _};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::test_util::{ManualClock, TestStore};
use tower_idempotency::{IdempotencyLayer, OnInterrupted};

const PAGE: &str = include_str!("../../../docs/options.md");

/// The methods of a source file that take `self` and return it changed.
fn builders(source: &str) -> BTreeSet<String> {
    let methods =
        source.lines().filter(|line| line.contains("(self")).filter_map(|line| line.trim().strip_prefix("pub fn "));
    methods.map(|method| method.split(['(', '<']).next().unwrap().to_owned()).collect()
}

/// The options of the layer.
pub(crate) fn options() -> BTreeSet<String> {
    let rooms = [
        include_str!("../../../src/server/layer/layer.rs"),
        include_str!("../../../src/server/layer/usual.rs"),
        include_str!("../../../src/server/layer/rare.rs"),
    ];
    rooms.into_iter().flat_map(builders).collect()
}

#[test]
fn the_guide_has_a_row_and_a_paragraph_for_each_option() {
    // One for the decisions of every service, one for what many need, one for the rest.
    let tables = PAGE.split("| option | default | what it does |\n|---|---|---|\n").skip(1);
    let rows = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|')));
    let rows: Vec<_> = rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    let named: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), named.len(), "each option has one row: {rows:?}");
    let options = options();
    assert!(options.len() > 20, "the builder methods are not found: {options:?}");
    let missing: Vec<_> = options.symmetric_difference(&named).collect();
    assert!(missing.is_empty(), "only in the layer, or only in a table of docs/options.md: {missing:?}");
    let described = PAGE.split("**`").skip(1).map(|rest| rest.split_once("`**").unwrap().0.to_owned());
    let described: BTreeSet<_> = described.collect();
    let missing: Vec<_> = options.symmetric_difference(&described).collect();
    assert!(missing.is_empty(), "only in the layer, or only described in docs/options.md: {missing:?}");
}

#[test]
fn the_guide_names_each_option_of_a_consumer() {
    let (_, section) = PAGE.split_once("## Options of `Once`\n").unwrap();
    let paragraph = section.split("\n\n").next().unwrap();
    let missing: Vec<_> = builders(include_str!("../../../src/engine/once.rs"))
        .into_iter()
        .filter(|option| !paragraph.contains(&format!("`{option}`")))
        .collect();
    assert!(missing.is_empty(), "docs/options.md should name these options of `Once`: {missing:?}");
}

#[test]
fn a_layer_shows_its_options_as_they_are_set() {
    let plain = format!("{:?}", layer());
    for shown in ["require_key: false", "retention: 86400s", "covers: None", "on_interrupted: Refuse"] {
        assert!(plain.contains(shown), "{shown}: {plain}");
    }
    let set = layer().require_key(true).retention(DAY * 3).on_interrupted(OnInterrupted::Rerun).covers(|_| true);
    let set = format!("{set:?}");
    for shown in ["require_key: true", "retention: 259200s", "covers: Some(set)", "on_interrupted: Rerun"] {
        assert!(set.contains(shown), "{shown}: {set}");
    }
    assert!(!set.contains("on_interrupted: Refuse"), "nowhere: {set}");
}

// These are the guide's statements on a layer without any option. They are the ones that no test of a row of the
// decision table shows.

#[tokio::test(start_paused = true)]
async fn without_options_a_run_has_ten_minutes_and_its_answers_body_ten_seconds() {
    let began = tokio::time::Instant::now();
    let lab = Lab::new(layer(), |_| pending::<&str>());
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", false, None);
    assert_eq!(began.elapsed().as_secs(), 600, "of the paused clock");
    let endless = |_| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, BoxError>>()) };
    let lab = Lab::new(layer(), endless);
    assert_eq!(lab.app.clone().oneshot(post("k", "a")).await.unwrap().status(), 200);
    assert_eq!(began.elapsed().as_secs(), 610, "of the paused clock");
}

#[tokio::test]
async fn without_options_an_outcome_is_kept_a_day_and_an_unknown_one_thirty() {
    let clock = ManualClock::new(Timestamp::from_millis(1));
    let layer = IdempotencyLayer::new(TestStore::with_clock(clock.clone()));
    let lab = Lab::new(layer, |n| async move { if n == 1 { panic!("on purpose") } else { format!("effect {n}") } });
    assert_eq!(lab.post("cut", "a").await.problem(), "outcome-unknown");
    lab.post("k", "a").await;
    clock.advance(DAY - SECOND);
    assert!(lab.post("k", "a").await.is_replay());
    clock.advance(SECOND);
    assert_eq!(lab.post("k", "a").await.text(), "effect 3");
    clock.advance(DAY * 29 - SECOND);
    assert_eq!(lab.post("cut", "a").await.problem(), "outcome-unknown");
    clock.advance(SECOND);
    assert_eq!(lab.post("cut", "a").await.text(), "effect 4");
}

#[tokio::test(start_paused = true)]
async fn without_options_there_is_room_for_256_mib_of_bodies() {
    let lab = Lab::counting(layer());
    // Three quarters of the room are for long bodies. They share their bytes, and don't end.
    let mib = Bytes::from(vec![b'x'; 1024 * 1024]);
    let upload = |number: usize| {
        let begun = futures_util::stream::iter([Ok::<_, BoxError>(mib.clone())]);
        let body = Body::from_stream(futures_util::StreamExt::chain(begun, futures_util::stream::pending()));
        Box::pin(lab.app.clone().oneshot(of_its_own_client(number, body)))
    };
    let mut uploads: Vec<_> = (0..192).map(upload).collect();
    assert!(uploads.iter_mut().all(|upload| at_once(upload).is_none()));
    assert_eq!(lab.post("short", "a").await.text(), "effect 1", "a short one has room");
    let refused = Answer::of(upload(192).await.unwrap()).await;
    assert_eq!(refused.refusal(), (503, "overloaded".to_owned()));
}

/// A request of a client that sends no other, because one client has a share only.
fn of_its_own_client(number: usize, body: impl Into<Body>) -> Request<Body> {
    let mut request = post(&format!("k{number}"), body);
    request.headers_mut().insert("authorization", format!("Bearer {number}").parse().unwrap());
    request
}

#[tokio::test]
async fn without_options_16_384_runs_go_on_at_once() {
    let (lab, _gate) = Lab::gated(layer());
    let mut requests: Vec<_> =
        (0..16_385).map(|n| Box::pin(lab.app.clone().oneshot(of_its_own_client(n, "a")))).collect();
    let last = requests.pop().unwrap();
    for request in &mut requests {
        assert!(at_once(request).is_none());
    }
    while lab.effects() < 16_384 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Answer::of(last.await.unwrap()).await.refusal(), (503, "overloaded".to_owned()));
}
