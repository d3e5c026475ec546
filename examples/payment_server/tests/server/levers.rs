//! The failures that can happen, by source.

use serde_json::json;
use tempfile::tempdir;
use testkit::Call;
use testkit::payment_server::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_charge_is_recorded_and_replayed() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let call = Call::charge("declined", "tok_chargeDeclined");
    let (first, second) = (server.send(&call).await, server.send(&call).await);
    assert_eq!(first.status, 402);
    assert_eq!(first.json()["error"]["type"], "card_error");
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert!(!first.is_replay() && second.is_replay());
    assert!(server.charges().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_the_charge_is_recorded_and_replayed() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let call = Call::charge("error", "tok_error");
    let (first, second) = (server.send(&call).await, server.send(&call).await);
    assert_eq!(first.status, 500);
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert!(!first.is_replay() && second.is_replay());
    assert_eq!(server.charges().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_rerun_an_error_frees_the_key() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).with("--on-interrupted rerun").start();
    let call = Call::charge("error", "tok_error");
    for charges in 1..=2 {
        let answer = server.send(&call).await;
        assert_eq!((answer.status.as_u16(), answer.is_replay()), (500, false));
        assert_eq!(server.charges().await.len(), charges);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_503_before_the_charge_is_marked_release_and_a_retry_runs() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let call = Call::charge("unavailable", "tok_unavailable");
    for _ in 0..2 {
        let answer = server.send(&call).await;
        assert_eq!((answer.status.as_u16(), answer.is_replay()), (503, false));
    }
    server.charge_begun("tok_unavailable", 2).await;
    // The key is free for another request, too.
    assert_eq!(server.send(&Call::charge("unavailable", "tok_visa")).await.status, 200);
    assert_eq!(server.charges().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_after_the_charge_leaves_the_outcome_unknown() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let call = Call::charge("panic", "tok_panic");
    assert_eq!(server.send(&call).await.refusal(), (500, "outcome-unknown".to_owned()));
    for _ in 0..2 {
        let retry = server.send(&call).await;
        assert_eq!(retry.refusal(), (409, "outcome-unknown".to_owned()));
        assert_eq!(retry.headers["stripe-should-retry"], "false");
    }
    assert_eq!(server.charges().await.len(), 1);
    assert_eq!(server.interrupted().await.len(), 1);
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_card_network_did_not_answer_is_unknown_listed_by_status_and_settled_at_once() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let calls: Vec<_> = (0..3).map(|number| Call::charge(&format!("timeout-{number}"), "tok_timeout")).collect();
    for call in &calls {
        assert_eq!(server.send(call).await.status, 504);
        assert_eq!(server.send(call).await.refusal(), (409, "outcome-unknown".to_owned()));
    }
    server.send(&Call::charge("panic", "tok_panic")).await;
    assert_eq!(server.interrupted().await.len(), 4);
    let listed = server.interrupted_with("&status=504").await;
    assert_eq!(listed.len(), 3);
    // The ledger has three charges; an operator who finds none would state that of all at once.
    assert_eq!(server.charges().await.len(), 4);
    let changes = listed.iter().map(|listed| json!({ "id": listed.id, "fence": listed.fence, "action": "release" }));
    let changes = json!({ "changes": changes.collect::<Vec<_>>() });
    let settled = server.send(&Call::operator_post("/admin/api/changes", &changes)).await.json();
    assert!(settled["results"].as_array().unwrap().iter().all(|result| result["result"] == "done"), "{settled}");
    assert_eq!(server.interrupted().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_reconcile_the_ledger_is_asked_what_the_card_network_did_not_answer() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).with("--on-interrupted reconcile").start();
    let call = Call::charge("timeout", "tok_timeout");
    assert_eq!(server.send(&call).await.status, 504);
    let retry = server.send(&call).await;
    assert_eq!((retry.status.as_u16(), retry.is_replay()), (200, true));
    assert_eq!(retry.json()["object"], "charge");
    assert_eq!(server.charges().await.len(), 1);
}
