//! No key, account or body of a client is in what operators see: logs, spans, metrics, numbers, lists and audit events.

use ::metrics::set_default_local_recorder;
use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use testkit::lab::{Lab, keyed};
use testkit::log::logged;
use tower_idempotency::metrics::{Metrics, update};
use tower_idempotency::operations::{Action, Answer, Applied, Change, Filter, StateKind};
use tower_idempotency::store::Store as _;
use tower_idempotency::{IdempotencyLayer, Key, MemoryStore, Scope};

/// How many canaries there are of each kind.
const CANARIES: usize = 1_000;

/// The account that a request's header names.
fn account(number: usize) -> String {
    format!("canary-account-{number}")
}

/// Each canary is sent, sent again, and sent with another body; a third of them is interrupted, and settled by an
/// operator who finds them by key and account. Returns all that an operator may have seen.
async fn evening(store: MemoryStore, scrape: PrometheusHandle) -> String {
    store.observe(Metrics::new()).unwrap();
    let layer = IdempotencyLayer::new(store.clone())
        .scope(|parts: &Parts| Scope::new(parts.headers["authorization"].as_bytes()).unwrap())
        .label(|parts: &Parts| format!("{} {}", parts.method, parts.uri.path()));
    let lab = Lab::new(layer.clone(), |number| async move {
        let status = if number % 3 == 0 { StatusCode::BAD_GATEWAY } else { StatusCode::CREATED };
        (status, format!("canary-answer-{number}"))
    });
    let operations = layer.operations();
    let operator = operations.by("alice");
    for number in 0..CANARIES {
        for body in [format!("canary-body-{number}"), format!("canary-body-{number}"), "canary-other".to_owned()] {
            let request = keyed("POST", "/charges", &format!("canary-key-{number}"));
            let request = request.header("authorization", account(number)).header("cookie", "canary-cookie");
            lab.send(request.body(body.into()).unwrap()).await;
        }
        let key = Key::new(&format!("canary-key-{number}")).unwrap();
        let found = operations.find(Some(&Scope::new(account(number)).unwrap()), &key).await.unwrap().unwrap();
        let answer = Answer::Http(Response::new(Bytes::from(format!("canary-settled-{number}"))));
        let action = match found.state.kind() {
            StateKind::Interrupted => Action::Answer(answer),
            _ => Action::Forget,
        };
        if number % 2 == 0 {
            assert_eq!(operator.apply(Change::new(found.id, found.fence, action)).await.unwrap(), Applied::Done);
        }
    }
    update(&store).await.unwrap();
    let listed = operations.list(&Filter::all(), None, CANARIES).await.unwrap();
    assert!(listed.operations.len() > CANARIES / 2);
    assert_eq!(layer.stats().settled, 167, "some were settled");
    format!("{}\n{listed:?}\n{:?}\n{:?}\n{operations:?}", scrape.render(), layer.stats(), store.gauges())
}

#[test]
fn no_key_account_or_body_is_in_what_operators_see() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = set_default_local_recorder(&recorder);
    let mut seen = String::new();
    let log = logged(async { seen = evening(MemoryStore::new(), recorder.handle()).await });
    // What is looked through is there.
    for expected in ["POST /charges", "an operator changed an operation", "key-reused", "replayed"] {
        assert!(log.contains(expected), "the log has no {expected:?}");
    }
    assert!(seen.contains("idempotency_requests_total") && seen.contains("POST /charges"));
    for text in [log, seen] {
        let canary = text.lines().find(|line| line.contains("canary"));
        assert_eq!(canary, None);
    }
}
