//! The profile of the Agentic Commerce Protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use testkit::lab::{Lab, gated, keyed};
use testkit::{Answer, Gate};
use tower_idempotency::server::Profile;
use tower_idempotency::{
    IdempotencyContext, IdempotencyLayer, Key, Meaning, MemoryStore, OnInFlight, OnInterrupted, RecordId, Release,
    Scope,
};

use super::{acp, json_to, session, without_key};

/// The error of the Agentic Commerce Protocol, which permits no other members: status, type and code.
fn flat_error(answer: &Answer) -> (u16, String, String) {
    let error = answer.json();
    let members: Vec<_> = error.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "message", "type"]);
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    (answer.status.as_u16(), text("type"), text("code"))
}

fn of_acp(status: u16, code: &str) -> (u16, String, String) {
    (status, "invalid_request".to_owned(), code.to_owned())
}

#[tokio::test]
async fn acp_requires_a_key_and_repeats_it_on_each_answer() {
    let lab = Lab::counting(acp());
    let missing = lab.send(without_key(session("{}"))).await;
    assert_eq!(flat_error(&missing), of_acp(400, "idempotency_key_required"));
    assert!(!missing.headers.contains_key("idempotency-key"));
    let answers = [lab.send(session("{}")).await, lab.send(session("{}")).await, lab.send(session("[]")).await];
    for answer in &answers {
        assert_eq!(answer.headers["idempotency-key"], "k");
    }
    assert!(answers[1].is_replay());
    let malformed = lab.send(json_to("/checkout_sessions", "a,b", "{}")).await;
    assert_eq!((malformed.status.as_u16(), &malformed.headers["idempotency-key"]), (400, &"a,b".parse().unwrap()));
    let mut doubled = session("{}");
    doubled.headers_mut().append("idempotency-key", "other".parse().unwrap());
    let doubled = lab.send(doubled).await;
    assert_eq!((doubled.status.as_u16(), doubled.header("idempotency-key")), (400, None));
    let panics = Lab::new(acp(), |_| async { panic!("on purpose") as StatusCode });
    assert_eq!(panics.send(session("{}")).await.headers["idempotency-key"], "k");
    let too_long = Lab::counting(acp().max_request_body(1)).send(session("{}")).await;
    assert_eq!((too_long.status.as_u16(), &too_long.headers["idempotency-key"]), (413, &"k".parse().unwrap()));
    // As it was sent, in quotes.
    assert_eq!(lab.send(json_to("/checkout_sessions", "\"k\"", "{}")).await.headers["idempotency-key"], "\"k\"");
}

#[tokio::test]
async fn acp_compares_json_by_its_meaning_and_no_header() {
    let lab = Lab::counting(acp());
    let first = r#"{"items": [{"id": "a", "quantity": 1}, {"id": "b", "quantity": 2}], "note": null}"#;
    lab.send(session(first)).await;
    let same = r#"{"note":null,"items":[{"quantity":1.0,"id":"a"},{"id":"b","quantity":2.00}]}"#;
    assert!(lab.send(session(same)).await.is_replay());
    for other in [
        r#"{"items": [{"id": "a", "quantity": 1}, {"id": "b", "quantity": 2}]}"#,
        r#"{"items": [{"id": "b", "quantity": 2}, {"id": "a", "quantity": 1}], "note": null}"#,
        r#"{"items": [{"id": "a", "quantity": 1}, {"id": "b", "quantity": 3}], "note": null}"#,
    ] {
        assert_eq!(flat_error(&lab.send(session(other)).await), of_acp(422, "idempotency_conflict"), "{other}");
    }
    let mut changed = session(first);
    changed.headers_mut().insert("api-version", "2026-01-30".parse().unwrap());
    changed.headers_mut().insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
    assert!(lab.send(changed).await.is_replay());
    // What names the endpoint is no header, and is not the body.
    let mut elsewhere = session(first);
    elsewhere.headers_mut().insert("host", "other.example".parse().unwrap());
    for other in [elsewhere, json_to("/checkout_sessions?shop=2", "k", first)] {
        assert_eq!(flat_error(&lab.send(other).await), of_acp(422, "idempotency_conflict"));
    }
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn acp_takes_the_same_key_on_another_path_for_another_operation() {
    for layer in [acp(), acp().scope(|_: &http::request::Parts| Ok(Scope::new("shop")?))] {
        let lab = Lab::counting(layer);
        let paths = ["/checkout_sessions", "/checkout_sessions/17", "/checkout_sessions/17/complete"];
        for (number, path) in paths.into_iter().enumerate() {
            for is_replay in [false, true] {
                let answer = lab.send(json_to(path, "k", "{}")).await;
                assert_eq!((answer.text(), answer.is_replay()), (&*format!("effect {}", number + 1), is_replay));
            }
        }
    }
}

// Operators find an operation by these parts, and a store keeps its records under this id.
#[tokio::test]
async fn the_path_is_the_last_part_of_the_scope_in_a_record_s_id() {
    let id = async |context: IdempotencyContext| context.record_id().to_string();
    let shop = |_: &Parts| Ok(Scope::new("shop")?);
    let key = Key::new("k").unwrap();
    let path = |scope: Option<Scope>| match scope {
        Some(scope) => scope.and("/checkout_sessions").unwrap(),
        None => Scope::new("/checkout_sessions").unwrap(),
    };
    for (layer, scope) in [(acp(), None), (acp().scope(shop), Some(Scope::new("shop").unwrap()))] {
        let lab = Lab::of(Router::new().route("/checkout_sessions", post(id)).layer(layer));
        let expected = RecordId::new(Some(&path(scope)), &key).to_string();
        assert_eq!(lab.send(session("{}")).await.text(), expected);
    }
}

#[tokio::test]
async fn a_key_per_path_is_still_no_stranger_s() {
    let lab = Lab::counting(acp());
    let with = |token: &str| {
        let mut request = session("{}");
        request.headers_mut().insert("authorization", token.parse().unwrap());
        request
    };
    lab.send(with("Bearer alice")).await;
    assert_eq!(flat_error(&lab.send(with("Bearer bob")).await), of_acp(422, "credentials_changed"));
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn acp_refuses_a_request_in_flight_with_the_seconds_to_wait() {
    let gate = Gate::default();
    let lab = gated(acp().on_in_flight(OnInFlight::Reject), &gate);
    let first = lab.spawn(session("{}"));
    gate.arrival().await;
    let refused = lab.send(session("{}")).await;
    assert_eq!(flat_error(&refused), of_acp(409, "idempotency_in_flight"));
    assert_eq!(refused.headers["retry-after"], "1");
    gate.open();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn acp_never_records_a_5xx_and_runs_it_again_only_where_nothing_has_happened() {
    for status in [500, 502, 503, 507].map(|status| StatusCode::from_u16(status).unwrap()) {
        // Without a mark it may have had its effect.
        let lab = Lab::new(acp(), move |_| async move { status });
        assert_eq!(lab.send(session("{}")).await.status, status);
        assert_eq!(flat_error(&lab.send(session("{}")).await), of_acp(409, "outcome_unknown"));
        assert_eq!(lab.effects(), 1, "{status}");

        let freed = Lab::new(acp(), move |_| async move { (status, Release) });
        let afresh = Lab::new(acp().on_interrupted(OnInterrupted::Rerun), move |_| async move { status });
        for lab in [freed, afresh] {
            for _ in 0..2 {
                let answer = lab.send(session("{}")).await;
                assert_eq!((answer.status, answer.is_replay()), (status, false));
            }
            assert_eq!(lab.effects(), 2, "{status}");
        }
    }
}

#[tokio::test]
async fn the_rejections_of_acp_have_the_types_of_its_schema() {
    let own = acp().scope(|_: &http::request::Parts| Err::<Scope, _>(StatusCode::UNAUTHORIZED.into()));
    let refused = Lab::counting(own).send(session("{}")).await;
    assert_eq!(flat_error(&refused), of_acp(401, "unauthorized"));
    let broken = Lab::new(acp(), |_| async { panic!("on purpose") as StatusCode });
    let answer = broken.send(session("{}")).await;
    assert_eq!(flat_error(&answer), (500, "processing_error".to_owned(), "outcome_unknown".to_owned()));
    let full = IdempotencyLayer::new(MemoryStore::builder().max_records(0).build()).profile(Profile::acp());
    let answer = Lab::counting(full).send(session("{}")).await;
    assert_eq!(flat_error(&answer), (503, "service_unavailable".to_owned(), "store_full".to_owned()));
}

#[tokio::test]
async fn a_classifier_that_says_nothing_of_a_5xx_leaves_it_to_the_profile() {
    let teapots = |parts: &http::response::Parts, _: Option<&HeaderMap>| {
        (parts.status == StatusCode::IM_A_TEAPOT).then_some(Meaning::NotStarted)
    };
    let lab = Lab::new(acp().classify(teapots), |_| async { StatusCode::INTERNAL_SERVER_ERROR });
    lab.send(session("{}")).await;
    assert_eq!(flat_error(&lab.send(session("{}")).await), of_acp(409, "outcome_unknown"));
}

#[tokio::test]
async fn a_key_per_path_counts_where_the_client_has_sent_the_request() {
    // On a nested router, whose prefix axum cuts.
    let update = async |number: &'static str| number;
    let sessions = |number| Router::new().route("/update", post(move || update(number))).layer(acp());
    let lab = Lab::of(Router::new().nest("/1", sessions("one")).nest("/2", sessions("two")));
    for (path, text) in [("/1/update", "one"), ("/2/update", "two")] {
        for is_replay in [false, true] {
            let answer = lab.send(json_to(path, "k", "{}")).await;
            assert_eq!((answer.text(), answer.is_replay()), (text, is_replay));
        }
    }
    // Under a pattern, with a layer on the outer router and on the nested one: that is one operation.
    let runs = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&runs);
    let update = async move || (counted.fetch_add(1, Ordering::SeqCst) + 1).to_string();
    let both = acp();
    let sessions = Router::new().route("/", post(update)).layer(both.clone());
    let lab = Lab::of(Router::new().nest("/sessions/{id}", sessions).layer(both.clone()));
    for (path, text) in [("/sessions/17", "1"), ("/sessions/18", "2")] {
        for is_replay in [false, true] {
            let answer = lab.send(json_to(path, "k", "{}")).await;
            assert_eq!((answer.text(), answer.is_replay()), (text, is_replay), "{path}");
        }
    }
    assert_eq!(both.stats().runs, 2);
}

#[tokio::test]
async fn two_places_of_one_original_uri_are_two_paths() {
    let to = |uri: &str, original: &str| {
        let original = axum::extract::OriginalUri(original.parse().unwrap());
        keyed("POST", uri, "k").extension(original).body(Body::from("{}")).unwrap()
    };
    let lab = Lab::counting(acp());
    // A layer outside has sent the second one elsewhere.
    assert_eq!(lab.send(to("/checkout/complete", "/checkout")).await.text(), "effect 1");
    assert_eq!(lab.send(to("/checkout/cancel", "/checkout")).await.text(), "effect 2");
    assert!(lab.send(to("/checkout/complete", "/checkout")).await.is_replay());
}
