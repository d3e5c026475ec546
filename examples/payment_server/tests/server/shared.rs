//! Servers that share a PostgreSQL database, each with a ledger of its own: one charge per key in all of them together.
//! `atomic.rs` has the servers with one ledger.

use std::time::Duration;

use serde_json::Value;
use tempfile::{TempDir, tempdir};
use testkit::Call;
use testkit::payment_server::{Server, Setup};
use testkit::postgres::{PostgresServer, own_server, shared_server};
use testkit::process::{eventually, signal};

use super::stores::refusal;

/// The setups of the servers `one` and `other`.
pub(crate) fn two(directory: &TempDir, database: &PostgresServer, arguments: &str) -> [Setup; 2] {
    let store = format!("--store {} {arguments}", database.url());
    ["one", "other"].map(|name| Setup::new(directory.path().join(name)).with(&store))
}

/// Returns the number of charges in the ledgers together.
async fn charges(servers: [&Server; 2]) -> usize {
    servers[0].charges().await.len() + servers[1].charges().await.len()
}

async fn disputed(server: &Server) -> Vec<Value> {
    server.send(&Call::operator("/admin/api/disputed")).await.json()["operations"].as_array().unwrap().clone()
}

/// Asks again and again until there is a result.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never came about: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_on_the_other_server_is_answered_the_same_and_nothing_is_charged_twice() {
    let Some(database) = shared_server("a retry on another payment server") else { return };
    let directory = tempdir().unwrap();
    let servers = two(&directory, database, "--namespace retry --lease 60").map(|setup| setup.start());
    for (first, second) in [(0, 1), (1, 0)] {
        let call = Call::charge(&format!("retry-{first}"), "tok_visa");
        let (answer, retry) = (servers[first].send(&call).await, servers[second].send(&call).await);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!((retry.status, &retry.body), (answer.status, &answer.body));
        assert_eq!(retry.headers["idempotent-replayed"], "true");
        assert!(!answer.is_replay());
        assert_eq!(charges([&servers[0], &servers[1]]).await, first + 1, "in both ledgers");
        // Another request with the same key is refused there, too.
        let other = servers[second].send(&Call::charge(&format!("retry-{first}"), "tok_chargeDeclined")).await;
        assert_eq!(other.refusal(), (422, "key-reused".to_owned()));
        assert_eq!(servers[second].get("/readyz").await.json()["ready"], true);
    }
    let [one, other] = servers;
    one.stop().await;
    other.stop().await;
    // Another namespace does not know the key.
    let [stranger, _] = two(&directory, database, "--namespace stranger").map(|setup| setup.start());
    assert!(!stranger.send(&Call::charge("retry-0", "tok_visa")).await.is_replay());
}

// "A store opened twice: each takes the other's living runs for dead." Here the other may be another server.
#[tokio::test(flavor = "multi_thread")]
async fn trap_67_a_server_that_starts_leaves_the_charge_alone_that_another_is_making() {
    let Some(database) = shared_server("a server that starts next to a living one") else { return };
    let directory = tempdir().unwrap();
    let arguments = "--namespace start --lease 600 --on-interrupted reconcile --on-in-flight reject";
    let [one, other] = two(&directory, database, arguments);
    let one = one.start();
    let call = Call::charge("start", "tok_slow");
    let mut charging = Box::pin(one.send(&call));
    tokio::select! {
        answer = &mut charging => panic!("answered too early: {answer:?}"),
        () = one.charge_begun("tok_slow", 1) => {}
    }
    // It stalls while the other one starts.
    signal(one.id(), "STOP");
    let other = other.start();
    let none = || other.log.text().contains("no interrupted operations").then_some(());
    eventually("that nothing is interrupted", none).await;
    assert_eq!(other.send(&call).await.refusal(), (409, "in-flight".to_owned()));
    assert!(other.interrupted().await.is_empty());
    signal(one.id(), "CONT");
    let answer = charging.await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let replay = other.send_until_settled(&call).await;
    assert_eq!((replay.is_replay(), &replay.body), (true, &answer.body));
    assert_eq!(charges([&one, &other]).await, 1);
    assert!(!other.log.text().contains("reconciled"), "{}", other.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_reconcile_a_ledger_answers_for_what_is_in_it_and_not_for_what_others_charged() {
    let Some(database) = shared_server("reconcile with several ledgers") else { return };
    let directory = tempdir().unwrap();
    // Duplicates do not wait: a waiter would get the run's end, and the ledger would not be asked.
    let arguments = "--namespace reconcile --lease 12 --on-interrupted reconcile --on-in-flight reject";
    let [setup, other] = two(&directory, database, arguments);
    let (mut one, other) = (setup.start(), other.start());
    let call = Call::charge("crash", "tok_crash");
    let mut connection = testkit::Connection::http1(one.address).await.unwrap();
    assert!(connection.send(&call).await.is_err(), "it ends before it answers");
    assert_eq!(one.exit().await.code(), Some(70));
    // The lease is over. This ledger has no charge, which does not mean that no server charged.
    assert_eq!(other.send_until_settled(&call).await.refusal(), (409, "outcome-unknown".to_owned()));
    let one = setup.start();
    let found = one.send_until_settled(&call).await;
    assert_eq!((found.status.as_u16(), found.is_replay()), (200, true), "{}", found.text());
    assert_eq!(found.json()["id"], one.charges().await[0]["id"]);
    let replay = other.send_until_settled(&call).await;
    assert_eq!((replay.is_replay(), &replay.body), (true, &found.body));
    assert_eq!(charges([&one, &other]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_ends_after_an_operator_freed_its_key_is_listed_as_disputed() {
    let Some(database) = shared_server("disputed charges") else { return };
    let directory = tempdir().unwrap();
    let [one, other] = two(&directory, database, "--namespace disputed --lease 12").map(|setup| setup.start());
    let call = Call::charge("disputed", "tok_slow");
    let mut charging = Box::pin(one.send(&call));
    tokio::select! {
        answer = &mut charging => panic!("answered too early: {answer:?}"),
        () = one.charge_begun("tok_slow", 1) => {}
    }
    signal(one.id(), "STOP");
    let listed = until("the lease is over", async || other.interrupted().await.pop()).await;
    assert!(disputed(&other).await.is_empty());
    assert_eq!(other.release(&listed).await, "done");
    signal(one.id(), "CONT");
    assert_eq!(charging.await.refusal(), (500, "outcome-unknown".to_owned()));
    for server in [&other, &one] {
        let line = until("a disputed outcome", async || disputed(server).await.pop()).await;
        assert_eq!((line["id"].as_str(), line["fence"].as_str()), (Some(&*listed.id), Some(&*listed.fence)));
        assert!(line["since"].as_str().is_some_and(|since| since.starts_with("20")), "{line}");
        let outcome = format!("/admin/api/operations/{}/outcome?disputed={}", listed.id, listed.fence);
        let outcome = server.send(&Call::operator(&outcome)).await.json();
        assert!(outcome["body"].as_str().is_some_and(|body| body.contains("\"amount\":")), "{outcome}");
    }
    assert_eq!(charges([&one, &other]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_while_the_database_is_away_and_no_server_has_to_be_started_again() {
    let Some(mut database) = own_server("a database that is away", &[]) else { return };
    let directory = tempdir().unwrap();
    let [setup, _] = two(&directory, &database, "--lease 12");
    let server = setup.start();
    let call = Call::charge("away", "tok_visa");
    assert_eq!(server.send(&call).await.status, 200);
    database.kill();
    let health = async |status: u16| {
        let health = server.get("/readyz").await;
        (health.status == status).then(|| health.json())
    };
    let away = until("the database is away", async || health(503).await).await;
    let stores = serde_json::json!([{ "store": "postgres", "reasons": ["away"] }, { "store": "sled", "reasons": [] }]);
    assert_eq!((&away["live"], &away["stores"]), (&true.into(), &stores));
    let refused = server.send(&Call::charge("new", "tok_visa")).await.refusal();
    assert_eq!(refused, (503, "store-unavailable".to_owned()), "{}", server.log.text());
    let known = server.send(&call).await;
    assert!(known.is_replay(), "it is known here, and was answered {known:?}: {}", server.log.text());
    database.start_again();
    until("the database is back", async || health(200).await).await;
    let charged = server.send_until_taken(&Call::charge("new", "tok_visa")).await;
    assert_eq!(charged.status, 200, "{}", charged.text());
    assert!(!charged.is_replay());
    assert_eq!(server.charges().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_logged() {
    let Some(database) = shared_server("that a password is not logged") else { return };
    let directory = tempdir().unwrap();
    let url = database.url().replace("postgres@", "postgres:s3cr3t@");
    let setup = Setup::new(&directory).log("trace").with(&format!("--store {url} --namespace password"));
    let server = setup.start();
    assert_eq!(server.send(&Call::charge("k", "tok_visa")).await.status, 200);
    let log = server.log.clone();
    server.stop().await;
    eventually("the last line", || log.text().contains("stopped").then_some(())).await;
    assert!(log.text().contains("TRACE") && !log.text().contains("s3cr3t"));
    let wrong = Setup::new(&directory).with(&format!("--store {}", url.replace("postgres:s", "nobody:s")));
    let said = refusal(&wrong, 1).await;
    assert!(said.contains("the database has refused") && !said.contains("s3cr3t"), "{said}");
}
