//! Firefox can send a key by itself with each POST and PATCH: a decimal number in double quotes. So a key may come to
//! routes that never asked for one: forms, uploads, sign-in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::post;
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use testkit::lab::{Lab, keyed, layer};
use tower_idempotency::server::KeptHeaders;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

/// As Firefox sends it.
const KEY: &str = "\"10485729304817263549\"";

/// Answers each form with 303 and a new cookie, and counts.
fn app(layer: IdempotencyLayer<MemoryStore>) -> (Lab, Arc<AtomicUsize>) {
    let effects = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&effects);
    let answer = move |_: Request| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let cookie = format!("session={number}; HttpOnly");
        std::future::ready((StatusCode::SEE_OTHER, [(LOCATION, "/thanks".to_owned()), (SET_COOKIE, cookie)]))
    };
    let app = Router::new().route("/orders", post(answer.clone())).route("/login", post(answer)).layer(layer);
    (Lab::of(app), effects)
}

fn form(path: &str, key: &str, cookie: Option<&str>) -> Request {
    let request = keyed("POST", path, key).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let mut request = request.body(Body::from("name=alice&article=17")).unwrap();
    if let Some(cookie) = cookie {
        request.headers_mut().insert(COOKIE, HeaderValue::from_str(cookie).unwrap());
    }
    request
}

#[tokio::test]
async fn a_form_that_answers_303_is_replayed_without_its_cookie() {
    let (lab, effects) = app(layer());
    let first = lab.send(form("/orders", KEY, None)).await;
    assert_eq!((first.status.as_u16(), first.header("set-cookie")), (303, Some("session=1; HttpOnly")));
    let retry = lab.send(form("/orders", KEY, None)).await;
    assert!(retry.is_replay());
    assert_eq!((retry.status.as_u16(), retry.header("location")), (303, Some("/thanks")));
    assert_eq!(retry.header("set-cookie"), None);
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_upload_whose_boundary_is_drawn_anew_is_the_same_upload() {
    let uploads = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&uploads);
    let upload = move |request: Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            format!("{} bytes", body.len())
        }
    };
    let lab = Lab::of(Router::new().route("/photos", post(upload)).layer(layer()));
    let photo = |boundary: &str| {
        let head = "Content-Disposition: form-data; name=\"photo\"; filename=\"a.png\"\r\nContent-Type: image/png";
        let body = format!("--{boundary}\r\n{head}\r\n\r\n{}\r\n--{boundary}--\r\n", "p".repeat(100_000));
        let request = keyed("POST", "/photos", KEY);
        request
            .header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .body(Body::from(body))
            .unwrap()
    };
    let first = lab.send(photo("----geckoformboundary1f0c")).await;
    let retry = lab.send(photo("----geckoformboundary77ab")).await;
    assert_eq!((retry.text(), retry.is_replay()), (first.text(), true));
    assert_eq!(uploads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_sign_in_whose_answer_is_lost_has_no_session_unless_it_is_left_out_or_keeps_its_cookie() {
    // By default the retry comes to the page without a session.
    let (lab, _) = app(layer());
    lab.send(form("/login", KEY, None)).await;
    assert_eq!(lab.send(form("/login", KEY, None)).await.header("set-cookie"), None);

    // Left out: each try signs in.
    let (lab, effects) = app(layer().covers(|parts: &Parts| parts.uri.path() != "/login"));
    for session in ["session=1; HttpOnly", "session=2; HttpOnly"] {
        let answer = lab.send(form("/login", KEY, None)).await;
        assert_eq!((answer.header("set-cookie"), answer.is_replay()), (Some(session), false));
    }
    assert_eq!(effects.load(Ordering::SeqCst), 2);

    // Kept: the retry gets the first session, and no other client does.
    let (lab, effects) = app(layer().kept_headers(KeptHeaders::default().with([SET_COOKIE])));
    lab.send(form("/login", KEY, Some("visitor=1"))).await;
    let retry = lab.send(form("/login", KEY, Some("visitor=1"))).await;
    assert_eq!((retry.header("set-cookie"), retry.is_replay()), (Some("session=1; HttpOnly"), true));
    for stranger in [None, Some("visitor=2")] {
        let refused = lab.send(form("/login", KEY, stranger)).await;
        assert_eq!(refused.refusal(), (422, "credentials-changed".to_owned()));
        assert_eq!(refused.header("set-cookie"), None);
    }
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn two_tabs_are_two_operations_and_two_tries_of_one_tab_are_one() {
    let (lab, effects) = app(layer());
    for tab in [KEY, "\"7\""] {
        for is_replay in [false, true] {
            assert_eq!(lab.send(form("/orders", tab, Some("session=1"))).await.is_replay(), is_replay);
        }
    }
    assert_eq!(effects.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_cookie_that_the_answer_has_renewed_makes_the_next_try_another_client_s() {
    // The browser has stored the cookie of the first answer, and sends the form again: a reload of a page without 303.
    let (lab, effects) = app(layer());
    lab.send(form("/orders", KEY, Some("session=0"))).await;
    let reload = lab.send(form("/orders", KEY, Some("session=1"))).await;
    assert_eq!(reload.refusal(), (422, "credentials-changed".to_owned()));
    // With a scope, or the cookies that say who asks, it is the same client's.
    let (lab, _) = app(layer().credential_cookies(["account"]));
    lab.send(form("/orders", KEY, Some("session=0; account=alice"))).await;
    assert!(lab.send(form("/orders", KEY, Some("session=1; account=alice"))).await.is_replay());
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}
