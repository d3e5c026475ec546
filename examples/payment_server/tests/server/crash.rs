//! A crash between the charge and its answer is never hidden.

use serde_json::json;
use tempfile::{TempDir, tempdir};
use testkit::payment_server::{Listed, Server, Setup};
use testkit::process::eventually;
use testkit::{Answer, Call, Connection};

/// Charges with `tok_crash`, sees the process end, and starts another on the same data.
async fn crash(directory: &TempDir, policy: &str) -> Server {
    let setup = Setup::new(directory).with("--on-interrupted").with(policy);
    let mut server = setup.start();
    let mut connection = Connection::http1(server.address).await.unwrap();
    connection.send(&charge()).await.expect_err("the process ends before any answer");
    assert_eq!(server.exit().await.code(), Some(70));
    setup.start()
}

/// Kills the process within a charge, and starts another on the same data.
async fn killed(setup: &Setup) -> (Server, Call) {
    let mut server = setup.start();
    let call = Call::charge("killed", "tok_slow");
    let _connection = server.charging_slowly(&call).await;
    server.kill();
    (setup.start(), call)
}

fn charge() -> Call {
    Call::charge("crash", "tok_crash")
}

fn outcome_unknown(answer: &Answer) {
    assert_eq!(answer.refusal(), (409, "outcome-unknown".to_owned()));
    assert!(!answer.headers.contains_key("retry-after"));
    assert_eq!(answer.headers["stripe-should-retry"], "false");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_crash_is_refused() {
    let directory = tempdir().unwrap();
    let server = crash(&directory, "refuse").await;
    for _ in 0..3 {
        outcome_unknown(&server.send(&charge()).await);
    }
    assert_eq!(server.charges().await.len(), 1);
    assert_eq!(server.interrupted().await.len(), 1);
    let says = || server.log.text().contains("interrupted operations wait to be settled").then_some(());
    eventually("the line about it", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_operator_forgets_runs_again() {
    let directory = tempdir().unwrap();
    let mut server = crash(&directory, "refuse").await;
    let listed = server.interrupted().await.remove(0);
    assert_eq!(server.release(&listed).await, "done");
    assert!(server.interrupted().await.is_empty());
    assert_eq!(server.release(&listed).await, "stale", "there is nothing left to settle");
    let mut connection = Connection::http1(server.address).await.unwrap();
    connection.send(&charge()).await.expect_err("it runs again, and crashes again");
    assert_eq!(server.exit().await.code(), Some(70));
    let server = Setup::new(&directory).start();
    assert_eq!(server.charges().await.len(), 2);
    outcome_unknown(&server.send(&charge()).await);
    let later = server.interrupted().await.remove(0);
    assert!(later.fence.parse::<u64>().unwrap() > listed.fence.parse().unwrap(), "a fence never shrinks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_operator_answers_is_replayed_that_answer() {
    let directory = tempdir().unwrap();
    let server = crash(&directory, "refuse").await;
    let charges = server.charges().await;
    let listed = server.interrupted().await.remove(0);
    let found = charges[0].to_string();
    outcome_unknown(&server.send(&charge()).await);
    assert_eq!(server.answer(&listed, &found).await, "done");
    let replay = server.send(&charge()).await;
    assert!(replay.is_replay());
    assert_eq!((replay.status.as_u16(), replay.text()), (200, found.as_str()));
    assert_eq!(replay.headers["content-type"], "application/json");
    assert_eq!(server.charges().await.len(), 1);
    // The operator's resolution is as durable as any answer.
    server.stop().await;
    let server = Setup::new(&directory).start();
    assert_eq!(server.send(&charge()).await.body, replay.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_settled_under_another_fence() {
    let directory = tempdir().unwrap();
    let server = crash(&directory, "refuse").await;
    let listed = server.interrupted().await.remove(0);
    let earlier = listed.fence.parse::<u64>().unwrap() - 1;
    assert_eq!(server.release(&Listed { fence: earlier.to_string(), ..listed.clone() }).await, "stale");
    let change = json!({ "changes": [{ "id": listed.id, "action": "release" }] });
    assert_eq!(server.send(&Call::operator_post("/admin/api/changes", &change)).await.status, 400);
    outcome_unknown(&server.send(&charge()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_rerun_a_retry_after_a_crash_charges_again() {
    let directory = tempdir().unwrap();
    let mut server = crash(&directory, "rerun").await;
    assert_eq!(server.charges().await.len(), 1);
    let mut connection = Connection::http1(server.address).await.unwrap();
    connection.send(&charge()).await.expect_err("it runs again, and crashes again");
    assert_eq!(server.exit().await.code(), Some(70));
    let server = Setup::new(&directory).with("--on-interrupted rerun").start();
    assert_eq!(server.charges().await.len(), 2);
}

// The guide advises this, and every upgrade to it does this.
#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_was_interrupted_before_a_deploy_to_one_transaction_does_not_run_again() {
    for policy in ["rerun", "rerun --atomic"] {
        let directory = tempdir().unwrap();
        let setup = Setup::new(&directory).with("--on-interrupted refuse");
        let mut server = setup.start();
        let mut connection = Connection::http1(server.address).await.unwrap();
        connection.send(&charge()).await.expect_err("the process ends before any answer");
        assert_eq!(server.exit().await.code(), Some(70));
        let server = Setup::new(&directory).with("--on-interrupted").with(policy).start();
        outcome_unknown(&server.send(&charge()).await);
        assert_eq!(server.interrupted().await.len(), 1, "{policy}");
        let says = || server.log.text().contains("it was not claimed under Rerun").then_some(());
        eventually("the line about it", says).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_is_refused_too() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let (server, call) = killed(&setup).await;
    outcome_unknown(&server.send(&call).await);
    assert!(server.charges().await.len() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_transaction_a_retry_after_a_crash_is_answered_with_the_one_charge() {
    for policy in ["rerun --atomic", "refuse --atomic", "reconcile --atomic"] {
        let directory = tempdir().unwrap();
        let server = crash(&directory, policy).await;
        let replay = server.send(&charge()).await;
        assert_eq!((replay.status.as_u16(), replay.is_replay()), (200, true), "{policy}: {}", replay.text());
        assert_eq!(server.charges().await, [replay.json()], "{policy}");
        assert!(server.interrupted().await.is_empty(), "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_knows_is_what_a_retry_after_a_crash_is_answered() {
    let directory = tempdir().unwrap();
    let server = crash(&directory, "reconcile").await;
    let first = server.send(&charge()).await;
    assert_eq!((first.status.as_u16(), first.is_replay()), (200, true), "{}", first.text());
    assert_eq!(server.charges().await, [first.json()]);
    assert_eq!(server.send(&charge()).await.body, first.body);
    assert!(server.interrupted().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_server_left_is_settled_without_its_clients() {
    let directory = tempdir().unwrap();
    let server = crash(&directory, "reconcile").await;
    let line = "reconciled settled=1 run_again=0 unknown=0";
    eventually(line, || server.log.text().contains(line).then_some(())).await;
    assert!(server.interrupted().await.is_empty());
    assert!(server.send(&charge()).await.is_replay());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_does_not_know_runs_again() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory).with("--on-interrupted reconcile");
    let (server, call) = killed(&setup).await;
    let answer = server.send_until_settled(&call).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.charges().await.len(), 1);
    assert!(server.send(&call).await.is_replay());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_in_one_transaction_is_made_once_and_found_by_the_ledger() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory).with("--atomic");
    let server = setup.start();
    let charged = server.send(&Call::charge("charge", "tok_visa")).await.json();
    let refund = format!("charge={}&amount=400", charged["id"].as_str().unwrap());
    let refund = Call::post("/v1/refunds", &refund).header("idempotency-key", "refund");
    let first = server.send(&refund).await;
    assert_eq!((first.status.as_u16(), first.is_replay()), (200, false), "{}", first.text());
    let again = server.send(&refund).await;
    assert_eq!((again.is_replay(), again.body), (true, first.body));
    assert_eq!(server.charges().await[0]["amount_refunded"], 400);
    let unknown = Call::post("/v1/refunds", "charge=ch_00000000000000000000000000000000");
    let unknown = unknown.header("idempotency-key", "unknown");
    for _ in 0..2 {
        assert_eq!(server.send(&unknown).await.status, 404, "an aborted transaction's answer is recorded as any other");
    }
    server.stop().await;
}
