//! The profile of Apache Iceberg's REST catalog, over each store of this crate.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use testkit::lab::time::{SECOND, clock};
use testkit::lab::{Lab, gated, keyed, layer, on_disk};
use testkit::{Answer, Gate};
use tower_idempotency::server::{KeyFrom, Profile, Replay};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{
    AnyStore, IdempotencyLayer, Keep, MemoryStore, OnInFlight, OnInterrupted, Rejection, Secret, SledStore,
};

const KEY: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

/// Each store, with its directory.
fn stores() -> Vec<(Option<TempDir>, AnyStore)> {
    let (of_sled, sled) = on_disk(SledStore::builder());
    #[cfg(feature = "fjall")]
    let (of_fjall, fjall) = on_disk(tower_idempotency::FjallStore::builder());
    let stores = [
        (None, AnyStore::new(MemoryStore::new())),
        (None, AnyStore::new(TestStore::new())),
        (Some(of_sled), AnyStore::new(sled)),
        #[cfg(feature = "fjall")]
        (Some(of_fjall), AnyStore::new(fjall)),
    ];
    Vec::from(stores)
}

fn iceberg(store: AnyStore) -> IdempotencyLayer<AnyStore> {
    IdempotencyLayer::new(store).profile(Profile::iceberg())
}

fn commit(key: &str, body: &'static str) -> Request<Body> {
    keyed("POST", "/v1/namespaces/a/tables/t", key).body(Body::from(body)).unwrap()
}

/// A key of this number.
fn numbered(number: u16) -> String {
    format!("017f22e2-79b0-7cc3-98c4-dc0c0c07{number:04x}")
}

/// The status and the type of an error in the form of `IcebergErrorResponse`, which permits no other member, and of
/// `ErrorModel`.
fn error(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "type"]);
    assert_eq!(error["code"], answer.status.as_u16());
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    (answer.status.as_u16(), error["type"].as_str().unwrap().to_owned())
}

fn wrong() -> (u16, String) {
    (400, "BadRequestException".to_owned())
}

fn unknown() -> (u16, String) {
    (500, "CommitStateUnknownException".to_owned())
}

fn later() -> (u16, String) {
    (503, "ServiceUnavailableException".to_owned())
}

// Seeded faults: the version is not looked at; the variant is not looked at.
#[tokio::test]
async fn a_key_that_is_no_uuid_of_version_7_is_refused_under_iceberg() {
    for (_directory, store) in stores() {
        let lab = Lab::counting(iceberg(store));
        for key in [
            "k",
            // Version 4, and a variant that is not that of RFC 9562.
            "4d5a7f0e-6f0c-4b8e-9c8e-0f6b1d2a3c4e",
            "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
            // Other forms, and a digit that is none.
            "017f22e279b07cc398c4dc0c0c07398f",
            "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
            "urn:uuid:017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "017f22e2079b0-7cc3-98c4-dc0c0c07398f",
        ] {
            let refused = lab.send(commit(key, "{}")).await;
            assert_eq!(error(&refused), wrong(), "{key}");
            assert_eq!(refused.header("idempotency-effect"), Some("none;retry=?0"), "{key}");
            assert!(refused.text().contains("UUID of version 7 in its 36 characters"), "{}", refused.text());
        }
        assert_eq!(lab.effects(), 0);
        let mut without = commit(KEY, "{}");
        without.headers_mut().remove("idempotency-key");
        assert_eq!(lab.send(without).await.text(), "effect 1", "no key is required");
        assert_eq!(lab.send(commit(KEY, "{}")).await.text(), "effect 2");
    }
}

// Seeded fault: the key is used as it was sent.
#[tokio::test]
async fn an_upper_case_uuid_is_the_same_key() {
    for (_directory, store) in stores() {
        let lab = Lab::counting(iceberg(store));
        let capitals = KEY.to_uppercase();
        assert_eq!(lab.send(commit(&capitals, "{}")).await.text(), "effect 1");
        for key in [KEY, capitals.as_str(), "017F22e2-79b0-7Cc3-98C4-dc0c0c07398F"] {
            assert!(lab.send(commit(key, "{}")).await.is_replay(), "{key}");
        }
        let reused = lab.send(commit(KEY, "[]")).await;
        assert_eq!(error(&reused), (422, "IdempotencyKeyReusedException".to_owned()));
        assert_eq!(lab.effects(), 1);
    }
    // Elsewhere, a key is compared byte by byte.
    let lab = Lab::counting(layer());
    lab.send(commit(KEY, "{}")).await;
    assert_eq!(lab.send(commit(&KEY.to_uppercase(), "{}")).await.text(), "effect 2");
}

// Seeded fault: the key of a body is used as it was sent.
#[tokio::test]
async fn a_key_in_the_body_has_the_form_of_the_profile() {
    let layer = layer().profile(Profile::iceberg()).key_from(KeyFrom::json_pointer("/key").unwrap());
    let lab = Lab::counting(layer);
    let commit = |key: &str| {
        let request = Request::post("/v1/namespaces/a/tables/t");
        request.body(Body::from(format!(r#"{{"key":"{key}"}}"#))).unwrap()
    };
    assert_eq!(error(&lab.send(commit("k")).await), wrong());
    assert_eq!(lab.send(commit(&KEY.to_uppercase())).await.text(), "effect 1");
    // It is the same operation, and the body is another.
    assert_eq!(lab.send(commit(KEY)).await.status, 422);
    assert_eq!(lab.effects(), 1);
}

// Seeded fault: the profile says nothing of a 5xx.
#[tokio::test]
async fn a_5xx_is_never_replayed_under_iceberg() {
    let statuses = [500, 501, 502, 503, 504, 507].map(|status| StatusCode::from_u16(status).unwrap());
    for (_directory, store) in stores() {
        for status in statuses {
            let key = numbered(status.as_u16());
            let lab = Lab::new(iceberg(store.clone()), move |_| async move { status });
            let first = lab.send(commit(&key, "{}")).await;
            assert_eq!(
                (first.status, first.header("idempotency-effect")),
                (status, Some("unknown;retry=?0")),
                "{status}"
            );
            let retry = lab.send(commit(&key, "{}")).await;
            assert_eq!((error(&retry), retry.is_replay()), (unknown(), false), "{status}");
            assert_eq!(lab.effects(), 1, "{status}: it may have taken place");
        }
    }
    // As the specification has it, where the application says that a run is safe to repeat.
    for status in statuses {
        let rerun = layer().profile(Profile::iceberg()).on_interrupted(OnInterrupted::Rerun);
        let lab = Lab::new(rerun, move |_| async move { status });
        for _ in 0..2 {
            let answer = lab.send(commit(KEY, "{}")).await;
            assert_eq!((answer.status, answer.is_replay()), (status, false));
        }
        assert_eq!(lab.effects(), 2, "{status}");
    }
}

async fn answered(number: usize, status: StatusCode) -> Response {
    match number {
        1 => status.into_response(),
        _ => format!("effect {number}").into_response(),
    }
}

// Seeded fault: the profile frees no status.
#[tokio::test]
async fn a_419_frees_the_key_under_iceberg() {
    for (_directory, store) in stores() {
        for status in [401, 403, 419, 429] {
            let key = numbered(status);
            let status = StatusCode::from_u16(status).unwrap();
            let lab = Lab::new(iceberg(store.clone()), move |number| answered(number, status));
            let first = lab.send(commit(&key, "{}")).await;
            assert_eq!((first.status, first.header("idempotency-effect")), (status, Some("none")), "{status}");
            // With other credentials.
            let mut retry = commit(&key, "{}");
            retry.headers_mut().insert("authorization", "Bearer renewed".parse().unwrap());
            assert_eq!(lab.send(retry).await.text(), "effect 2", "{status}");
        }
    }
    // The handler's mark wins, and other profiles don't know the status.
    let timed_out = StatusCode::from_u16(419).unwrap();
    let kept = Lab::new(layer().profile(Profile::iceberg()), move |_| async move { (timed_out, Keep) });
    let draft = Lab::new(layer(), move |_| async move { timed_out });
    for lab in [kept, draft] {
        lab.send(commit(KEY, "{}")).await;
        assert!(lab.send(commit(KEY, "{}")).await.is_replay());
    }
    let rerun = layer().profile(Profile::iceberg()).on_interrupted(OnInterrupted::Rerun);
    let lab = Lab::new(rerun, move |number| answered(number, timed_out));
    assert_eq!(lab.send(commit(KEY, "{}")).await.header("idempotency-effect"), Some("none"));
    assert_eq!(lab.send(commit(KEY, "{}")).await.text(), "effect 2");
}

#[tokio::test]
async fn what_the_catalog_says_for_good_is_replayed_under_iceberg() {
    for (_directory, store) in stores() {
        for status in [200, 201, 204, 400, 404, 406, 409, 422] {
            let key = numbered(status);
            let status = StatusCode::from_u16(status).unwrap();
            let lab = Lab::new(iceberg(store.clone()), move |_| async move { status });
            for is_replay in [false, true] {
                let answer = lab.send(commit(&key, "{}")).await;
                assert_eq!((answer.status, answer.is_replay()), (status, is_replay), "{status}");
            }
        }
    }
}

// Seeded fault: a row of the profile is left out.
#[tokio::test]
async fn no_refusal_of_an_iceberg_commit_is_a_409() {
    for (_directory, store) in stores() {
        let gate = Gate::default();
        let lab = gated(iceberg(store.clone()).on_in_flight(OnInFlight::Reject), &gate);
        let first = lab.spawn(commit(KEY, "{}"));
        gate.arrival().await;
        let in_flight = lab.send(commit(KEY, "{}")).await;
        assert_eq!(error(&in_flight), later());
        // A client repeats such a 503 by itself, with the same key.
        assert_eq!(in_flight.headers["retry-after"], "1");
        assert_eq!(in_flight.header("idempotency-effect"), Some("pending;retry"));
        gate.open();
        assert_eq!(first.await.unwrap().status, StatusCode::OK);

        let (key, lab) = (numbered(1), Lab::new(iceberg(store.clone()), |_| async { (Secret, "token") }));
        lab.send(commit(&key, "{}")).await;
        let not_replayable = lab.send(commit(&key, "{}")).await;
        assert_eq!(error(&not_replayable), unknown());
        assert_eq!(not_replayable.header("idempotency-effect"), Some("done;status=200;retry=?0"));

        let (key, lab) = (numbered(2), Lab::new(iceberg(store), |_| async { panic!("on purpose") as StatusCode }));
        for _ in 0..2 {
            let interrupted = lab.send(commit(&key, "{}")).await;
            assert_eq!(error(&interrupted), unknown());
            assert_eq!(interrupted.header("idempotency-effect"), Some("unknown;retry=?0"));
            assert!(!interrupted.headers.contains_key("retry-after"));
        }
    }
    // After a 400, a client deletes the files of an earlier try that may be under way.
    let mut cut = commit(KEY, "{}");
    cut.headers_mut().insert("content-length", 9.into());
    let cut = Lab::counting(layer().profile(Profile::iceberg())).send(cut).await;
    assert_eq!((error(&cut), cut.header("idempotency-effect")), (later(), Some("none;retry")));
    let full = IdempotencyLayer::new(MemoryStore::builder().max_records(0).build()).profile(Profile::iceberg());
    let full = Lab::counting(full).send(commit(KEY, "{}")).await;
    assert_eq!(error(&full), later());
    // Nothing else in this form says that a retry is of use.
    assert_eq!((full.header("idempotency-effect"), full.header("retry-after")), (Some("none;retry"), Some("5")));
}

#[tokio::test]
async fn a_replay_may_show_the_current_state_under_iceberg() {
    for (_directory, store) in stores() {
        let current = |_: Parts, stored: Response<Bytes>| async move {
            Replay::Replace(stored.map(|_| Bytes::from_static(b"the state of now")))
        };
        let lab = Lab::counting(iceberg(store).on_replay(current));
        assert_eq!(lab.send(commit(KEY, "{}")).await.text(), "effect 1");
        let replay = lab.send(commit(KEY, "{}")).await;
        assert_eq!((replay.text(), replay.is_replay()), ("the state of now", true));
    }
}

// A seeded fault: the refusal of a replay has the status that the application gives it.
#[tokio::test]
async fn a_replay_that_is_refused_under_iceberg_is_no_4xx() {
    let revoked = |_: Parts, _| async { Replay::Refuse(Rejection::from(StatusCode::FORBIDDEN)) };
    let lab = Lab::counting(layer().profile(Profile::iceberg()).on_replay(revoked));
    lab.send(commit(KEY, "{}")).await;
    let refused = lab.send(commit(KEY, "{}")).await;
    assert_eq!(error(&refused), unknown());
    assert_eq!(refused.header("idempotency-effect"), Some("done;status=200;retry=?0"));
}

#[tokio::test]
async fn a_key_lives_as_long_as_the_config_answer_says() {
    let clock = clock();
    let store = MemoryStore::builder().clock(clock.clone()).build();
    let layer = IdempotencyLayer::new(store).profile(Profile::iceberg()).retention(SECOND * 1_800);
    let lifetime = format!("PT{}S", layer.discovery()["retention_seconds"]);
    assert_eq!(lifetime, "PT1800S");
    let lab = Lab::counting(layer);
    lab.send(commit(KEY, "{}")).await;
    clock.advance(SECOND * 1_800 - Duration::from_millis(1));
    assert!(lab.send(commit(KEY, "{}")).await.is_replay());
}

#[test]
fn clients_can_find_out_which_keys_iceberg_s_profile_takes() {
    let described = layer().profile(Profile::iceberg()).on_in_flight(OnInFlight::Reject).discovery();
    assert_eq!((&described["key_form"], &described["key_max_bytes"]), (&json!("uuid-v7"), &json!(36)));
    assert_eq!(described["key_required"], false);
    let retry = &described["retry"];
    let in_flight = json!({ "status": 503, "code": "ServiceUnavailableException", "after_seconds": 0.0 });
    assert_eq!((&retry["in_flight"], &retry["server_error"]), (&in_flight, &json!("interrupted")));
    assert_eq!(retry["interrupted"], json!({ "status": 500, "code": "CommitStateUnknownException" }));
    assert!(layer().discovery().get("key_form").is_none());
}
