//! What comes from outside stays text.

use std::future::ready;

use form_urlencoded::Serializer;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower_idempotency::MemoryStore;
use tower_idempotency_admin::{Access, Actor, AdminPage};

use crate::desk::{Desk, PATH, from, layer};
use crate::document::shape;

const ATTACKS: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</title></textarea></pre></select><svg/onload=alert(1)>",
    "{{7*7}}<!--#exec cmd=\"id\"-->",
    "javascript:alert(1)",
];

/// Asserts that a page has no tag and no attribute that it does not have without the attack.
fn assert_text(page: &str, plain: &str, from: &str) {
    assert_eq!(shape(page), shape(plain), "{from}");
    for part in ["<script>", "<img", "<svg/"] {
        assert!(!page.contains(part), "{from}: {page}");
    }
    for deceiving in ['\u{202e}', '\u{2066}', '\u{200b}', '\0', '\u{1b}'] {
        assert!(!page.contains(deceiving), "{from}: {deceiving:?}");
    }
}

#[tokio::test]
async fn a_label_is_text_wherever_it_is_shown() {
    let pages = async |label: &str| {
        let desk = Desk::new();
        let value = HeaderValue::from_bytes(label.as_bytes()).unwrap();
        desk.charge_with("k", "unknown", HeaderMap::from_iter([(HeaderName::from_static("x-label"), value)])).await;
        let (id, fence) = desk.found("k").await;
        let row = format!("{id}:{fence}");
        let mut pages = vec![desk.get("").await, desk.get(&format!("?id={id}")).await];
        for form in ["do=review&action=release", "do=apply&action=release"] {
            pages.push(desk.post("", &format!("{form}&row={row}&row={row}")).await);
        }
        pages.into_iter().map(|page| page.text().to_owned()).collect::<Vec<_>>()
    };
    let plain = pages("order").await;
    for attack in ATTACKS.into_iter().chain(["a\u{202e}b\u{200b}c"]) {
        for (page, plain) in pages(attack).await.iter().zip(&plain) {
            assert_text(page, plain, attack);
        }
    }
}

#[tokio::test]
async fn a_url_is_text_wherever_it_is_repeated() {
    let desk = Desk::new();
    for name in ["state", "older_than", "status", "scope", "after", "id", "body", "file", "x"] {
        let query = |value: &str| format!("?{}", Serializer::new(String::new()).append_pair(name, value).finish());
        let plain = desk.get(&query("zzz")).await;
        for attack in ATTACKS {
            let page = desk.get(&query(attack)).await;
            assert_eq!(page.status, plain.status, "{name}={attack}");
            assert_text(page.text(), plain.text(), name);
        }
    }
}

#[tokio::test]
async fn a_form_is_text_wherever_it_is_repeated() {
    let desk = Desk::new();
    let (id, fence) = desk.interrupted("k").await;
    let row = format!("{id}:{fence}");
    for name in ["do", "action", "row", "status", "content_type", "body", "encoding", "key", "owner"] {
        for (kind, action) in [("review", "answer"), ("review", "release"), ("find", "")] {
            let body = |value: &str| {
                let fields =
                    [("do", kind), ("action", action), ("row", &row), ("status", "200"), ("body", "b"), ("key", "k")];
                let fields = fields.into_iter().filter(|(field, _)| *field != name).chain([(name, value)]);
                Serializer::new(String::new()).extend_pairs(fields).finish()
            };
            let plain = desk.post("", &body("zzz")).await;
            for attack in ATTACKS {
                assert_text(desk.post("", &body(attack)).await.text(), plain.text(), &format!("{kind} {name}"));
            }
        }
    }
}

#[tokio::test]
async fn a_recorded_answer_and_its_headers_are_text() {
    let page = async |body: &str| {
        let desk = Desk::new();
        desk.charge("k", body).await;
        let (id, _) = desk.found("k").await;
        desk.get(&format!("?id={id}&body=shown")).await.text().to_owned()
    };
    let plain = page("order").await;
    assert!(plain.contains("charged order"), "{plain}");
    for attack in ATTACKS.into_iter().chain(["a\u{202e}b\u{200b}c\0"]) {
        assert_text(&page(attack).await, &plain, attack);
    }
}

#[tokio::test]
async fn the_name_of_the_caller_is_text() {
    let page = async |name: &'static str| {
        let layer = layer(MemoryStore::new());
        let page = AdminPage::new(layer.operations(), move |_| ready(Ok(Actor::new(name, Access::ALL))));
        Desk::of(layer, page).get("").await.text().to_owned()
    };
    let plain = page("alice").await;
    for attack in ATTACKS.into_iter().chain(["a\u{202e}b\u{200b}c"]) {
        assert_text(&page(attack).await, &plain, attack);
    }
}

#[tokio::test]
async fn an_answer_of_the_api_is_never_html() {
    let desk = Desk::new();
    for path in ["/api/operations?state=<b>", "/api/operations/<b>", "/api/openapi.json", "/api/stats"] {
        let path = path.replace('<', "%3C").replace('>', "%3E");
        let answer =
            desk.send(from(Request::get(format!("{PATH}{path}"))).body(axum::body::Body::empty()).unwrap()).await;
        assert!(answer.header("content-type").unwrap().contains("json"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}
