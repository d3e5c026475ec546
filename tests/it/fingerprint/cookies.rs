//! The cookies that identify a client.

use axum::body::Body;
use http::{HeaderValue, Request};
use testkit::lab::{Lab, layer, post};
use tower_idempotency::server::IGNORED_COOKIES;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

/// The request `post("k", "a")` with these `Cookie` fields.
fn with(fields: &[&str]) -> Request<Body> {
    let mut request = post("k", "a");
    for field in fields {
        request.headers_mut().append("cookie", HeaderValue::from_str(field).unwrap());
    }
    request
}

/// Returns whether the second of two requests is taken for the same client's.
async fn is_same(layer: IdempotencyLayer<MemoryStore>, first: &[&str], retry: &[&str]) -> bool {
    let lab = Lab::counting(layer);
    assert_eq!(lab.send(with(first)).await.text(), "effect 1");
    let answer = lab.send(with(retry)).await;
    assert_eq!(lab.effects(), 1);
    if !answer.is_replay() {
        answer.assert_refusal(422, "credentials-changed", false, None);
    }
    answer.is_replay()
}

#[tokio::test]
async fn cookies_that_others_than_the_application_renew_do_not_count() {
    for entry in IGNORED_COOKIES {
        let name = entry.replace('*', "x");
        let [first, renewed] = [format!("sid=1; {name}=1"), format!("sid=1; {name}=2")];
        assert!(is_same(layer(), &[&first], &[&renewed]).await, "{name} is renewed");
        assert!(is_same(layer(), &[&first], &["sid=1"]).await, "{name} is gone");
        assert!(is_same(layer(), &["sid=1"], &[&renewed]).await, "{name} is set by the first answer");
        assert!(is_same(layer(), &[], &[&format!("{name}=1")]).await, "{name} alone");
        assert!(!is_same(layer(), &[&first], &[&format!("sid=2; {name}=1")]).await, "{name}: another session");
        assert!(!is_same(layer(), &[&first], &[&format!("{name}=1")]).await, "{name}: no session");
    }
}

// The test names them, so that they stay on the list.
#[tokio::test]
async fn well_known_cookies_of_load_balancers_and_analytics_do_not_count() {
    let names = "AWSALB AWSALBCORS AWSALBTG AWSALBTGCORS AWSALBAPP-0 AWSELB ARRAffinity ARRAffinitySameSite GCLB
        INGRESSCOOKIE BIGipServerpool_a __cf_bm _cfuvid __cflb cf_clearance ak_bmsc bm_sv _abck incap_ses_123_456
        visid_incap_456 datadome aws-waf-token _ga _ga_ABC123 _gid _gat _gcl_au __utma __utmz _fbp _uetsid _clck
        _hjSession_1 _hjSessionUser_1 _pk_id.1.abcd _pk_ses.1.abcd _dd_s ai_session ajs_anonymous_id __hstc hubspotutk
        OptanonConsent __stripe_sid";
    for name in names.split_whitespace() {
        let [first, renewed] = [1, 2].map(|value| format!("{name}={value}; sid=1"));
        assert!(is_same(layer(), &[&first], &[&renewed]).await, "{name}");
    }
}

#[tokio::test]
async fn every_other_cookie_counts() {
    // The first ones hold sessions of load balancers and gateways that sign people in.
    let names = "AWSELBAuthSessionCookie-0 CF_Authorization GCP_IAAP_AUTH_TOKEN_1 MRHSession NSC_AAAC awsalb _GA my_ga
        _gab theme session __Host-sid JSESSIONID";
    for name in names.split_whitespace() {
        let [first, other] = [1, 2].map(|value| format!("{name}={value}; sid=1"));
        assert!(!is_same(layer(), &[&first], &[&other]).await, "{name}");
    }
    // A cookie without `=` has no name.
    assert!(!is_same(layer(), &["_ga; sid=1"], &["_gid; sid=1"]).await);
    assert!(!is_same(layer(), &["_ga"], &[]).await);
}

#[tokio::test]
async fn the_order_of_cookies_makes_no_difference_but_which_of_two_with_a_name_is_first_does() {
    assert!(is_same(layer(), &["a=1; b=2; c=3"], &["c=3;a=1 ;  b=2;"]).await);
    assert!(is_same(layer(), &["a=1; b=2; c=3"], &["c=3", "a=1; b=2"]).await, "HTTP/2 may split the field");
    assert!(!is_same(layer(), &["sid=alice; sid=bob"], &["sid=bob; sid=alice"]).await);
    assert!(!is_same(layer(), &["sid=alice"], &["sid=alice; sid=bob"]).await);
    assert!(!is_same(layer(), &["a=1; b=2"], &["a=2; b=1"]).await);
    assert!(!is_same(layer(), &["a=1; b=2"], &["a=1"]).await);
    assert!(!is_same(layer(), &["a=1"], &["A=1"]).await);
    // An empty field, or none.
    assert!(is_same(layer(), &[""], &[]).await);
}

// Some programs read a quoted value to its closing quote, beyond a semicolon: to them, the one below is no cookie of
// Google Analytics but a part of the session.
#[tokio::test]
async fn what_comes_after_an_open_quote_counts() {
    assert!(!is_same(layer(), &["sid=\"alice; _ga=1\""], &["sid=\"alice; _ga=2\""]).await);
    assert!(!is_same(layer(), &["sid=\"alice", "_ga=1", "x\""], &["sid=\"alice", "_ga=2", "x\""]).await);
    assert!(is_same(layer(), &["sid=\"alice\"; _ga=1"], &["sid=\"alice\"; _ga=2"]).await);
    assert!(is_same(layer(), &["p={\"a\":1}; _ga=\"1\""], &["p={\"a\":1}; _ga=\"2\""]).await);
    let only = || layer().credential_cookies(["sid"]);
    assert!(!is_same(only(), &["sid=\"alice; x=1\""], &["sid=\"alice; x=2\""]).await);
}

// Seeded fault: what comes after a comma, a blank, a tab or a backslash belongs to the cookie before it.
#[tokio::test]
async fn cookies_that_are_joined_by_something_else_than_a_semicolon_count() {
    assert!(!is_same(layer(), &["_ga=1, sid=a"], &["_ga=1, sid=b"]).await);
    assert!(!is_same(layer(), &["_ga=1 sid=a"], &["_ga=1 sid=b"]).await, "by a blank");
    assert!(!is_same(layer(), &["_ga=1\tsid=a"], &["_ga=1\tsid=b"]).await, "by a tab");
    assert!(
        !is_same(layer(), &["_gid=\"\\\"; _ga=sid=a"], &["_gid=\"\\\"; _ga=sid=b"]).await,
        "after a quote that is escaped"
    );
    let named = || layer().credential_cookies(["sid"]);
    assert!(!is_same(named(), &["theme=dark, sid=a"], &["theme=dark, sid=b"]).await);
}

#[tokio::test]
async fn the_application_names_the_cookies_that_count() {
    let only = || layer().credential_cookies(["sid", "_ga"]);
    assert!(is_same(only(), &["sid=1; theme=dark; x"], &["theme=light; sid=1"]).await);
    assert!(is_same(only(), &["theme=dark"], &[]).await);
    assert!(!is_same(only(), &["sid=1"], &["sid=2"]).await);
    assert!(!is_same(only(), &["sid=1"], &[]).await);
    assert!(!is_same(only(), &["sid=1; _ga=1"], &["sid=1; _ga=2"]).await, "it is named");
    assert!(is_same(only(), &["SID=1"], &["SID=2"]).await, "names are compared with case");
    let none = || layer().credential_cookies([""; 0]);
    assert!(is_same(none(), &["sid=1"], &["sid=2"]).await);
}
