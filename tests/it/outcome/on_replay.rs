//! The application is asked before a replay: what it says counts for this request, and the record stays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use testkit::client::Answer;
use testkit::lab::disk::Disk;
use testkit::lab::{Lab, at_once, layer, on_disk, post};
use testkit::log::Log;
use testkit::on_both;
use tower_idempotency::server::Replay;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, RejectionKind, Release};
use tracing::Level;

/// A charge, by a client whose grant may have been revoked since.
fn charge(is_revoked: bool) -> Request<Body> {
    let mut request = post("k", "a");
    if is_revoked {
        request.headers_mut().insert("x-revoked", "1".parse().unwrap());
    }
    request
}

/// Refuses whose grant is revoked, and renews the link of the others.
async fn decide(parts: Parts, stored: Response<Bytes>) -> Replay {
    match parts.headers.contains_key("x-revoked") {
        true => Replay::Refuse(Rejection::from(StatusCode::FORBIDDEN)),
        false if stored.headers().contains_key("x-link") => {
            let mut fresh = stored.map(|_| Bytes::from("a fresh link"));
            // As of an answer that the application has got from another layered service.
            fresh.headers_mut().insert("idempotency-effect", "none".parse().unwrap());
            fresh.extensions_mut().insert(Release);
            Replay::Replace(fresh)
        }
        false => Replay::Give,
    }
}

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    // Without it, a client would take a 403 for one before the effect.
    assert_eq!(answer.header("idempotency-effect"), Some("done;status=200;retry=?0"));
    assert_eq!((answer.json()["original_status"].as_u64(), answer.is_replay()), (Some(200), false));
    assert!(!answer.text().contains("Nothing was done"), "{}", answer.text());
}

on_both!(a_replay_is_given_refused_or_replaced_and_the_record_stays);

async fn a_replay_is_given_refused_or_replaced_and_the_record_stays<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    each_decision(store).await;
}

#[tokio::test]
async fn a_replay_from_memory_is_given_refused_or_replaced_and_the_record_stays() {
    each_decision(MemoryStore::new()).await;
}

async fn each_decision<St: Store + Clone>(store: St) {
    let layer = IdempotencyLayer::new(store).on_replay(decide);
    let lab = Lab::new(layer.clone(), |_| async { ([("x-link", "1")], "a link") });
    let first = lab.send(charge(true)).await;
    assert_eq!((first.status.as_u16(), first.text()), (200, "a link"), "its own answer is no replay");
    assert_refused(&lab.send(charge(true)).await);
    let replaced = lab.send(charge(false)).await;
    assert_eq!((replaced.status.as_u16(), replaced.text(), replaced.is_replay()), (200, "a fresh link", true));
    assert_eq!(replaced.header("idempotency-effect"), None, "nothing says that nothing was done");
    assert_refused(&lab.send(charge(true)).await);
    let stats = layer.stats();
    assert_eq!((lab.effects(), stats.replays, stats.refused(RejectionKind::Custom)), (1, 1, 2));
    // The record is as it was: without the question, a retry gets it.
    let plain = lab.behind(IdempotencyLayer::new(layer.store().clone()), |_| async { "another run" });
    let kept = plain.send(charge(true)).await;
    assert_eq!((kept.text(), kept.is_replay(), plain.effects()), ("a link", true, 1));
}

#[tokio::test]
async fn a_request_that_waits_for_a_run_is_asked_about_too() {
    let log = Log::begin(Level::INFO);
    let (lab, gate) = Lab::gated(layer().on_replay(decide));
    let own = lab.spawn(charge(false));
    gate.arrival().await;
    let mut waits = Box::pin(lab.send(charge(true)));
    assert!(at_once(&mut waits).is_none(), "it waits");
    gate.open();
    assert_eq!(own.await.unwrap().text(), "effect 1");
    assert_refused(&waits.await);
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("refused: custom") && line.contains("record_id=")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_panics_or_hangs_refuses_and_the_next_retry_may_get_the_answer() {
    let log = Log::begin(Level::ERROR);
    let asked = Arc::new(Mutex::new(0));
    let layer = IdempotencyLayer::new(TestStore::new()).on_replay(move |_, _| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let number = *asked;
        async move {
            match number {
                1 => panic!("it can't be found out"),
                2 => std::future::pending().await,
                _ => Replay::Give,
            }
        }
    });
    let lab = Lab::counting(layer);
    lab.post("k", "a").await;
    for _ in 0..2 {
        let began = tokio::time::Instant::now();
        let refused = lab.post("k", "a").await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
        // It is not `done`, after which no client asks again; and not `none`, after which one may use a new key.
        assert_eq!(refused.header("idempotency-effect"), Some("unknown;retry"));
        assert!(began.elapsed() <= Duration::from_secs(5));
    }
    assert_eq!(log.lines().len(), 1, "one line a minute: {:?}", log.lines());
    let replay = lab.post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay(), lab.effects()), ("effect 1", true, 1));
}

#[tokio::test]
async fn neither_a_first_request_nor_another_one_with_the_key_is_asked_about() {
    let layer = layer().on_replay(|_, _| async { panic!("it is no replay") });
    let lab = Lab::counting(layer);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1");
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
}

#[test]
fn a_replacement_is_shown_without_its_body() {
    assert_eq!(format!("{:?}", Replay::Replace(Response::new(Bytes::from("a fresh link")))), "Replace(200)");
}
