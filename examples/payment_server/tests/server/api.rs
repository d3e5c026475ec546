//! The server's own answers, apart from the layer.

use std::collections::HashSet;

use serde_json::json;
use tempfile::tempdir;
use testkit::payment_server::{Server, Setup};
use testkit::{Answer, Call, Connection};
use tower_idempotency::Scope;

fn charge(body: &str) -> Call {
    Call::post("/v1/charges", body)
}

async fn wrong(server: &Server, call: Call, status: u16, param: &str) {
    let answer = server.send(&call).await;
    assert_eq!(answer.status, status, "{call:?}: {}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["type"], "invalid_request_error", "{call:?}");
    assert_eq!(error["param"], param, "{call:?}");
    assert!(error["message"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_refused_and_says_which_field() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    for amount in ["0", "-5", "1.5", "ten", ""] {
        wrong(&server, charge(&format!("amount={amount}&currency=eur&source=tok_visa")), 400, "amount").await;
    }
    wrong(&server, charge("currency=eur&source=tok_visa"), 400, "amount").await;
    wrong(&server, charge("amount=5&currency=euro&source=tok_visa"), 400, "currency").await;
    wrong(&server, charge("amount=5&currency=e1r&source=tok_visa"), 400, "currency").await;
    wrong(&server, charge("amount=5&currency=eur&source=tok_none"), 400, "source").await;
    wrong(&server, charge("amount=5&currency=eur"), 400, "source").await;
    let long = "x".repeat(501);
    let call = charge(&format!("amount=5&currency=eur&source=tok_visa&description={long}"));
    wrong(&server, call, 400, "description").await;
    let call = charge(r#"{"amount":true}"#).header("content-type", "application/json");
    wrong(&server, call, 400, "amount").await;
    let not_json = charge("amount=5").header("content-type", "application/json");
    assert_eq!(server.send(&not_json).await.status, 400);
    for limit in ["0", "1000001", "x"] {
        wrong(&server, Call::get(&format!("/v1/charges?limit={limit}")), 400, "limit").await;
    }
    assert!(server.charges().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_wrong_in_itself_leaves_its_key_to_the_corrected_one() {
    let directory = tempdir().unwrap();
    for options in ["--on-interrupted refuse", "--on-interrupted rerun", "--atomic", "--store memory"] {
        let server = Setup::new(&directory).with(options).start();
        let before = server.charges().await.len();
        let call =
            |body: &str| charge(body).header("idempotency-key", &format!("corrected {options}").replace(' ', "-"));
        for _ in 0..2 {
            let wrong = server.send(&call("amount=abc&currency=eur&source=tok_visa")).await;
            assert_eq!((wrong.status.as_u16(), wrong.is_replay()), (400, false), "{options}: {}", wrong.text());
        }
        let corrected = call("amount=1000&currency=eur&source=tok_visa");
        let [first, retry] = [server.send(&corrected).await, server.send(&corrected).await];
        assert_eq!((first.status.as_u16(), first.is_replay()), (200, false), "{options}: {}", first.text());
        assert_eq!((retry.is_replay(), retry.body), (true, first.body), "{options}");
        assert_eq!(server.charges().await.len(), before + 1, "{options}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_as_things_are_is_an_outcome() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let id = server.send(&Call::charge("charge", "tok_visa")).await.json()["id"].as_str().unwrap().to_owned();
    let none = "ch_00000000000000000000000000000000";
    for (key, fields, status) in
        [("too-much", format!("charge={id}&amount=1001"), 400), ("none", format!("charge={none}"), 404)]
    {
        for is_replay in [false, true] {
            let refused = server.send(&Call::post("/v1/refunds", &fields).header("idempotency-key", key)).await;
            assert_eq!((refused.status.as_u16(), refused.is_replay()), (status, is_replay), "{}", refused.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_reads_as_stripes_do_form_encoded_or_json() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let form = charge("amount=1234&currency=EUR&source=tok_visa&description=Tea+%26+cake");
    let json = json!({ "amount": 1234, "currency": "eur", "source": "tok_visa", "description": "Tea & cake" });
    let json = charge(&json.to_string()).header("content-type", "application/json");
    for call in [form, json] {
        let charge = server.send(&call).await.json();
        assert!(charge["id"].as_str().unwrap().starts_with("ch_"));
        assert!(charge["created"].as_u64().unwrap() > 1_700_000_000);
        let expected = [
            ("object", json!("charge")),
            ("amount", json!(1234)),
            ("currency", json!("eur")),
            ("description", json!("Tea & cake")),
            ("status", json!("succeeded")),
            ("paid", json!(true)),
        ];
        for (member, value) in expected {
            assert_eq!(charge[member], value);
        }
        let id = charge["id"].as_str().unwrap();
        assert_eq!(server.get(&format!("/v1/charges/{id}")).await.json(), charge);
    }
    let missing = server.get("/v1/charges/ch_00000000000000000000000000000000").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["code"], "resource_missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_newest_first_and_says_whether_there_are_more() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let mut connection = Connection::http1(server.address).await.unwrap();
    for amount in 1..=101 {
        let call = charge(&format!("amount={amount}&currency=eur&source=tok_visa"));
        assert_eq!(connection.send(&call).await.unwrap().status, 200);
    }
    for (query, count, more) in [("", 100, true), ("?limit=2", 2, true), ("?limit=101", 101, false)] {
        let list = server.get(&format!("/v1/charges{query}")).await.json();
        assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(more)));
        let amounts: Vec<_> = list["data"].as_array().unwrap().iter().map(|charge| charge["amount"].clone()).collect();
        let expected: Vec<_> = (1..=101).rev().take(count).map(|amount| json!(amount)).collect();
        assert_eq!(amounts, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_charge_is_refunded_and_a_refund_is_replayed() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let id = server.send(&Call::charge("charge", "tok_visa")).await.json()["id"].as_str().unwrap().to_owned();
    let refund = |amount: &str| Call::post("/v1/refunds", &format!("charge={id}{amount}"));
    let part = refund("&amount=600").header("idempotency-key", "refund");
    let first = server.send(&part).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(first.json()["object"], "refund");
    assert_eq!(first.json()["amount"], 600);
    let second = server.send(&part).await;
    assert!(second.is_replay());
    assert_eq!(second.body, first.body);
    wrong(&server, refund("&amount=401"), 400, "amount").await;
    assert_eq!(server.send(&refund("")).await.json()["amount"], 400, "without an amount: what is left");
    wrong(&server, refund(""), 400, "amount").await;
    let charge = server.get(&format!("/v1/charges/{id}")).await.json();
    assert_eq!((&charge["amount_refunded"], &charge["refunded"]), (&json!(1000), &json!(true)));
    let unknown = Call::post("/v1/refunds", "charge=ch_00000000000000000000000000000000");
    wrong(&server, unknown.clone(), 404, "charge").await;
    assert_eq!(server.send(&unknown).await.json()["error"]["code"], "resource_missing");
    // Trap 21: an order's key on another route.
    let reused = refund("").header("idempotency-key", "charge");
    assert_eq!(server.send(&reused).await.refusal(), (422, "key-reused".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_an_unknown_kind_are_refused_with_and_without_a_key() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let keyed = Call::charge("who", "tok_visa");
    for call in [keyed, charge("amount=5&currency=eur&source=tok_visa"), Call::get("/v1/charges")] {
        for credentials in ["Digest x", "Bearer", "alice"] {
            let refused = server.send(&call.clone().header("authorization", credentials)).await;
            assert_eq!(refused.refusal(), (401, "custom".to_owned()));
            assert_eq!(refused.json()["error"]["type"], "authentication_error");
            assert!(refused.headers.contains_key("www-authenticate"));
        }
    }
    assert!(server.charges().await.is_empty());
}

/// `idem find` takes the parts of a scope.
#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_idem_has_the_scope_of_this_server() {
    let guide = include_str!("../../../../docs/running/idem.md");
    let (_, digits) = guide.split_once(r"printf '%s\n' '\x").unwrap();
    let (digits, _) = digits.split_once('\'').unwrap();
    let part: Vec<_> =
        (0..digits.len() / 2).map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).unwrap()).collect();
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let call = Call::charge("order-17", "tok_visa").header("authorization", "Bearer alice");
    assert_eq!(server.send(&call).await.status, 200);
    let listed = server.send(&Call::operator("/admin/api/operations")).await.json();
    let digest: String = Scope::new(part).unwrap().digest().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(listed["operations"][0]["scope"], digest);
}

/// Sends `call`; the answer repeats its key, as it came, and has a request id that no other answer has had.
async fn named(server: &Server, call: Call, ids: &mut HashSet<String>) -> Answer {
    let answer = server.send(&call).await;
    let key = call.headers.iter().find(|(name, _)| *name == "idempotency-key").map(|(_, key)| key.as_str());
    assert_eq!(answer.header("idempotency-key"), key, "{call:?}");
    let id = answer.header("request-id").expect("each answer has an id").to_owned();
    assert!(id.starts_with("req_") && id.len() == 36, "{id}");
    assert_eq!(answer.headers.get_all("request-id").iter().count(), 1);
    assert!(ids.insert(id), "{call:?}: the id of another answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_repeats_its_key_and_has_a_request_id_of_its_own_replays_and_refusals_too() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let mut ids = HashSet::new();
    assert!(!named(&server, Call::charge("k", "tok_visa"), &mut ids).await.is_replay());
    for _ in 0..2 {
        assert!(named(&server, Call::charge("k", "tok_visa"), &mut ids).await.is_replay());
    }
    let quoted = named(&server, Call::charge("\"k\"", "tok_visa"), &mut ids).await;
    assert!(quoted.is_replay(), "it is the same key");
    let reused = named(&server, Call::charge("k", "tok_slow"), &mut ids).await;
    assert_eq!(reused.refusal(), (422, "key-reused".to_owned()));
    let malformed = named(&server, Call::charge("a b", "tok_visa"), &mut ids).await;
    assert_eq!(malformed.refusal(), (400, "key-malformed".to_owned()));
    for path in ["/v1/charges", "/readyz", "/nowhere"] {
        named(&server, Call::get(path), &mut ids).await;
    }
}
