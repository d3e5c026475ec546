//! What a record says of where its operation came from: a label, the scope's digest, and the trace id.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Request;
use http::StatusCode;
use http::request::Parts;
use testkit::lab::disk::Disk;
use testkit::lab::operator::Operated as _;
use testkit::lab::{Lab, id, keyed, on_disk};
use testkit::on_both;
use tower_idempotency::engine::{EffectError, OnceError};
use tower_idempotency::store::Store;
use tower_idempotency::{
    Fingerprint, IdempotencyLayer, Key, MemoryStore, OnInterrupted, Once, RecordId, Scope, SledStore,
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_ID: [u8; 16] = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();

fn request(key: &str, trace: Option<&str>) -> Request {
    let mut request = keyed("POST", "/charges", key);
    if let Some(trace) = trace {
        request = request.header("traceparent", trace);
    }
    request.body(Body::from("a")).unwrap()
}

fn scope() -> Scope {
    Scope::new("tenant 7").unwrap()
}

/// A layer with a scope and a label, which counts the calls of its label function.
fn labelled<St: Store>(store: St, calls: &Arc<AtomicUsize>) -> IdempotencyLayer<St> {
    let calls = Arc::clone(calls);
    IdempotencyLayer::new(store).scope(|_: &Parts| scope()).label(move |parts: &Parts| {
        let number = calls.fetch_add(1, Ordering::SeqCst);
        format!("{} {}, call {number}", parts.method, parts.uri.path())
    })
}

async fn fail(layer: IdempotencyLayer<impl Store>, key: &str, trace: Option<&str>) {
    let lab = Lab::new(layer, |_| async { StatusCode::BAD_GATEWAY });
    assert_eq!(lab.send(request(key, trace)).await.status, 502);
}

async fn is_listed_with_its_origin<St: Store + Clone>(store: St) {
    let calls = Arc::default();
    let layer = labelled(store, &calls);
    fail(layer.clone(), "k", Some(TRACE)).await;
    let listed = layer.interrupted(9).await.unwrap().remove(0);
    assert_eq!(listed.label(), Some("POST /charges, call 0"));
    assert_eq!((listed.scope(), listed.trace_id()), (Some(scope().digest()), Some(TRACE_ID)));
}

#[tokio::test]
async fn an_interrupted_operation_is_listed_with_its_label_scope_and_trace() {
    is_listed_with_its_origin(MemoryStore::new()).await;
    let (_directory, sled) = on_disk(SledStore::builder());
    is_listed_with_its_origin(sled).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, fjall) = on_disk(tower_idempotency::FjallStore::builder());
        is_listed_with_its_origin(fjall).await;
    }
}

on_both!(a_label_survives_a_restart);
async fn a_label_survives_a_restart<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    fail(labelled(store.clone(), &Arc::default()), "k", None).await;
    store.close().await.unwrap();
    drop(store);
    let again = D::open(directory.path()).unwrap();
    let listed = IdempotencyLayer::new(again).interrupted(9).await.unwrap().remove(0);
    assert_eq!((listed.label(), listed.trace_id()), (Some("POST /charges, call 0"), None));
}

// Under `Rerun` on disk a claim leaves no record: the one that is written at the end has the origin all the same.
on_both!(an_outcome_whose_claim_left_no_record_has_the_origin);
async fn an_outcome_whose_claim_left_no_record_has_the_origin<D: Disk>() {
    let (_directory, store) = on_disk(D::builder());
    let layer = labelled(store.clone(), &Arc::default()).on_interrupted(OnInterrupted::Rerun);
    let lab = Lab::counting(layer);
    lab.send(request("k", Some(TRACE))).await;
    let id = RecordId::new(Some(&scope()), &Key::new("k").unwrap());
    let origin = store.load(id).await.unwrap().unwrap().origin;
    assert_eq!(origin.label(), Some("POST /charges, call 0"));
    assert_eq!(origin.0.unwrap().trace, Some(TRACE_ID));
}

#[tokio::test]
async fn a_label_is_asked_for_when_a_request_runs_and_the_first_one_stays() {
    let (store, calls) = (MemoryStore::new(), Arc::default());
    let layer = labelled(store.clone(), &calls).on_interrupted(OnInterrupted::Rerun);
    let lab = Lab::counting(layer.clone());
    for _ in 0..3 {
        lab.send(request("k", Some(TRACE))).await;
    }
    assert_eq!((lab.effects(), calls.load(Ordering::SeqCst)), (1, 1));
    // Without a layer's label the operation has none, though it has a scope.
    let plain = IdempotencyLayer::new(store.clone());
    fail(plain.clone(), "other", None).await;
    let listed = plain.interrupted(9).await.unwrap().remove(0);
    assert_eq!((listed.label(), listed.scope(), listed.trace_id()), (None, None, None));
}

#[tokio::test]
async fn a_label_is_short_and_on_one_line_and_an_empty_one_is_none() {
    let two_bytes = "é".repeat(150);
    let labels = [
        (format!(" {two_bytes}"), Some("é".repeat(100))),
        ("a\r\nb\u{1b}[2J\u{9b}c".to_owned(), Some("a  b [2J c".to_owned())),
        ("x".repeat(199) + "é", Some("x".repeat(199))),
        (" \t".to_owned(), None),
        ("\u{1b}\u{202e}".to_owned(), None),
        ("a\u{202e}b\u{2066}".to_owned(), Some("a b".to_owned())),
    ];
    for (text, label) in labels {
        let once = Once::new(MemoryStore::new()).label(&text);
        let effect = |_| async { Err::<(), _>(EffectError::MaybeStarted("no answer")) };
        let failed = once.run(id("k"), Fingerprint::of(b"m"), effect).await;
        assert!(matches!(failed, Err(OnceError::Effect(_))));
        assert_eq!(once.interrupted(9).await.unwrap()[0].label(), label.as_deref(), "{text}");
    }
}
