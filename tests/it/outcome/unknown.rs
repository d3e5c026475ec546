//! Answers that mean *unknown*: marks, classification, and their effect on the key.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post as route;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use testkit::lab::asked::{Asked, asking, found};
use testkit::lab::disk::Disk;
use testkit::lab::listed::interrupted;
use testkit::lab::operator::{Operated as _, answer, outcome};
use testkit::lab::steps::Steps as _;
use testkit::lab::{Lab, Shedding, frames, keyed, layer, on_disk, post, rerun, settle};
use testkit::log::Log;
use testkit::{Gate, on_both};
use tower_idempotency::Meaning;
use tower_idempotency::engine::{Cause, EffectError};
use tower_idempotency::operations::{Action, Applied, Change, Filter, OperationRecord, StateKind};
use tower_idempotency::store::{InterruptedRun, Store};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fingerprint, IdempotencyLayer, Keep, MemoryStore, Once, RecordId, Release, Unsure};
use tracing::Level;

/// The card network did not answer.
fn timed_out() -> Response {
    (StatusCode::BAD_REQUEST, Unsure, "the card network did not answer").into_response()
}

#[tokio::test]
async fn trap_82_a_handler_can_say_that_it_does_not_know() {
    let layer = layer();
    let lab = Lab::new(layer.clone(), |_| async { timed_out() });
    let first = lab.post("k", "a").await;
    assert_eq!((first.status.as_u16(), first.text()), (400, "the card network did not answer"));
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.effects(), 1);
    let listed = layer.interrupted(9).await.unwrap();
    assert_eq!(listed.iter().map(|record| record.state.status()).collect::<Vec<_>>(), [Some(400)]);
    assert_eq!((layer.stats().interrupted, layer.stats().unknown), (1, 1));
}

#[tokio::test]
async fn trap_81_statuses_of_what_was_cut_half_way_are_unknown_and_never_replayed() {
    for status in [408, 502, 504] {
        let status = StatusCode::from_u16(status).unwrap();
        let layer = layer();
        let lab = Lab::new(layer.clone(), move |_| async move { status });
        assert_eq!(lab.post("k", "a").await.status, status);
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
        assert_eq!((lab.effects(), layer.interrupted(9).await.unwrap()[0].state.status()), (1, Some(status.as_u16())));

        let lab = Lab::new(rerun(), move |_| async move { status });
        lab.post("k", "a").await;
        lab.post("k", "a").await;
        assert_eq!(lab.effects(), 2, "{status} under rerun");
    }
}

#[tokio::test]
async fn a_reconciler_is_asked_about_what_a_handler_does_not_know_and_told_what_it_answered() {
    let asked = Asked::default();
    let lab = Lab::new(asking(TestStore::new(), asked.says([found("charged")])), |_| async { timed_out() });
    assert_eq!(lab.post("k", "a").await.status, 400);
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.text(), retry.is_replay(), lab.effects()), ("charged", true, 1));
    let questions = asked.questions();
    assert_eq!(questions.iter().map(|run| run.cause.status()).collect::<Vec<_>>(), [Some(400)]);
}

#[tokio::test]
async fn the_mark_wins_over_the_status_and_over_classify_and_the_safest_of_several() {
    let all = |meaning: Meaning| layer().classify(move |_: &http::response::Parts, _: Option<&HeaderMap>| meaning);
    let runs = async |layer: IdempotencyLayer<MemoryStore>, answer: fn() -> Response| {
        let lab = Lab::new(layer.clone(), move |_| async move { answer() });
        lab.post("k", "a").await;
        lab.post("k", "a").await;
        (lab.effects(), layer.interrupted(9).await.unwrap().len())
    };
    for meaning in [Meaning::Final, Meaning::NotStarted, Meaning::Unknown] {
        assert_eq!(runs(all(meaning), || (StatusCode::GATEWAY_TIMEOUT, Keep).into_response()).await, (1, 0));
        assert_eq!(runs(all(meaning), || (StatusCode::OK, Release).into_response()).await, (2, 0));
        assert_eq!(runs(all(meaning), || (StatusCode::OK, Unsure).into_response()).await, (1, 1));
        assert_eq!(runs(all(meaning), || (Release, Unsure, Keep, "all").into_response()).await, (1, 1));
        assert_eq!(runs(all(meaning), || (Release, Keep, "both").into_response()).await, (1, 0));
    }
    // Under `Rerun` an unknown answer is released, as a panic is; a kept one is not.
    assert_eq!(runs(rerun(), || (StatusCode::OK, Unsure).into_response()).await, (2, 0));
    assert_eq!(runs(rerun(), || (StatusCode::BAD_GATEWAY, Keep).into_response()).await, (1, 0));
    assert_eq!(runs(rerun(), || (StatusCode::OK, Release).into_response()).await, (2, 0));
    // A classifier of errors leaves answers to the policy.
    assert_eq!(runs(rerun().classify(Shedding), || StatusCode::SERVICE_UNAVAILABLE.into_response()).await, (2, 0));
}

#[tokio::test]
async fn a_mark_alone_is_an_answer() {
    for (answer, status) in [(Release.into_response(), 503), (Keep.into_response(), 200), (Unsure.into_response(), 504)]
    {
        assert_eq!(answer.status().as_u16(), status);
    }
    let lab = Lab::new(layer(), |_| async { Err::<&str, _>(Unsure) });
    assert_eq!(lab.post("k", "a").await.status, 504);
    lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
}

/// An answer as a gRPC server gives it: the status in the trailers, or in the head if there is nothing else.
fn grpc(code: &'static str, in_head: bool) -> Response {
    let mut answer = Response::builder().header("content-type", "application/grpc");
    if in_head {
        return answer.header("grpc-status", code).body(Body::empty()).unwrap();
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))]);
    answer = answer.header("trailer", "grpc-status");
    let body = Full::new(Bytes::from("message")).with_trailers(async move { Some(Ok(trailers)) });
    answer.body(Body::new(body)).unwrap()
}

#[tokio::test]
async fn grpc_s_statuses_are_read_from_the_trailers_or_the_head() {
    for in_head in [false, true] {
        for (code, is_unknown) in [("0", false), ("1", true), ("2", true), ("4", true), ("5", false), ("14", false)] {
            let lab = Lab::new(layer(), move |_| async move { grpc(code, in_head) });
            let first = lab.post("k", "a").await;
            assert_eq!(first.trailers.is_some(), !in_head);
            let retry = lab.post("k", "a").await;
            assert_eq!((retry.problem() == "outcome-unknown", retry.is_replay()), (is_unknown, !is_unknown), "{code}");
        }
    }
    for (head, trailer, is_unknown) in [("0", "2", true), ("2", "0", false)] {
        let lab = Lab::new(layer(), move |_| async move { ([("grpc-status", head)], grpc(trailer, false)) });
        lab.post("k", "a").await;
        assert_eq!(
            lab.post("k", "a").await.problem() == "outcome-unknown",
            is_unknown,
            "the one in the trailers counts"
        );
    }
}

#[tokio::test]
async fn a_grpc_answer_without_a_status_is_unknown() {
    for (content_type, body, is_unknown) in [
        ("application/grpc", "message", true),
        ("application/grpc+proto", "", true),
        ("application/grpc-web", "message and trailers", false),
        ("application/json", "{}", false),
    ] {
        let lab = Lab::new(layer(), move |_| async move { ([("content-type", content_type)], body) });
        lab.post("k", "a").await;
        assert_eq!(lab.post("k", "a").await.problem() == "outcome-unknown", is_unknown, "{content_type}");
    }
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_it_declares_is_unknown() {
    for (length, is_unknown) in [("20", true), ("4", false)] {
        let answer =
            move |_| async move { Response::builder().header("content-length", length).body(Body::from("half")) };
        let layer = layer();
        let lab = Lab::new(layer.clone(), move |number| {
            let answer = answer(number);
            async move { answer.await.unwrap() }
        });
        assert_eq!(lab.post("k", "a").await.text(), "half");
        assert_eq!(lab.post("k", "a").await.problem() == "outcome-unknown", is_unknown);
        let broken = layer.operations().list(&Filter::all().caused_by(Cause::Broken), None, 9).await.unwrap();
        assert_eq!(broken.operations.len(), usize::from(is_unknown));
    }
}

#[tokio::test]
async fn an_answer_that_has_no_body_is_whole_whatever_it_declares() {
    for status in [204, 304] {
        let status = StatusCode::from_u16(status).unwrap();
        let lab = Lab::new(layer(), move |_| async move { (status, [("content-length", "7")]) });
        assert_eq!(lab.post("k", "a").await.status, status);
        assert!(lab.post("k", "a").await.is_replay(), "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_is_recorded_if_its_handler_says_so_and_consumed_if_its_end_was_not_seen() {
    for header in [("content-length", "8"), ("content-type", "application/grpc+proto")] {
        for (layer, mark, problem) in [
            (layer(), None, "outcome-unknown"),
            (layer(), Some(Keep), ""),
            (layer().max_response_body(3), None, "not-replayable"),
        ] {
            let mark = mark.map(axum::Extension);
            let lab = Lab::new(layer, move |_| async move { (mark, [header], "charged") });
            assert_eq!(lab.post("k", "a").await.text(), "charged");
            let retry = lab.post("k", "a").await;
            assert_eq!((retry.problem().as_str(), retry.is_replay()), (problem, mark.is_some()), "{header:?}");
        }
    }
}

#[tokio::test]
async fn classify_is_asked_once_and_when_the_body_is_complete_or_has_failed() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asks = Arc::clone(&asked);
    let layer =
        layer().max_response_body(10).classify(move |parts: &http::response::Parts, trailers: Option<&HeaderMap>| {
            asks.lock().unwrap().push((parts.status.as_u16(), trailers.is_some()));
            Meaning::Final
        });
    let answer = |path: http::Uri| async move {
        match path.path() {
            "/trailers" => grpc("0", false),
            "/long" => "more than ten bytes".into_response(),
            "/marked" => (Keep, "kept").into_response(),
            "/broken" => Response::new(frames([Ok("a"), Err("cable")])),
            _ => panic!("on purpose"),
        }
    };
    let lab = Lab::of(Router::new().fallback(route(answer)).layer(layer));
    let mut told = Vec::new();
    for path in ["/trailers", "/long", "/marked", "/broken", "/panic"] {
        let request = keyed("POST", path, path).body(Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(lab.app.clone(), request).await.unwrap();
        let _ = response.into_body().collect().await;
        told.push(std::mem::take(&mut *asked.lock().unwrap()));
    }
    assert_eq!(told, [vec![(200, true)], vec![(200, false)], vec![], vec![(200, false)], vec![]]);
}

#[tokio::test]
async fn an_answer_whose_body_breaks_is_unknown_unless_its_handler_said_otherwise() {
    let broken = |mark: Option<Keep>| {
        move |_| async move { (mark.map(axum::Extension), Response::new(frames([Ok("a"), Err("cable")]))) }
    };
    for (layer, mark, runs, problem) in [
        (layer(), None, 1, "outcome-unknown"),
        (rerun(), None, 2, ""),
        (layer(), Some(Keep), 1, "not-replayable"),
        (rerun(), Some(Keep), 1, "not-replayable"),
    ] {
        let lab = Lab::new(layer, broken(mark));
        let send = || async {
            let response = tower::ServiceExt::oneshot(lab.app.clone(), post("k", "a")).await.unwrap();
            let (parts, body) = response.into_parts();
            let length = body.size_hint().exact();
            (parts.status, length, body.collect().await.map(|body| body.to_bytes()).ok())
        };
        // HTTP/1.1 would announce a length, and the part before the failure would look whole.
        assert_eq!(send().await, (StatusCode::OK, None, None), "the client sees the failure");
        let (_, _, body) = send().await;
        assert_eq!(body.is_some_and(|body| String::from_utf8_lossy(&body).contains(problem)), !problem.is_empty());
        assert_eq!(lab.effects(), runs);
    }
}

#[tokio::test]
async fn those_who_waited_for_an_answer_that_means_nothing_are_told_so() {
    let gate = Gate::default();
    let behind = gate.clone();
    let lab = Lab::new(layer(), move |_| {
        let gate = behind.clone();
        async move {
            gate.pass().await;
            timed_out()
        }
    });
    let first = lab.spawn(post("k", "a"));
    gate.arrival().await;
    let waiting = lab.spawn(post("k", "a"));
    settle().await;
    gate.open();
    assert_eq!(first.await.unwrap().status, 400);
    waiting.await.unwrap().assert_refusal(409, "outcome-unknown", false, None);
}

/// Leaves operations that were answered with these statuses, and one that panicked.
async fn outage<St: Store>(layer: IdempotencyLayer<St>, statuses: &[u16]) {
    let lab = Lab::of(
        Router::new()
            .fallback(route(|uri: http::Uri| async move {
                let status = uri.path()[1..].parse().expect("on purpose");
                StatusCode::from_u16(status).unwrap()
            }))
            .layer(layer),
    );
    let paths = statuses.iter().map(|status| format!("/{status}")).chain(["/panics".to_owned()]);
    let all = paths
        .enumerate()
        .map(|(number, path)| lab.send(keyed("POST", &path, &format!("key-{number}")).body(Body::empty()).unwrap()));
    join_all(all).await;
}

on_both!(after_an_outage_operations_are_listed_by_status_and_settled_at_once);
async fn after_an_outage_operations_are_listed_by_status_and_settled_at_once<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let layer = IdempotencyLayer::new(store);
    let statuses: Vec<_> = (0..300).map(|number| if number % 3 == 0 { 502 } else { 504 }).collect();
    outage(layer.clone(), &statuses).await;
    assert_eq!(layer.interrupted(1_000).await.unwrap().len(), 301);
    let operations = layer.operations();
    let with = async |status: StatusCode, limit| {
        let filter = Filter::all().in_state(StateKind::Interrupted).answered_with(status.as_u16());
        operations.list(&filter, None, limit).await.unwrap().operations
    };
    let bad = with(StatusCode::BAD_GATEWAY, 1_000).await;
    assert_eq!(bad.len(), 100);
    assert_eq!(with(StatusCode::GATEWAY_TIMEOUT, 7).await.len(), 7);
    assert_eq!(with(StatusCode::OK, 7).await.len(), 0);

    let operator = operations.by("alice");
    let release = |record: &OperationRecord| Change::new(record.id, record.fence, Action::Release);
    let settled = operator.apply_all(bad.iter().map(release).collect()).await;
    let ids = bad.iter().map(|record| record.id);
    assert!(settled.iter().map(|(id, _)| *id).eq(ids), "in their order");
    assert!(settled.iter().all(|(_, settled)| matches!(settled, Ok(Applied::Done))));
    assert_eq!(layer.interrupted(1_000).await.unwrap().len(), 201);
    // Each operation gets its own result: it is settled already, or can't be recorded.
    let late = with(StatusCode::GATEWAY_TIMEOUT, 1).await.remove(0);
    let changes = vec![release(&bad[0]), Change::new(late.id, late.fence, answer(vec![0; 2 << 20]))];
    let settled: Vec<_> = operator.apply_all(changes).await.into_iter().map(|(_, settled)| settled).collect();
    assert!(matches!(&settled[..], [Ok(Applied::Stale), Err(_)]), "{settled:?}");
}

#[tokio::test]
async fn many_messages_are_settled_at_once() {
    let once = Once::new(MemoryStore::new());
    for number in 0..100_u8 {
        let effect = |_| async { Err::<String, _>(EffectError::MaybeStarted("the queue's broker did not answer")) };
        once.run(RecordId::from_bytes([number; 32]), Fingerprint::of(b"m"), effect).await.unwrap_err();
    }
    let listed = once.interrupted(1_000).await.unwrap();
    assert!(listed.len() == 100 && listed.iter().all(|record| record.state.status().is_none()));
    let changes = listed.iter().map(|record| Change::new(record.id, record.fence, outcome("sent"))).collect();
    let settled = once.operations().by("alice").apply_all(changes).await;
    assert!(settled.iter().all(|(_, settled)| matches!(settled, Ok(Applied::Done))));
    assert!(once.interrupted(1_000).await.unwrap().is_empty());
}

on_both!(the_status_of_an_unknown_answer_survives_a_restart_and_a_question);
async fn the_status_of_an_unknown_answer_survives_a_restart_and_a_question<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    outage(IdempotencyLayer::new(store.clone()), &[502]).await;
    let listed = interrupted(&store, 9).await;
    for record in &listed {
        assert!(store.inquire(record.id, record.fence).await.unwrap().is_some());
    }
    let statuses = |listed: &[InterruptedRun]| BTreeSet::from_iter(listed.iter().map(|record| record.cause.status()));
    assert_eq!(statuses(&listed), BTreeSet::from([None, Some(502)]));
    store.close().await.unwrap();
    let store = D::open(directory.path()).unwrap();
    assert_eq!(statuses(&interrupted(&store, 9).await), statuses(&listed));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_one_line_a_minute_and_not_one_an_answer() {
    let log = Log::begin(Level::INFO);
    let layer = layer();
    let lab = Lab::new(layer.clone(), |_| async { StatusCode::BAD_GATEWAY });
    let lines = || log.lines();
    for number in 0..50 {
        lab.post(&format!("a{number}"), "a").await;
    }
    let first = lines();
    assert!(
        first.len() == 1
            && first[0].contains("WARN")
            && first[0].contains("status=502")
            && first[0].contains("count=1"),
        "{first:?}"
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    lab.post("b", "a").await;
    let second = lines();
    assert!(second.len() == 1 && second[0].contains("count=50"), "{second:?}");
    assert_eq!(layer.stats().unknown, 51);
}
