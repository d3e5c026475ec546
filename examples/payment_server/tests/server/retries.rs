//! A key is charged once, whatever its client does.

use tempfile::tempdir;
use testkit::payment_server::{Server, Setup};
use testkit::{Answer, Call, Connection};
use tokio::task::JoinSet;

/// The id of the charge that an answer shows.
fn charge_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["id"].as_str().expect("a charge has an id").to_owned()
}

/// Sends `call` over this number of connections at once.
async fn at_once(server: &Server, call: &Call, connections: usize) -> Vec<Answer> {
    let address = server.address;
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(connections));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (call, barrier) = (call.clone(), barrier.clone());
        clients.spawn(async move {
            let mut connection = Connection::http1(address).await.expect("the server listens");
            barrier.wait().await;
            connection.send(&call).await.expect("the server answers")
        });
    }
    clients.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_sent_twice_is_charged_once_and_answered_the_same() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let call = Call::charge("once", "tok_visa");
    let first = server.send(&call).await;
    let second = server.send(&call).await;
    assert_eq!(server.charges().await.len(), 1);
    assert_eq!(server.charges().await[0]["id"], charge_of(&first));
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert!(!first.is_replay());
    assert!(second.is_replay());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_copies_at_once_charge_once() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).with("--on-in-flight reject").start();
    let answers = at_once(&server, &Call::charge("copies", "tok_visa"), 200).await;
    let charges = server.charges().await;
    assert_eq!(charges.len(), 1);
    let mut charged = 0;
    for answer in answers {
        if answer.status == 200 {
            assert_eq!(charge_of(&answer), charges[0]["id"]);
            charged += usize::from(!answer.is_replay());
        } else {
            assert_eq!(answer.refusal(), (409, "in-flight".to_owned()));
            assert_eq!(answer.headers["retry-after"], "1");
            assert_eq!(answer.headers["stripe-should-retry"], "true");
        }
    }
    assert_eq!(charged, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_copies_that_wait_all_get_the_charge() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).with("--on-in-flight wait:60").start();
    let answers = at_once(&server, &Call::charge("waiting", "tok_slow"), 200).await;
    let charges = server.charges().await;
    assert_eq!(charges.len(), 1);
    assert_eq!(answers.len(), 200);
    for answer in &answers {
        assert_eq!(charge_of(answer), charges[0]["id"]);
        assert_eq!(answer.body, answers[0].body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_has_charged_once_and_its_retry_is_a_replay() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).with("--on-in-flight reject").start();
    let call = Call::charge("hang-up", "tok_slow");
    drop(server.charging_slowly(&call).await);
    let retry = server.send_until_settled(&call).await;
    assert!(retry.is_replay());
    let charges = server.charges().await;
    assert_eq!(charges.len(), 1);
    assert_eq!(charges[0]["id"], charge_of(&retry));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_over_http1_is_replayed_over_http2_and_the_other_way_round() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let mut one = Connection::http1(server.address).await.unwrap();
    let mut two = Connection::http2(server.address).await.unwrap();
    let (from_one, from_two) = (Call::charge("from-1", "tok_visa"), Call::charge("from-2", "tok_visa"));
    let firsts = [one.send(&from_one).await.unwrap(), two.send(&from_two).await.unwrap()];
    let seconds = [two.send(&from_one).await.unwrap(), one.send(&from_two).await.unwrap()];
    for (first, second) in firsts.iter().zip(&seconds) {
        assert!(!first.is_replay() && second.is_replay());
        assert_eq!((charge_of(first), &first.body), (charge_of(second), &second.body));
    }
    assert_eq!(server.charges().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_of_two_accounts_is_two_charges_and_each_sees_its_own() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let accounts = ["Bearer alice", "Basic Ym9iOg=="];
    let mut charges = Vec::new();
    for account in accounts {
        let call = Call::charge("shared", "tok_visa").header("authorization", account);
        let first = server.send(&call).await;
        assert!(!first.is_replay());
        assert!(server.send(&call).await.is_replay());
        charges.push(charge_of(&first));
    }
    assert_ne!(charges[0], charges[1]);
    for (own, account) in accounts.into_iter().enumerate() {
        let get = |path: &str| Call::get(path).header("authorization", account);
        let list = server.send(&get("/v1/charges")).await.json();
        assert_eq!(list["data"].as_array().unwrap().len(), 1);
        assert_eq!(list["data"][0]["id"], charges[own]);
        assert_eq!(server.send(&get(&format!("/v1/charges/{}", charges[own]))).await.status, 200);
        assert_eq!(server.send(&get(&format!("/v1/charges/{}", charges[1 - own]))).await.status, 404);
    }
    assert!(server.charges().await.is_empty(), "the demo account is a third one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reused_for_another_charge_is_refused_as_stripe_clients_understand_it() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    server.send(&Call::charge("reused", "tok_visa")).await;
    let other = Call { body: "amount=2000&currency=eur&source=tok_visa".to_owned(), ..Call::charge("reused", "") };
    let refused = server.send(&other).await;
    assert_eq!(refused.refusal(), (422, "key-reused".to_owned()));
    assert_eq!(refused.headers["stripe-should-retry"], "false");
    let problem = refused.json();
    assert_eq!(problem["retry_with_same_key"], false);
    assert_eq!(problem["error"]["type"], "idempotency_error");
    assert_eq!(problem["error"]["code"], "key_reused");
    assert_eq!(problem["error"]["message"], problem["detail"]);
    assert_eq!(server.charges().await.len(), 1);
}
