//! The profiles: an API answers as its clients expect, and each part of a profile can be changed.

use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use http::{HeaderName, Request, Response, StatusCode};
use serde_json::{Value, json};
use testkit::lab::time::{HOUR, clock};
use testkit::lab::{Lab, gated, keyed, layer};
use testkit::{Answer, Gate};
use tower_idempotency::server::{Checked, Envelope, Profile};
use tower_idempotency::{
    IdempotencyLayer, Invalid, Keep, MemoryStore, OnInFlight, OnInterrupted, Rejection, RejectionKind, Release, Scope,
};

fn acp() -> IdempotencyLayer<MemoryStore> {
    layer().profile(Profile::acp())
}

fn stripe() -> IdempotencyLayer<MemoryStore> {
    layer().profile(Profile::stripe())
}

fn json_to(path: &str, key: &str, body: impl Into<Body>) -> Request<Body> {
    keyed("POST", path, key).header(CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

fn session(body: impl Into<Body>) -> Request<Body> {
    json_to("/checkout_sessions", "k", body)
}

fn without_key(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove("idempotency-key");
    request
}

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
    // As it was sent, in quotes.
    assert_eq!(lab.send(json_to("/checkout_sessions", "\"k\"", "{}")).await.headers["idempotency-key"], "\"k\"");
}

#[tokio::test]
async fn acp_compares_json_by_its_meaning_and_nothing_but_the_body() {
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
    let changed = [
        json_to("/checkout_sessions?api-version=2", "k", first),
        keyed("POST", "/checkout_sessions", "k")
            .header(CONTENT_TYPE, "application/vnd.acp+json")
            .header("api-version", "2026-01-30")
            .body(first.into())
            .unwrap(),
    ];
    for request in changed {
        assert!(lab.send(request).await.is_replay());
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
    assert_eq!(flat_error(&refused), of_acp(401, "custom"));
    let broken = Lab::new(acp(), |_| async { panic!("on purpose") as StatusCode });
    let answer = broken.send(session("{}")).await;
    assert_eq!(flat_error(&answer), (500, "processing_error".to_owned(), "outcome_unknown".to_owned()));
    let full = IdempotencyLayer::new(MemoryStore::builder().max_records(0).build()).profile(Profile::acp());
    let answer = Lab::counting(full).send(session("{}")).await;
    assert_eq!(flat_error(&answer), (503, "service_unavailable".to_owned(), "store_full".to_owned()));
}

/// The error of Stripe's API: status, type, code, and whether its clients retry.
fn error(answer: &Answer) -> (u16, Value, Value, &str) {
    let body = answer.json();
    let (kind, code) = (body["error"]["type"].clone(), body["error"]["code"].clone());
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    (answer.status.as_u16(), kind, code, answer.header("stripe-should-retry").unwrap_or_default())
}

#[tokio::test]
async fn stripe_s_errors_have_its_types_and_say_whether_to_retry() {
    let gate = Gate::default();
    let lab = gated(stripe().on_in_flight(OnInFlight::Reject), &gate);
    let first = lab.spawn(session("{}"));
    gate.arrival().await;
    let in_flight = lab.send(session("{}")).await;
    let key_in_use = (409, "idempotency_error".into(), "idempotency_key_in_use".into(), "true");
    assert_eq!(error(&in_flight), key_in_use);
    gate.open();
    first.await.unwrap();
    let reused = lab.send(session("[]")).await;
    assert_eq!(error(&reused), (400, "idempotency_error".into(), "idempotency_key_reused".into(), "false"));
    // Problem details, too, for clients that know them.
    assert_eq!((&reused.json()["status"], &reused.json()["retry_with_same_key"]), (&400.into(), &false.into()));
    assert_eq!(reused.headers["idempotency-key"], "k");
}

#[tokio::test]
async fn stripe_replays_a_500_and_says_that_a_retry_is_of_no_use() {
    let lab = Lab::new(stripe(), |_| async { StatusCode::INTERNAL_SERVER_ERROR });
    let [first, retry] = [lab.send(session("{}")).await, lab.send(session("{}")).await];
    assert_eq!((first.status, first.header("stripe-should-retry")), (StatusCode::INTERNAL_SERVER_ERROR, None));
    assert_eq!((retry.status, retry.is_replay()), (first.status, true));
    assert_eq!(retry.headers["stripe-should-retry"], "false");
    let lab = Lab::counting(stripe());
    lab.send(session("{}")).await;
    assert!(!lab.send(session("{}")).await.headers.contains_key("stripe-should-retry"), "a success needs none");
}

async fn charge(Checked(Json(amount)): Checked<Json<u64>>) -> Response<Body> {
    match amount {
        0 => (StatusCode::UNPROCESSABLE_ENTITY, Invalid, "nothing to charge").into_response(),
        13 => (StatusCode::UNPROCESSABLE_ENTITY, "unlucky").into_response(),
        _ => format!("charged {amount}").into_response(),
    }
}

#[tokio::test]
async fn a_validation_error_frees_the_key_in_stripe_s_profile_and_is_recorded_in_the_others() {
    let profiles = [(Profile::stripe(), true), (Profile::draft(), false), (Profile::acp(), false)];
    for (profile, is_free) in profiles {
        for (wrong, status) in [("\"ten\"", 422), ("ten", 400), ("0", 422)] {
            let app = Router::new().route("/charges", post(charge)).layer(layer().profile(profile.clone()));
            let lab = Lab::of(app);
            for is_retry in [false, true] {
                let answer = lab.send(json_to("/charges", "k", wrong)).await;
                let expected = (status, is_retry && !is_free);
                assert_eq!((answer.status.as_u16(), answer.is_replay()), expected, "{}", profile.name);
            }
            let corrected = lab.send(json_to("/charges", "k", "10")).await;
            if is_free {
                assert_eq!(corrected.text(), "charged 10");
            } else {
                assert_eq!(corrected.status, StatusCode::UNPROCESSABLE_ENTITY, "the key belongs to the wrong request");
            }
        }
        // What the handler says without a mark is an outcome.
        let app = Router::new().route("/charges", post(charge)).layer(layer().profile(profile));
        let lab = Lab::of(app);
        lab.send(json_to("/charges", "k", "13")).await;
        assert!(lab.send(json_to("/charges", "k", "13")).await.is_replay());
    }
}

#[tokio::test]
async fn what_an_extractor_fails_with_is_not_taken_for_an_invalid_request() {
    struct Broken;
    impl<S: Sync> axum::extract::FromRequest<S> for Broken {
        type Rejection = StatusCode;

        async fn from_request(_: axum::extract::Request, _: &S) -> Result<Self, StatusCode> {
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
    let broken = async |_: Checked<Broken>| "charged";
    let lab = Lab::of(Router::new().route("/charges", post(broken)).layer(stripe()));
    lab.send(json_to("/charges", "k", "1")).await;
    assert!(lab.send(json_to("/charges", "k", "1")).await.is_replay());
}

#[tokio::test]
async fn in_every_profile_a_429_is_no_outcome_unless_the_handler_says_so() {
    for profile in [Profile::draft(), Profile::stripe(), Profile::acp()] {
        let lab = Lab::new(layer().profile(profile.clone()), |_| async { StatusCode::TOO_MANY_REQUESTS });
        for _ in 0..2 {
            assert!(!lab.send(session("{}")).await.is_replay());
        }
        assert_eq!(lab.effects(), 2, "{}", profile.name);
        let lab = Lab::new(layer().profile(profile), |_| async { (StatusCode::TOO_MANY_REQUESTS, Keep) });
        lab.send(session("{}")).await;
        assert!(lab.send(session("{}")).await.is_replay());
    }
}

#[tokio::test]
async fn a_profile_s_least_retention_is_kept_whatever_is_set() {
    for (profile, runs) in [(Profile::draft(), 2), (Profile::stripe(), 1), (Profile::acp(), 1)] {
        let clock = clock();
        let store = MemoryStore::builder().clock(clock.clone()).build();
        for layer in [
            IdempotencyLayer::new(store.clone()).profile(profile.clone()).retention(HOUR),
            IdempotencyLayer::new(MemoryStore::builder().clock(clock.clone()).build()).retention(HOUR).profile(profile),
        ] {
            let lab = Lab::counting(layer);
            lab.send(session("{}")).await;
            clock.advance(HOUR * 24 - std::time::Duration::from_millis(1));
            lab.send(session("{}")).await;
            assert_eq!(lab.effects(), runs);
        }
    }
    // It leaves nothing behind.
    let clock = clock();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let back = IdempotencyLayer::new(store).retention(HOUR).profile(Profile::acp()).profile(Profile::draft());
    let lab = Lab::counting(back);
    lab.send(session("{}")).await;
    clock.advance(HOUR);
    lab.send(session("{}")).await;
    assert_eq!(lab.effects(), 2);
}

#[tokio::test]
async fn a_dialect_of_one_s_own_is_a_value() {
    let mut acme = Profile::stripe();
    acme.name = "acme";
    acme.require_key = true;
    acme.codes = &[(RejectionKind::KeyReused, StatusCode::CONFLICT, "duplicate_request")];
    acme.replay_header = HeaderName::from_static("acme-replay");
    acme.replay_member = Some("replayed");
    acme.envelope = Envelope::Custom(|rejection: &Rejection| {
        let mut response = Response::new(json!({ "acme": rejection.code() }).to_string().into());
        *response.status_mut() = rejection.status;
        response
    });
    let lab = Lab::new(layer().profile(acme), |number| async move { Json(json!({ "id": number })) });
    let missing = lab.send(without_key(session("{}"))).await;
    assert_eq!((missing.status.as_u16(), missing.text()), (400, r#"{"acme":"key_missing"}"#));
    assert_eq!(lab.send(session("{}")).await.text(), r#"{"id":1}"#);
    let replay = lab.send(session("{}")).await;
    assert_eq!(
        (replay.text(), &replay.headers["acme-replay"]),
        (r#"{"replayed":true,"id":1}"#, &"true".parse().unwrap())
    );
    assert_eq!(replay.headers["content-length"], replay.text().len().to_string());
    let reused = lab.send(session("[]")).await;
    assert_eq!((reused.status.as_u16(), reused.text()), (409, r#"{"acme":"duplicate_request"}"#));
    assert_eq!(reused.headers["stripe-should-retry"], "false");
}

#[tokio::test]
async fn an_option_that_is_set_after_the_profile_counts() {
    let relaxed = acp().require_key(false).replay_header_name(HeaderName::from_static("replayed"));
    let lab = Lab::counting(relaxed);
    assert_eq!(lab.send(without_key(session("{}"))).await.text(), "effect 1");
    lab.send(session("{}")).await;
    assert_eq!(lab.send(session("{}")).await.headers["replayed"], "true");
    let rendered = acp().render_rejection(|rejection| Response::new(rejection.code().into_owned().into()));
    let refused = Lab::counting(rendered).send(without_key(session("{}"))).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (400, "idempotency_key_required"));
}
