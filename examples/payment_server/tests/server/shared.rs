//! Servers that share a database, PostgreSQL or Redis, each with a ledger of its own: one charge per key in all of them
//! together. `atomic.rs` has the servers with one ledger.

use std::time::Duration;

use tempfile::{TempDir, tempdir};
use testkit::payment_server::{Server, Setup};
use testkit::process::{eventually, signal};
use testkit::{Answer, Call};

/// Makes each of these functions a test over PostgreSQL, and one over Redis or Valkey. Each gets the database's URL.
macro_rules! over_each_database {
    ($($test:ident)+) => {
        #[cfg(feature = "postgres")]
        mod over_postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let Some(database) = testkit::postgres::shared_server(stringify!($test)) else { return };
                    super::$test(&database.url()).await;
                }
            )+
        }

        #[cfg(feature = "redis")]
        mod over_redis {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let Some(database) = testkit::redis::shared_server(stringify!($test)) else { return };
                    super::$test(&format!("{}?durability=memory", database.url())).await;
                }
            )+
        }
    };
}
pub(crate) use over_each_database;

over_each_database! {
    a_retry_on_the_other_server_is_answered_the_same_and_nothing_is_charged_twice
    trap_67_a_server_that_starts_leaves_the_charge_alone_that_another_is_making
    under_reconcile_a_ledger_answers_for_what_is_in_it_and_not_for_what_others_charged
}

/// The setups of the servers `one` and `other` over the database at `url`.
pub(crate) fn two(directory: &TempDir, url: &str, arguments: &str) -> [Setup; 2] {
    let store = format!("--store {url} {arguments}");
    ["one", "other"].map(|name| Setup::new(directory.path().join(name)).with(&store))
}

/// Sends a charge with `tok_slow`, and returns once its handler has begun: what waits for its answer.
pub(crate) async fn charging<'a>(server: &'a Server, call: &'a Call) -> impl Future<Output = Answer> + use<'a> {
    let mut charging = Box::pin(server.send(call));
    tokio::select! {
        answer = &mut charging => panic!("answered too early: {answer:?}"),
        () = server.charge_begun("tok_slow", 1) => {}
    }
    charging
}

/// Returns the number of charges in the ledgers together.
pub(crate) async fn charges(servers: [&Server; 2]) -> usize {
    servers[0].charges().await.len() + servers[1].charges().await.len()
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

async fn a_retry_on_the_other_server_is_answered_the_same_and_nothing_is_charged_twice(url: &str) {
    let directory = tempdir().unwrap();
    let servers = two(&directory, url, "--namespace retry --lease 60").map(|setup| setup.start());
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
    let [stranger, _] = two(&directory, url, "--namespace stranger").map(|setup| setup.start());
    assert!(!stranger.send(&Call::charge("retry-0", "tok_visa")).await.is_replay());
}

// "A store opened twice: each takes the other's living runs for dead." Here the other may be another server.
async fn trap_67_a_server_that_starts_leaves_the_charge_alone_that_another_is_making(url: &str) {
    let directory = tempdir().unwrap();
    let arguments = "--namespace start --lease 600 --on-interrupted reconcile --on-in-flight reject";
    let [one, other] = two(&directory, url, arguments);
    let one = one.start();
    let call = Call::charge("start", "tok_slow");
    let charging = charging(&one, &call).await;
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

async fn under_reconcile_a_ledger_answers_for_what_is_in_it_and_not_for_what_others_charged(url: &str) {
    let directory = tempdir().unwrap();
    // Duplicates do not wait: a waiter would get the run's end, and the ledger would not be asked.
    let arguments = "--namespace reconcile --lease 12 --on-interrupted reconcile --on-in-flight reject";
    let [setup, other] = two(&directory, url, arguments);
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
