//! The application is asked before a replay: what it says counts for this request, and the record stays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use testkit::client::Answer;
use testkit::lab::disk::Disk;
use testkit::lab::time::{DAY, HOUR, clock};
use testkit::lab::{Lab, at_once, layer, on_disk, post};
use testkit::log::Log;
use testkit::on_both;
use tower_idempotency::server::Replay;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{IdempotencyLayer, Keep, MemoryStore, Rejection, RejectionKind, Release, Secret};
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

// Each recorded answer with each refusal, for a retry and for a probe. Seeded faults: an answer that does not say what
// became of its operation is `done`; a refusal after which the client asks again is.
#[tokio::test]
async fn a_refusal_says_done_only_of_an_answer_that_says_so_and_if_no_retry_is_of_use() {
    for status in [200, 201, 307, 400, 401, 402, 403, 408, 409, 429, 500, 502, 503, 504] {
        // The handler has kept it although its status says that nothing was done, or that it is unknown.
        let says_nothing = matches!(status, 307 | 401 | 403 | 408 | 429 | 502 | 504);
        for is_to_ask_again in [false, true] {
            let refuses = move |_: Parts, _: Response<Bytes>| async move {
                let mut revoked = Rejection::custom(StatusCode::FORBIDDEN, "Revoked", "The grant was revoked.");
                revoked.retry_with_same_key = is_to_ask_again;
                Replay::Refuse(revoked)
            };
            let lab = Lab::new(layer().on_replay(refuses), move |_| async move {
                (StatusCode::from_u16(status).unwrap(), Keep, "kept")
            });
            assert_eq!(lab.send(charge(false)).await.status.as_u16(), status);
            let expected = match (says_nothing, is_to_ask_again) {
                (false, false) => format!("done;status={status};retry=?0"),
                (true, false) => "unknown;retry=?0".to_owned(),
                (_, true) => "unknown;retry".to_owned(),
            };
            for is_probe in [false, true] {
                let mut request = charge(false);
                if is_probe {
                    request.headers_mut().insert("idempotency-probe", "?1".parse().unwrap());
                }
                let refused = lab.send(request).await;
                let at = format!("{status}, asks again: {is_to_ask_again}, a probe: {is_probe}");
                assert_eq!((refused.status.as_u16(), lab.effects()), (403, 1), "{at}");
                assert_eq!(refused.header("idempotency-effect"), Some(&*expected), "{at}");
            }
        }
    }
}

// The same for what is no refusal: it says of the answer that the client gets what that one's status says.
#[tokio::test]
async fn an_answer_in_place_of_a_kept_one_is_unknown_if_its_own_status_says_so() {
    for kept in [200, 502] {
        for given in [None, Some(200), Some(403), Some(502)] {
            let replaces = move |_: Parts, stored: Response<Bytes>| async move {
                let Some(status) = given else { return Replay::Give };
                let (mut parts, body) = stored.into_parts();
                parts.status = StatusCode::from_u16(status).unwrap();
                Replay::Replace(Response::from_parts(parts, body))
            };
            let lab = Lab::new(layer().on_replay(replaces), move |_| async move {
                (StatusCode::from_u16(kept).unwrap(), Keep, "kept")
            });
            lab.send(charge(false)).await;
            let replay = lab.send(charge(false)).await;
            let status = given.unwrap_or(kept);
            assert_eq!((replay.status.as_u16(), replay.is_replay(), lab.effects()), (status, true, 1));
            let expected = (status != 200).then_some("unknown;retry=?0");
            assert_eq!(replay.header("idempotency-effect"), expected, "{given:?} in place of {kept}");
        }
    }
}

// Each end of a first request, with a retry, another request and a probe of each. Seeded fault: a probe is answered
// without the question.
#[tokio::test]
async fn the_application_is_asked_about_each_replay_and_about_nothing_else() {
    for (end, is_replayed) in [("200", true), ("502 kept", true), ("502", false), ("a secret", false), ("old", false)] {
        let clock = clock();
        let asked = Arc::new(Mutex::new(0));
        let counts = Arc::clone(&asked);
        let layer = IdempotencyLayer::new(MemoryStore::builder().clock(clock.clone()).build());
        let layer = layer.retention(HOUR).outcome_retention(DAY).on_replay(move |_, _| {
            *counts.lock().unwrap() += 1;
            async { Replay::Give }
        });
        let lab = Lab::new(layer, move |_| async move {
            match end {
                "502 kept" => (Keep, StatusCode::BAD_GATEWAY).into_response(),
                "502" => StatusCode::BAD_GATEWAY.into_response(),
                "a secret" => (Secret, "a secret").into_response(),
                _ => "an answer".into_response(),
            }
        });
        lab.send(charge(false)).await;
        if end == "old" {
            clock.advance(HOUR);
        }
        for (is_probe, body) in [(false, "a"), (true, "a"), (false, "b"), (true, "b")] {
            let mut request = post("k", body);
            if is_probe {
                request.headers_mut().insert("idempotency-probe", "?1".parse().unwrap());
            }
            let before = *asked.lock().unwrap();
            let answer = lab.send(request).await;
            let expected = is_replayed && body == "a";
            let is_asked = *asked.lock().unwrap() > before;
            let at = format!("{end}, a probe: {is_probe}, {body}");
            assert_eq!((is_asked, answer.is_replay()), (expected, expected), "{at}: {}", answer.text());
        }
        assert_eq!(lab.effects(), 1, "{end}");
    }
}
