//! The headers that keep the page to itself.

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use http::Request;
use tower_idempotency_admin::Nonce;

use crate::desk::{Desk, PATH, from};
use crate::document::{attributes, tag_names};

/// Asserts what a policy must not permit: code and styles that are not files of the page, frames, other hosts.
fn assert_strict(policy: &str) {
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    for part in ["unsafe", "*", "http:", "https:", "data:"] {
        assert!(!policy.contains(part), "{policy}");
    }
}

#[tokio::test]
async fn no_answer_can_be_framed_sniffed_kept_or_read_from_elsewhere() {
    let desk = Desk::new();
    let (id, _) = desk.interrupted("k").await;
    let answers = [
        desk.get("").await,
        desk.get(&format!("?id={id}")).await,
        desk.get("?id=wrong").await,
        desk.get("/api/stats").await,
        desk.get("/api/operations/wrong").await,
        desk.post("", "do=nothing").await,
        desk.post("/api/changes", "{").await,
        desk.send(from(Request::post(PATH)).body(Body::empty()).unwrap()).await,
        desk.send(from(Request::delete(PATH)).header("sec-fetch-site", "same-origin").body(Body::empty()).unwrap())
            .await,
    ];
    for answer in answers {
        assert_strict(answer.header("content-security-policy").expect("a policy"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        // Under `no-referrer`, a browser sends `Origin: null` with the page's own forms.
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
    }
}

#[tokio::test]
async fn the_page_has_no_inline_script_or_style_and_loads_its_own_files_alone() {
    let desk = Desk::new();
    let (id, fence) = desk.interrupted("k").await;
    let review = format!("do=review&action=release&row={id}:{fence}");
    for page in [desk.get("").await, desk.get(&format!("?id={id}")).await, desk.post("", &review).await] {
        let page = page.text();
        assert!(!tag_names(page).contains(&"style"), "{page}");
        assert_eq!(tag_names(page).iter().filter(|name| **name == "script").count(), 1, "{page}");
        assert!(page.contains("<script src=\"?file=script.js\" defer></script>"), "{page}");
        assert!(attributes(page, "style").is_empty(), "{page}");
        for event in ["onclick", "onload", "onerror", "onsubmit", "onfocus"] {
            assert!(attributes(page, event).is_empty(), "{page}");
        }
        for link in ["href", "src", "action"].iter().flat_map(|name| attributes(page, name)) {
            assert!(link.starts_with('?') || link.starts_with('#'), "{link} is not relative");
        }
    }
}

#[tokio::test]
async fn a_nonce_of_the_applications_own_policy_is_on_both_files_and_in_the_policy() {
    let desk = Desk::new();
    assert!(attributes(desk.get("").await.text(), "nonce").is_empty());
    let give = async |mut request: axum::extract::Request, next: Next| {
        request.extensions_mut().insert(Nonce::new("cmFuZG9t").unwrap());
        next.run(request).await
    };
    let app = Router::new().merge(desk.app.clone()).layer(from_fn(give));
    let answer = Desk { app, ..desk }.get("").await;
    assert_eq!(attributes(answer.text(), "nonce"), ["cmFuZG9t", "cmFuZG9t"]);
    let policy = answer.header("content-security-policy").unwrap();
    assert_strict(policy);
    assert!(policy.contains("script-src 'self' 'nonce-cmFuZG9t'; style-src 'self' 'nonce-cmFuZG9t'"), "{policy}");
}

#[test]
fn what_would_be_another_policy_is_no_nonce() {
    for text in ["", "a'; script-src *", "a b", "a\"", "a\r\nb", "ä"] {
        Nonce::new(text).unwrap_err();
    }
}

#[tokio::test]
async fn a_file_is_sent_once_and_then_asked_about() {
    let (desk, mut tags) = (Desk::new(), std::collections::HashSet::new());
    for (name, content_type) in
        [("style.css", "text/css"), ("script.js", "text/javascript"), ("icon.svg", "image/svg+xml")]
    {
        let path = format!("?file={name}");
        let file = desk.get(&path).await;
        assert!(file.header("content-type").unwrap().starts_with(content_type), "{name}");
        assert_eq!(file.header("cache-control"), Some("private, no-cache"));
        let tag = file.header("etag").unwrap();
        assert!(tags.insert(tag.to_owned()), "{name} has the tag of another file, as if it had not changed");
        let again = from(Request::get(format!("{PATH}{path}"))).header("if-none-match", tag).body(Body::empty());
        let again = desk.send(again.unwrap()).await;
        assert_eq!((again.status.as_u16(), again.text()), (304, ""));
        let old = from(Request::get(format!("{PATH}{path}"))).header("if-none-match", "\"00\"").body(Body::empty());
        assert_eq!(desk.send(old.unwrap()).await.text(), file.text());
    }
    assert_eq!(desk.get("?file=../Cargo.toml").await.status, 404);
}

#[tokio::test]
async fn any_accept_header_gets_the_page() {
    let desk = Desk::new();
    for accept in ["", "*/*", "application/json", "text/plain;q=0", "nonsense", "image/png, */*;q=0.1"] {
        for path in ["", "/api/stats"] {
            let request = from(Request::get(format!("{PATH}{path}"))).header("accept", accept);
            assert_eq!(desk.send(request.body(Body::empty()).unwrap()).await.status, 200, "{accept} {path}");
        }
    }
}
