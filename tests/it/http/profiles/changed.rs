//! What is one in all profiles, and what an application changes of one.

use axum::Json;
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};
use serde_json::json;
use testkit::lab::Lab;
use testkit::lab::layer;
use testkit::lab::time::{HOUR, SECOND, clock};
use tower_idempotency::server::{Envelope, Profile};
use tower_idempotency::{FingerprintBody, IdempotencyLayer, Keep, MemoryStore, Rejection, RejectionKind, Scope};

use super::{acp, error, session, without_key};

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
