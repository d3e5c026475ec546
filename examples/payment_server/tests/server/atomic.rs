//! `--atomic` with PostgreSQL: all servers have one ledger, and charge and record are one transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tempfile::tempdir;
use testkit::postgres::{PostgresServer, own_server, shared_server};
use testkit::{Call, Connection};
use tokio::sync::Notify;
use tokio::time::timeout;
use tower_idempotency_postgres::tokio_postgres::{Client, NoTls, connect};

use super::shared::{two, until};

/// A connection of the test's own.
async fn client(database: &PostgresServer) -> Client {
    let (client, connection) = connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn count(client: &Client, query: &str) -> usize {
    let count: i64 = client.query_one(&format!("SELECT count(*) FROM {query}"), &[]).await.unwrap().get(0);
    count.try_into().unwrap()
}

fn refund(charge: &Value, key: &str, amount: &str) -> Call {
    let charge = charge["id"].as_str().unwrap();
    Call::post("/v1/refunds", &format!("charge={charge}{amount}")).header("idempotency-key", key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_of_one_server_is_in_the_ledger_of_all_and_of_no_other_namespace() {
    let Some(database) = shared_server("one ledger for all servers") else { return };
    let directory = tempdir().unwrap();
    let servers = two(&directory, &database.url(), "--atomic --namespace atomic").map(|setup| setup.start());
    let call = Call::charge("charge", "tok_visa");
    let first = servers[0].send(&call).await;
    assert_eq!((first.status.as_u16(), first.is_replay()), (200, false), "{}", first.text());
    let [stranger, _] =
        two(&directory, &database.url(), "--atomic --namespace atomic-other").map(|setup| setup.start());
    let one = format!("/v1/charges/{}", first.json()["id"].as_str().unwrap());
    for server in &servers {
        let replay = server.send(&call).await;
        assert_eq!((replay.is_replay(), &replay.body), (true, &first.body));
        assert_eq!(server.charges().await, [first.json()]);
        assert_eq!(server.get(&one).await.json(), first.json());
        assert_eq!(server.get("/readyz").await.json()["ready"], true);
    }
    assert_eq!(stranger.get(&one).await.status, 404);
    assert!(stranger.charges().await.is_empty());
    assert!(!stranger.send(&call).await.is_replay());
    // A request without a key is charged, too, as often as it is sent.
    let keyless = Call::post("/v1/charges", "amount=7&currency=eur&source=tok_visa&description=%00%22%C3%A4");
    let [third, second] =
        [servers[1].send(&keyless).await, servers[0].send(&keyless).await].map(|answer| answer.json());
    assert_eq!(servers[0].charges().await, [second, third, first.json()], "the newest first");
    let newest = servers[1].get("/v1/charges?limit=1").await.json();
    assert_eq!(newest["data"].as_array().unwrap()[..], servers[0].charges().await[..1]);
    assert_eq!(newest["has_more"], true);
    // An answer without a charge is recorded as usual.
    let declined = Call::charge("declined", "tok_chargeDeclined");
    let [first, second] = [servers[0].send(&declined).await, servers[1].send(&declined).await];
    assert_eq!((first.status.as_u16(), second.is_replay(), first.body), (402, true, second.body));
    let [one, other] = servers;
    one.stop().await;
    other.stop().await;
    assert!(!directory.path().join("one/data").exists(), "nothing is kept next to the database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_crash_is_answered_with_the_one_charge() {
    let Some(database) = shared_server("a crash after charge and record") else { return };
    for policy in ["", "--on-interrupted refuse", "--on-interrupted reconcile"] {
        let directory = tempdir().unwrap();
        let namespace = format!("crash{}", policy.replace(' ', "-"));
        let arguments = format!("--atomic --lease 60 --namespace {namespace} {policy}");
        let [setup, other] = two(&directory, &database.url(), arguments.trim_end());
        let mut server = setup.start();
        let call = Call::charge("crash", "tok_crash");
        let mut connection = Connection::http1(server.address).await.unwrap();
        connection.send(&call).await.expect_err("it ends before it answers");
        assert_eq!(server.exit().await.code(), Some(70));
        for server in [other.start(), setup.start()] {
            let replay = server.send(&call).await;
            assert_eq!((replay.status.as_u16(), replay.is_replay()), (200, true), "{policy}: {}", replay.text());
            assert_eq!(server.charges().await, [replay.json()], "{policy}");
            assert!(server.interrupted().await.is_empty(), "{policy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_between_charges_and_their_records_leaves_neither() {
    const KEYS: usize = 4;
    let Some(database) = own_server("a server killed in mid-charge", &[]) else { return };
    let directory = tempdir().unwrap();
    let setups = two(&directory, &database.url(), "--atomic --lease 12");
    // Both start at once: each finds no tables.
    let [one, other] = setups.each_ref().map(|setup| setup.launch());
    let (one, other) = tokio::join!(one.listening(), other.listening());
    let (mut one, other) = (one.unwrap(), Arc::new(other.unwrap()));
    let keys = (0..KEYS).map(|key| Call::charge(&format!("key-{key}"), "tok_visa"));
    let calls: Vec<_> = keys.collect();

    // All runs reach their charge.
    let (mut ledger, mut records, look) = (client(&database).await, client(&database).await, client(&database).await);
    let ledger = ledger.transaction().await.unwrap();
    ledger.batch_execute("LOCK TABLE payment_server.charge IN EXCLUSIVE MODE").await.unwrap();
    let mut sent = Vec::new();
    for call in &calls {
        let (mut connection, call) = (Connection::http1(one.address).await.unwrap(), call.clone());
        sent.push(tokio::spawn(async move { connection.send(&call).await.is_ok() }));
    }
    one.charge_begun("tok_visa", KEYS).await;
    // They charge, and reach their record.
    let records = records.transaction().await.unwrap();
    let locked = records.query("SELECT FROM idempotency.record WHERE kind = 1 FOR UPDATE", &[]).await.unwrap();
    assert_eq!(locked.len(), KEYS);
    ledger.commit().await.unwrap();
    let waiting = "pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%record_run%'";
    until("all wait for their record", async || (count(&look, waiting).await == KEYS).then_some(())).await;
    let elsewhere: Vec<_> = calls
        .iter()
        .map(|call| {
            let (other, call) = (Arc::clone(&other), call.clone());
            tokio::spawn(async move { other.send_until_settled(&call).await })
        })
        .collect();
    one.kill();
    records.rollback().await.unwrap();
    assert!(join_all(sent).await.into_iter().all(|answered| !answered.unwrap()), "no client was answered");

    // The other server runs them again when the lease is over.
    let answers: Vec<_> = join_all(elsewhere).await.into_iter().map(Result::unwrap).collect();
    let one = setups[0].start();
    for (call, answer) in calls.iter().zip(&answers) {
        assert_eq!(answer.status, 200, "{}", answer.text());
        for server in [&one, &*other] {
            let replay = server.send(call).await;
            assert_eq!((replay.is_replay(), &replay.body), (true, &answer.body));
        }
    }
    let answered: HashSet<_> = answers.iter().map(|answer| answer.json()["id"].to_string()).collect();
    let charged: HashSet<_> = one.charges().await.iter().map(|charge| charge["id"].to_string()).collect();
    assert_eq!((answered.len(), &answered), (KEYS, &charged), "one charge for each key");
    assert_eq!(count(&look, "payment_server.charge").await, KEYS);
    assert!(one.interrupted().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_goes_to_any_server_and_takes_place_once() {
    let Some(database) = shared_server("refunds in a ledger of all servers") else { return };
    let directory = tempdir().unwrap();
    let [one, other] = two(&directory, &database.url(), "--atomic --namespace refunds").map(|setup| setup.start());
    let charge = one.send(&Call::charge("charge", "tok_visa")).await.json();
    let first = other.send(&refund(&charge, "part", "&amount=400")).await;
    assert_eq!((first.status.as_u16(), first.is_replay()), (200, false), "{}", first.text());
    let again = one.send(&refund(&charge, "part", "&amount=400")).await;
    assert_eq!((again.is_replay(), again.body), (true, first.body));
    assert_eq!(one.charges().await[0]["amount_refunded"], 400);
    // A refusal is recorded as any other answer.
    for (server, is_replay) in [(&one, false), (&other, true)] {
        let refused = server.send(&refund(&charge, "too-much", "&amount=601")).await;
        assert_eq!((refused.status.as_u16(), refused.is_replay()), (400, is_replay), "{}", refused.text());
    }
    let unknown = serde_json::json!({ "id": "ch_00000000000000000000000000000000" });
    assert_eq!(other.send(&refund(&unknown, "unknown", "")).await.status, 404);
    // Of two refunds of the rest, one finds no money left.
    let left = ["left", "left-too"].map(|key| refund(&charge, key, ""));
    let (first, second) = tokio::join!(one.send(&left[0]), other.send(&left[1]));
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "{} {}", first.text(), second.text());
    let charge = one.charges().await.remove(0);
    assert_eq!((&charge["amount_refunded"], &charge["refunded"]), (&1000.into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_dies_while_it_charges_costs_nobody_a_second_charge() {
    const KEYS: usize = 30;
    let Some(mut database) = own_server("a database that dies", &[]) else { return };
    let directory = tempdir().unwrap();
    let servers = two(&directory, &database.url(), "--atomic --lease 12").map(|setup| Arc::new(setup.start()));
    let some = Arc::new(Notify::new());
    // Each is sent to both, until it is charged.
    let sent: Vec<_> = (0..2 * KEYS)
        .map(|number| {
            let (server, call) =
                (Arc::clone(&servers[number % 2]), Call::charge(&format!("{}", number / 2), "tok_visa"));
            let charged = async move || {
                let answer = server.send(&call).await;
                assert!(matches!(answer.status.as_u16(), 200 | 409 | 503), "{}", answer.text());
                (answer.status == 200).then_some(answer.body)
            };
            let some = Arc::clone(&some);
            let charging = async move {
                let body = until("it is charged", charged).await;
                some.notify_one();
                body
            };
            (number / 2, tokio::spawn(charging))
        })
        .collect();
    timeout(Duration::from_secs(60), some.notified()).await.expect("some are charged");
    database.kill();
    database.start_again();
    let mut told = vec![HashSet::new(); KEYS];
    for (key, sent) in sent {
        told[key].insert(sent.await.unwrap());
    }
    assert!(told.iter().all(|answers| answers.len() == 1), "{told:?}");
    assert_eq!(count(&client(&database).await, "payment_server.charge").await, KEYS);
}
