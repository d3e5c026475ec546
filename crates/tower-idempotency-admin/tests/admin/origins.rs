//! A change comes from this page, or from a program that says so.

use axum::body::Body;
use http::Request;
use serde_json::json;
use tower_idempotency::RecordId;

use crate::desk::{Desk, PATH};

/// Tries to free a key with these headers, and returns the status.
async fn release(desk: &Desk, uri: &str, headers: &[(&str, &str)]) -> u16 {
    let (id, fence) = desk.interrupted("k").await;
    let body = json!({ "changes": [{ "id": id, "fence": fence, "action": "release" }] }).to_string();
    let mut request = Request::post(format!("{uri}{PATH}/api/changes")).header("x-operator", "alice");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let status = desk.send(request.body(body.into()).unwrap()).await.status.as_u16();
    assert_eq!(desk.listed("interrupted").await.is_empty(), status == 200, "{headers:?}");
    status
}

#[tokio::test]
async fn a_change_from_another_origin_is_refused() {
    let desk = Desk::new();
    let host = ("host", "pay.example");
    let foreign: [&[(&str, &str)]; 16] = [
        &[host],
        &[host, ("sec-fetch-site", "cross-site")],
        &[host, ("sec-fetch-site", "same-site")],
        &[host, ("sec-fetch-site", "none")],
        // The browser's word counts, whatever else is said.
        &[host, ("sec-fetch-site", "cross-site"), ("origin", "https://pay.example")],
        &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
        &[
            host,
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://pay.example"),
        ],
        &[host, ("origin", "null")],
        &[host, ("origin", "https://evil.example")],
        &[host, ("origin", "https://pay.example.evil.example")],
        &[host, ("origin", "https://pay.example:8443")],
        &[host, ("origin", "file://pay.example")],
        &[host, ("origin", "pay.example")],
        &[host, ("origin", "https://pay example")],
        &[host, ("origin", "https://pay.example"), ("origin", "https://evil.example")],
        &[host, ("host", "evil.example"), ("origin", "https://pay.example")],
    ];
    for headers in foreign {
        assert_eq!(release(&desk, "", headers).await, 403, "{headers:?}");
    }
    assert_eq!(release(&desk, "", &[("origin", "https://pay.example")]).await, 403, "no host");
    let two_hosts = [("host", "evil.example"), ("host", "evil.example"), ("origin", "https://pay.example")];
    assert_eq!(release(&desk, "https://pay.example", &two_hosts).await, 403, "two hosts");
}

#[tokio::test]
async fn a_change_from_the_page_or_from_a_program_that_says_so_is_made() {
    let own: [(&str, &[(&str, &str)]); 8] = [
        ("", &[("host", "pay.example"), ("sec-fetch-site", "same-origin")]),
        // Behind a proxy that changes the host.
        ("", &[("host", "10.0.0.7:8080"), ("sec-fetch-site", "same-origin"), ("origin", "https://pay.example")]),
        ("", &[("host", "pay.example"), ("origin", "https://pay.example")]),
        ("", &[("host", "PAY.example:443"), ("origin", "https://pay.example")]),
        ("", &[("host", "pay.example:80"), ("origin", "http://pay.example")]),
        ("", &[("host", "pay.example:8080"), ("origin", "http://pay.example:8080")]),
        ("", &[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")]),
        // HTTP/2 has the host in the URI.
        ("https://pay.example", &[("origin", "https://pay.example")]),
    ];
    for (uri, headers) in own {
        assert_eq!(release(&Desk::new(), uri, headers).await, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn each_form_and_each_unsafe_method_is_refused_without_an_origin() {
    let desk = Desk::new();
    let id = RecordId::from_bytes([1; 32]);
    for body in [
        "do=find&key=k".to_owned(),
        format!("do=review&action=release&row={id}:1"),
        format!("do=apply&action=release&row={id}:1"),
    ] {
        let request = Request::post(PATH).header("host", "pay.example").header("x-operator", "alice");
        assert_eq!(desk.send(request.body(body.clone().into()).unwrap()).await.status, 403, "{body}");
    }
    for method in ["PUT", "PATCH", "DELETE", "POST", "PURGE"] {
        for path in ["", "/api/stats", "/api/find", "/api/purge"] {
            let request = Request::builder().method(method).uri(format!("{PATH}{path}")).header("x-operator", "alice");
            assert_eq!(desk.send(request.body(Body::empty()).unwrap()).await.status, 403, "{method} {path}");
        }
    }
}
