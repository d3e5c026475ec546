//! Support staff find an operation by what they know.

use axum::Router;
use axum::routing::post;
use serde_json::json;
use tower_idempotency::{IdempotencyContext, MemoryStore, Scope};
use tower_idempotency_admin::{Access, AdminPage};

use crate::desk::{Desk, PATH, authorize, layer};
use crate::document::form;

#[tokio::test]
async fn an_operation_is_found_by_its_key_and_its_owner_and_the_key_is_in_no_url() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("order-17").await;
    let find = form(desk.get("").await.text(), "do", "find");
    let found = desk.submit(&find, &[("key", "order-17"), ("owner", "acme")]).await;
    assert_eq!((found.status.as_u16(), found.header("location")), (303, Some(format!("?id={id}").as_str())));
    let page = desk.get(found.header("location").unwrap()).await;
    let state = "<span class=\"state interrupted\">interrupted</span> <span class=\"cause\">answered <span class=\"status\">504</span></span>";
    let cause = "<dt>Cause</dt><dd>answered: the handler answered that it is unknown</dd>";
    for part in [&*id, &format!("<dt>State</dt><dd>{state}</dd>"), cause] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    let list = desk.get("").await;
    assert!(list.text().contains(&format!("<td data-label=\"State\">{state}</td>")), "{}", list.text());
    // A client may have sent it as a structured field.
    for (key, owner) in [("\"order-17\"", " acme \r\n"), (" order-17 ", "\r\nacme")] {
        assert_eq!(desk.submit(&find, &[("key", key), ("owner", owner)]).await.status, 303, "{key}");
    }
}

#[tokio::test]
async fn an_operation_says_in_which_part_another_request_with_its_key_differs() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("order-17").await;
    let shown = async || desk.get(&format!("?id={id}")).await.text().to_owned();
    assert!(!shown().await.contains("Other requests with its key"));
    for amount in ["canary-1", "canary-2"] {
        assert_eq!(desk.charge("order-17", amount).await.status, 422);
    }
    let page = shown().await;
    for text in ["Other requests with its key", "2 refused by this process", "<strong>body</strong> differs"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("canary"), "{page}");
}

#[tokio::test]
async fn what_is_not_found_is_said_without_the_key() {
    let desk = Desk::new();
    desk.interrupted("order-17").await;
    let find = form(desk.get("").await.text(), "do", "find");
    for (key, owner) in [("order-17", "other"), ("order-17", ""), ("order-18", "acme"), ("", "acme"), ("é", "acme")] {
        let answer = desk.submit(&find, &[("key", key), ("owner", owner)]).await;
        assert_eq!(answer.status, 200, "{key} of {owner}");
        assert!(answer.text().contains("role=\"alert\"") && !answer.text().contains("order-1"), "{}", answer.text());
        form(answer.text(), "do", "find");
    }
    for (body, what) in [
        ("{", "It is not JSON"),
        ("{]", "It is not JSON"),
        ("{\"key\":17}", "The JSON does not have the form that is described"),
    ] {
        let wrong = desk.post("/api/find", body).await;
        let detail = wrong.json()["detail"].as_str().unwrap().to_owned();
        assert!(wrong.status == 400 && detail.starts_with(what), "{body}: {detail}");
    }
    let none = desk.json("/api/find", json!({ "key": "order-18" })).await;
    assert_eq!((none.status.as_u16(), none.json()), (200, json!({ "operation": null })));
}

#[tokio::test]
async fn an_operation_shows_the_keys_by_which_its_effect_is_found() {
    let layer = layer(MemoryStore::new());
    let page = AdminPage::new(layer.operations(), |parts| authorize(parts, Access::ALL)).steps(["charge", "<refund>"]);
    let handler =
        async |context: IdempotencyContext| [context.derived_key("charge"), context.derived_key("<refund>")].join(" ");
    let payments = Router::new().route("/charges", post(handler)).layer(layer.clone());
    let desk = Desk { app: payments.nest(PATH, page.router()), layer };
    let answer = desk.charge("order-17", "").await;
    let (charge, refund) = answer.text().split_once(' ').unwrap();
    let (id, _) = desk.found("order-17").await;
    let operation = desk.get(&format!("/api/operations/{id}")).await.json();
    assert_eq!(operation["derived_keys"], json!({ "charge": charge, "<refund>": refund }));
    let page = desk.get(&format!("?id={id}")).await;
    for part in ["Derived key, charge", charge, "Derived key, &lt;refund&gt;", refund] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
}

#[tokio::test]
async fn an_owner_is_what_the_application_makes_of_it() {
    let layer = layer(MemoryStore::new());
    let page = AdminPage::new(layer.operations(), |parts| authorize(parts, Access::ALL));
    let page = page.scope_from(|lines| {
        let name = lines.first().ok_or("an owner has a <name>")?;
        if lines.contains(&"") {
            return Err("a line is blank".into());
        }
        Ok(Some(Scope::new(name.to_lowercase())?))
    });
    let desk = Desk::of(layer, page);
    let (id, _) = desk.interrupted("order-17").await;
    let find = form(desk.get("").await.text(), "do", "find");
    let found = desk.submit(&find, &[("key", "order-17"), ("owner", " \r\nACME\r\n \r\nsales")]).await;
    assert_eq!(found.header("location"), Some(format!("?id={id}").as_str()));
    let found = desk.json("/api/find", json!({ "key": "order-17", "scope": ["Acme"] })).await;
    assert_eq!(found.json()["operation"]["id"], id);
    let wrong = desk.submit(&find, &[("key", "order-17")]).await;
    assert!(wrong.text().contains("This is no owner: an owner has a &lt;name&gt;"), "{}", wrong.text());
    assert_eq!(desk.json("/api/find", json!({ "key": "order-17" })).await.status, 400);
}

#[tokio::test]
async fn filters_are_in_the_url_and_select() {
    let desk = Desk::new();
    desk.interrupted("open").await;
    desk.charge("panicked", "panic").await;
    desk.charge("done", "17").await;
    let digest = |name: &str| {
        let digest = Scope::new(name).unwrap().digest();
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let cases = [
        ("", 2),
        ("?state=any", 3),
        ("?state=completed", 1),
        ("?state=running", 0),
        ("?status=504", 1),
        ("?status=502", 0),
        ("?status=100", 0),
        ("?status=999", 0),
        ("?cause=answered", 1),
        ("?cause=panicked", 1),
        ("?state=any&cause=panicked", 1),
        ("?state=any&cause=any", 3),
        ("?cause=lease", 0),
        ("?state=any&since=2026-01-01T00:00:00Z", 3),
        ("?state=any&since=9999-01-01T00:00:00Z", 0),
        ("?state=any&before=2026-01-01+00:00:00", 0),
        ("?state=any&before=9999-01-01+00:00:00", 3),
        ("?state=any&older_than=1h", 0),
        ("?state=any&older_than=", 3),
        (&format!("?state=any&scope={}", digest("acme")), 3),
        (&format!("?state=any&scope={}", digest("other")), 0),
    ];
    for (query, count) in cases {
        let page = desk.get(query).await;
        let rows = page.text().matches("data-label=\"Attempt\"").count();
        assert_eq!((page.status.as_u16(), rows), (200, count), "{query}");
        // The page begins with what is interrupted, and the API with all.
        let query = if query.is_empty() { "?state=interrupted" } else { query };
        let listed = desk.get(&format!("/api/operations{query}")).await;
        if query.ends_with('=') {
            // A form has fields that are empty. In the API that is a slip.
            assert_eq!(listed.status, 400, "{query}");
            continue;
        }
        let listed = listed.json();
        assert_eq!(listed["operations"].as_array().unwrap().len(), count, "{query}: {listed:#}");
    }
    for wrong in [
        "?state=open", "?cause=moon", "?since=soon", "?before=2026-13-01T00:00:00Z", "?older_than=soon", "?status=99",
        "?status=1000", "?status=99999", "?scope=acme", "?after=x",
    ] {
        let page = desk.get(wrong).await;
        assert!(page.status == 400 && page.text().contains("role=\"alert\""), "{wrong}");
        assert_eq!(desk.get(&format!("/api/operations{wrong}")).await.status, 400, "{wrong}");
    }
    // The links to other pages keep the filter.
    let next = desk.get("/api/operations?state=any&limit=1").await.json()["next"].as_str().unwrap().to_owned();
    let filter = format!("?state=any&older_than=1s&status=504&scope={}", digest("acme"));
    let page = desk.get(&format!("{filter}&after={next}")).await;
    let first = format!("<a href=\"{}#list\">First page</a>", filter.replace('&', "&amp;"));
    assert!(page.text().contains(&first), "{first}: {}", page.text());
    // A slip in a name would select too much.
    assert_eq!(desk.get("/api/operations?stat=running").await.status, 400);
}
