//! Nothing without the hook's word.

use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{Request, Response, StatusCode};
use serde_json::json;
use tower_idempotency::MemoryStore;
use tower_idempotency_admin::{Access, AdminPage, Permission};

use crate::desk::{Desk, PATH, from, layer};
use crate::document::forms;

const READS: [&str; 9] = [
    "", "?file=style.css", "?file=script.js", "?id=00", "/api/openapi.json", "/api/stats", "/api/operations",
    "/api/operations/00", "/api/disputed",
];
const CHANGES: [&str; 4] = ["", "/api/find", "/api/changes", "/api/purge"];

#[tokio::test]
async fn a_caller_whom_the_hook_does_not_know_gets_its_answer_and_nothing_else() {
    let desk = Desk::new();
    for path in READS {
        let request = Request::get(format!("{PATH}{path}")).body(Body::empty()).unwrap();
        let answer = desk.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (401, ""), "{path}");
    }
    for path in CHANGES {
        let request = Request::post(format!("{PATH}{path}")).header("sec-fetch-site", "same-origin");
        let answer = desk.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (401, ""), "{path}");
    }
}

#[tokio::test]
async fn the_hooks_own_answer_keeps_its_headers_and_can_not_be_framed() {
    let operations = layer(MemoryStore::new()).operations();
    let page = AdminPage::new(operations, async |_| {
        let sign_in = Response::builder().status(302).header("location", "/sign-in").header("cache-control", "private");
        Err(sign_in.body(Body::empty()).unwrap_or_else(|_| StatusCode::UNAUTHORIZED.into_response()))
    });
    let answer = Desk::of(layer(MemoryStore::new()), page).get("").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, Some("/sign-in")));
    assert_eq!(answer.header("cache-control"), Some("private"));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert_eq!(answer.header("content-security-policy"), Some("frame-ancestors 'none'"));
}

#[tokio::test]
async fn a_caller_without_access_gets_403_everywhere() {
    let desk = Desk::permitting(Access::NONE.and(Permission::Release));
    for path in READS {
        assert_eq!(desk.get(path).await.status, 403, "{path}");
    }
    for path in CHANGES {
        assert_eq!(desk.post(path, "").await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_caller_who_may_read_can_not_act_and_is_offered_no_button() {
    let (reader, all) = (Desk::permitting(Access::READ), Access::ALL);
    let desk = Desk::over(reader.layer.clone(), all);
    let open = desk.interrupted("open").await;
    desk.charge("done", "17").await;
    let done = desk.found("done").await;
    for (operation, actions) in [(&open, ["answer", "release", "reconcile"].as_slice()), (&done, &["forget"])] {
        let (id, fence) = operation;
        for action in actions {
            let answer = json!({ "status": 200 });
            let change = json!({ "id": id, "fence": fence, "action": action, "answer": (*action == "answer").then_some(answer) });
            assert_eq!(reader.json("/api/changes", json!({ "changes": [change] })).await.status, 403, "{action}");
            for step in ["review", "apply"] {
                let body = format!("do={step}&action={action}&row={id}:{fence}&status=200&body=x");
                assert_eq!(reader.post("?settle", &body).await.status, 403, "{step} {action}");
                let all = format!("do={step}&all={action}&action={action}&matching=%3Fstate%3Dany");
                assert_eq!(reader.post("?settle", &all).await.status, 403, "{step} all: {action}");
            }
        }
        let page = reader.get(&format!("?id={id}")).await;
        assert_eq!((page.status.as_u16(), forms(page.text())), (200, Vec::new()));
        assert!(page.text().contains("Your access does not include what can be done with it."), "{}", page.text());
        assert_eq!(reader.get(&format!("?id={id}&body=shown")).await.status, 403);
        assert_eq!(reader.get(&format!("/api/operations/{id}/outcome")).await.status, 403);
    }
    assert_eq!(reader.json("/api/purge", json!({ "older_than": "0s" })).await.status, 403);
    let list = reader.get("?state=any").await;
    assert!(forms(list.text()).iter().all(|form| !form.has("do", "review")), "{}", list.text());
    assert_eq!(desk.listed("interrupted").await.len() + desk.listed("completed").await.len(), 2);
}

#[tokio::test]
async fn a_caller_may_do_what_is_permitted_and_nothing_else() {
    let desk = Desk::permitting(Access::READ.and(Permission::Release));
    let open = desk.interrupted("open").await;
    desk.charge("done", "17").await;
    let done = desk.found("done").await;
    assert_eq!(desk.change(&done, "forget").await.status, 403);
    // All or nothing: what comes first is not done either.
    let both = [(&open, "release"), (&done, "forget")]
        .map(|((id, fence), action)| json!({ "id": id, "fence": fence, "action": action }));
    assert_eq!(desk.json("/api/changes", json!({ "changes": both })).await.status, 403);
    assert_eq!(desk.listed("interrupted").await.len(), 1);
    let page = desk.get(&format!("?id={}", open.0)).await;
    assert_eq!(forms(page.text()).len(), 1, "{}", page.text());
    assert!(page.text().contains("refuse: retries are refused until this is settled"), "{}", page.text());
    assert!(!page.text().contains("Your access does not include"), "{}", page.text());
    assert_eq!(desk.change(&open, "release").await.json()["results"][0]["result"], "done");
}

#[tokio::test]
async fn whom_the_hook_names_is_asked_for_each_request() {
    let desk = Desk::new();
    let request = from(Request::get(PATH)).header("x-operator", "mallory").body(Body::empty()).unwrap();
    // The hook takes the first line; the page shows whom it took.
    assert!(desk.send(request).await.text().contains("<bdi>alice</bdi>"));
}

// Seeded fault: a state, or a status, is enough.
#[tokio::test]
async fn a_purge_says_an_age_or_a_scope_whatever_else_it_says() {
    let desk = Desk::new();
    desk.charge("k", "17").await;
    let conditions = [("state", json!("completed")), ("status", json!(200)), ("older_than", json!("1h"))];
    for chosen in 0..1 << conditions.len() {
        let is_chosen = |number: &usize| chosen & (1 << number) != 0;
        let body = (0..conditions.len()).filter(is_chosen).map(|number| conditions[number].clone());
        let body: serde_json::Map<_, _> = body.map(|(name, value)| (name.to_owned(), value)).collect();
        let has_age = body.contains_key("older_than");
        let answer = desk.json("/api/purge", body.clone().into()).await;
        assert_eq!(answer.status, if has_age { 200 } else { 400 }, "{body:?}: {}", answer.text());
        // Nothing is that old.
        assert_eq!(desk.listed("completed").await.len(), 1, "{body:?}");
    }
    let scope = desk.listed("completed").await[0]["scope"].clone();
    let purged = desk.json("/api/purge", json!({ "scope": scope })).await;
    assert_eq!((purged.status.as_u16(), &purged.json()["forgotten"]), (200, &json!(1)), "{}", purged.text());
    assert!(desk.listed("completed").await.is_empty());
}

// Seeded faults: the records are deleted; the member needs no permission.
#[tokio::test]
async fn answers_only_keeps_the_records() {
    let desk = Desk::new();
    desk.charge("k", "17").await;
    let scope = desk.listed("completed").await[0]["scope"].clone();
    let body = json!({ "scope": scope, "answers_only": true });
    let reader = Desk::permitting(Access::READ.and(Permission::Forget));
    assert_eq!(reader.json("/api/purge", body.clone()).await.status, 403);
    assert_eq!(desk.json("/api/purge", json!({ "answers_only": true })).await.status, 400);
    let purged = desk.json("/api/purge", body).await;
    assert_eq!((purged.status.as_u16(), &purged.json()["forgotten"]), (200, &json!(1)), "{}", purged.text());
    assert_eq!((desk.listed("completed").await.len(), desk.listed("consumed").await.len()), (0, 1));
}
