//! The profiles: an API answers as its clients expect, and each part of a profile can be changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use serde_json::{Value, json};
use testkit::lab::time::{HOUR, SECOND, clock};
use testkit::lab::{Lab, gated, keyed, layer};
use testkit::{Answer, Gate};
use tower_idempotency::server::{Checked, Envelope, Profile};
use tower_idempotency::{
    FingerprintBody, IdempotencyContext, IdempotencyLayer, Invalid, Keep, Key, Meaning, MemoryStore, OnInFlight,
    OnInterrupted, RecordId, Rejection, RejectionKind, Release, Scope, Unsure,
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

/// An extractor that fails with this status.
struct Fails<const STATUS: u16>;

impl<S: Sync, const STATUS: u16> FromRequestParts<S> for Fails<STATUS> {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        Err(StatusCode::from_u16(STATUS).unwrap())
    }
}

/// Whether the retry of a request whose extractor fails so is a replay.
async fn is_recorded<const STATUS: u16>(layer: IdempotencyLayer<MemoryStore>) -> bool {
    let charge = async |_: Checked<Fails<STATUS>>| "charged";
    let lab = Lab::of(Router::new().route("/charges", post(charge)).layer(layer));
    lab.send(json_to("/charges", "k", "1")).await;
    lab.send(json_to("/charges", "k", "1")).await.is_replay()
}

#[tokio::test]
async fn only_what_is_wrong_in_itself_counts_as_an_invalid_request() {
    assert!(!is_recorded::<422>(stripe()).await && !is_recorded::<415>(stripe()).await);
    assert!(is_recorded::<500>(stripe()).await);
    // Where the profile says nothing, the mark changes nothing.
    let rerun = || layer().on_interrupted(OnInterrupted::Rerun);
    assert!(!is_recorded::<401>(layer()).await && !is_recorded::<429>(layer()).await);
    assert!(is_recorded::<422>(layer()).await && is_recorded::<422>(rerun()).await);
    let teapots = |parts: &http::response::Parts, _: Option<&HeaderMap>| {
        (parts.status == StatusCode::UNPROCESSABLE_ENTITY).then_some(Meaning::NotStarted)
    };
    assert!(!is_recorded::<422>(layer().classify(teapots)).await);
}

#[tokio::test]
async fn another_mark_comes_before_that_of_an_invalid_request() {
    let wrong = StatusCode::UNPROCESSABLE_ENTITY;
    let kept = Lab::new(stripe(), move |_| async move { (wrong, Invalid, Keep) });
    kept.send(session("{}")).await;
    assert!(kept.send(session("{}")).await.is_replay());
    let unsure = Lab::new(stripe(), move |_| async move { (wrong, Invalid, Unsure) });
    unsure.send(session("{}")).await;
    assert_eq!(error(&unsure.send(session("{}")).await).0, 409);
    let freed = Lab::new(acp(), move |_| async move { (wrong, Invalid, Release) });
    freed.send(session("{}")).await;
    assert!(!freed.send(session("{}")).await.is_replay());
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
}

#[tokio::test]
async fn what_is_unknown_is_kept_as_long_as_what_is_done() {
    let clock = clock();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let layer = IdempotencyLayer::new(store).interrupted_retention(HOUR).profile(Profile::acp());
    let lab = Lab::new(layer, |_| async { StatusCode::INTERNAL_SERVER_ERROR });
    lab.send(session("{}")).await;
    clock.advance(HOUR * 23);
    assert_eq!(lab.send(session("{}")).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_longer_retention_stays_and_a_profile_leaves_nothing_behind() {
    assert_eq!(acp().retention(HOUR * 48).discovery()["retention_seconds"], 172_800);
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
    assert_eq!((replay.text(), &replay.headers["acme-replay"]), (r#"{"id":1}"#, &"true".parse().unwrap()));
    let reused = lab.send(session("[]")).await;
    assert_eq!((reused.status.as_u16(), reused.text()), (409, r#"{"acme":"duplicate_request"}"#));
    assert_eq!(reused.headers["stripe-should-retry"], "false");
}

#[tokio::test]
async fn a_rejection_says_when_to_try_again_and_what_it_knows_in_each_form_the_application_s_own_too() {
    let empty = |rejection: &Rejection| {
        let mut response = Response::new(Default::default());
        *response.status_mut() = rejection.status;
        response
    };
    let mut own = Profile::draft();
    own.envelope = Envelope::Custom(empty);
    let busy = |_: &Parts| {
        let mut busy = Rejection::custom(StatusCode::SERVICE_UNAVAILABLE, "Busy", "Come back.");
        (busy.retry_with_same_key, busy.retry_after) = (true, Some(SECOND * 7));
        Err::<Scope, _>(busy)
    };
    for profile in [Profile::draft(), Profile::stripe(), Profile::acp(), own] {
        for rendered in [false, true] {
            let layer = layer().profile(profile.clone()).scope(busy);
            let layer = if rendered { layer.render_rejection(empty) } else { layer };
            let answer = Lab::counting(layer).send(session("{}")).await;
            let said = ["retry-after", "idempotency-effect"].map(|name| answer.header(name).map(str::to_owned));
            assert_eq!(said, [Some("7".to_owned()), Some("none;retry".to_owned())], "{} {rendered}", profile.name);
        }
    }
}

#[tokio::test]
async fn a_record_of_a_profile_that_compares_otherwise_is_not_verifiable() {
    let store = MemoryStore::new();
    let mut by_meaning = Profile::draft();
    by_meaning.fingerprint_body = FingerprintBody::CanonicalJson;
    Lab::counting(IdempotencyLayer::new(store.clone())).send(session("{}")).await;
    let lab = Lab::counting(IdempotencyLayer::new(store).profile(by_meaning));
    assert_eq!(lab.send(session("{}")).await.refusal(), (409, "not-verifiable".to_owned()));
}

#[test]
fn scripts_of_other_origins_may_read_what_the_profile_sends() {
    let expose = |profile| layer().profile(profile).cors_headers().expose;
    assert_eq!(expose(Profile::stripe())[4..], ["stripe-should-retry", "idempotency-key"]);
    assert_eq!(expose(Profile::acp())[4..], ["idempotency-key"]);
}

#[tokio::test]
async fn what_the_application_has_set_stays_whether_before_the_profile_or_after_it() {
    let strict = layer().require_key(true).profile(Profile::stripe());
    let missing = Lab::counting(strict).send(without_key(session("{}"))).await;
    assert_eq!(error(&missing).2, "key_missing");
    let custom = layer().replay_header_name(HeaderName::from_static("replayed")).profile(Profile::acp());
    let lab = Lab::counting(custom.profile(Profile::stripe()));
    lab.send(without_key(session("{}"))).await;
    lab.send(session("{}")).await;
    assert_eq!(lab.send(session("{}")).await.headers["replayed"], "true");
    let relaxed = acp().require_key(false).replay_header_name(HeaderName::from_static("replayed"));
    let lab = Lab::counting(relaxed);
    assert_eq!(lab.send(without_key(session("{}"))).await.text(), "effect 1");
    lab.send(session("{}")).await;
    assert_eq!(lab.send(session("{}")).await.headers["replayed"], "true");
    let rendered = acp().render_rejection(|rejection| Response::new(rejection.code().into_owned().into()));
    let refused = Lab::counting(rendered).send(without_key(session("{}"))).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (400, "idempotency_key_required"));
}
