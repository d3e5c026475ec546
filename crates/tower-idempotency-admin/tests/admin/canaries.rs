//! No key, owner or body of a client is on the page, in the API, or in the log.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use testkit::log::Log;

use crate::desk::Desk;
use crate::document::form;

const COUNT: usize = 1_000;

#[tokio::test]
async fn none_of_1_000_keys_accounts_and_bodies_is_on_a_page_or_in_the_log() {
    let log = Log::begin(tracing::Level::TRACE);
    let desk = Desk::new();
    let header = |name: &'static str, value: String| {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap())])
    };
    let mut shown = String::new();
    for number in 0..COUNT {
        let (key, account) = (format!("canary-key-{number}-"), format!("canary-account-{number}-"));
        let body = if number % 2 == 0 { format!("canary-body-{number}-") } else { "unknown".to_owned() };
        desk.charge_with(&key, &body, header("x-account", account)).await;
    }
    let find = form(desk.get("").await.text(), "do", "find");
    for number in 0..COUNT {
        let (key, account) = (format!("canary-key-{number}-"), format!("canary-account-{number}-"));
        let found = desk.submit(&find, &[("key", &key), ("owner", &account)]).await;
        assert_eq!(found.status, 303, "{key}");
        let id = found.header("location").unwrap();
        shown.push_str(&format!("{:?}", found.headers));
        shown.push_str(desk.get(id).await.text());
        shown.push_str(desk.submit(&find, &[("key", &key), ("owner", "canary-account-x")]).await.text());
        let found = desk.json("/api/find", json!({ "key": key, "scope": [account] })).await;
        assert!(found.json()["operation"].is_object());
        shown.push_str(found.text());
        // What is wrong with a request is said without repeating it.
        for wrong in
            [json!({ "key": format!("{key}\u{e9}") }), json!({ "key": [key] }), json!({ "kay": key }), json!(key)]
        {
            let answer = desk.json("/api/find", wrong).await;
            assert_eq!(answer.status, 400);
            shown.push_str(answer.text());
        }
    }
    for path in ["?state=any", "?state=interrupted", "/api/stats", "/api/disputed"] {
        shown.push_str(desk.get(path).await.text());
    }
    for state in ["interrupted", "completed"] {
        let listed = desk.listed(state).await;
        assert_eq!(listed.len(), COUNT / 2);
        let changes: Vec<_> = listed
            .iter()
            .map(|operation| {
                let action = if state == "completed" { "forget" } else { "release" };
                json!({ "id": operation["id"], "fence": operation["fence"], "action": action })
            })
            .collect();
        shown.push_str(&json!(listed).to_string());
        let results = desk.json("/api/changes", json!({ "changes": changes })).await;
        assert_eq!(results.text().matches(r#""done""#).count(), COUNT / 2);
        shown.push_str(results.text());
    }
    assert!(!shown.contains("canary"), "{}", &shown[shown.find("canary").unwrap_or(0)..][..200]);
    let log = log.everything();
    assert_eq!(log.matches("an operator changed an operation").count(), COUNT);
    assert!(!log.contains("canary"), "{}", &log[log.find("canary").unwrap_or(0)..][..200]);
}

#[tokio::test]
async fn a_body_is_shown_on_request_alone() {
    let desk = Desk::new();
    desk.charge("k", "canary-body").await;
    let (id, _) = desk.found("k").await;
    assert!(!desk.get(&format!("?id={id}")).await.text().contains("canary"));
    assert!(!desk.get(&format!("/api/operations/{id}")).await.text().contains("canary"));
    assert!(desk.get(&format!("?id={id}&body=shown")).await.text().contains("charged canary-body"));
    let outcome = desk.get(&format!("/api/operations/{id}/outcome")).await.json();
    assert_eq!((&outcome["status"], &outcome["body"]), (&json!(200), &json!("charged canary-body")));
}
