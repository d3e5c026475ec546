//! No stranger reads another's answer: without any configuration other credentials are refused, and a scope keeps the
//! keys of different accounts apart (promise 6).

use axum::body::Body;
use http::StatusCode;
use testkit::lab::{Lab, keyed, layer, post, with};
use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, Scope};

// Row: scope function fails → its rejection; there is no empty scope.

#[tokio::test]
async fn a_scope_that_fails_refuses_with_its_own_rejection() {
    let store = MemoryStore::new();
    let refuse = |_: &http::request::Parts| -> Result<Scope, _> {
        Err(Rejection::custom(StatusCode::UNAUTHORIZED, "No account", "Log in."))
    };
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).scope(refuse));
    let answer = lab.post("k", "a").await;
    answer.assert_refusal(401, "custom", false, None);
    assert_eq!(
        (answer.json()["title"].as_str(), answer.json()["detail"].as_str()),
        (Some("No account"), Some("Log in."))
    );
    assert_eq!(lab.effects(), 0);
    assert!(store.is_empty());
}

// Row: known key, same request, only the credentials differ (no scope configured) → 422 `credentials-changed`; its text
// says: do not mint a new key.

#[tokio::test]
async fn a_retry_with_other_credentials_is_refused_and_warned_against_a_new_key() {
    for name in ["authorization", "cookie", "x-api-key", "proxy-authorization"] {
        let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
        let with = |value: &str| keyed("POST", "/charges", "k").header(name, value).body(Body::from("a")).unwrap();
        assert_eq!(lab.send(with("alice")).await.text(), "effect 1");
        for stranger in [with("bob"), post("k", "a")] {
            let answer = lab.send(stranger).await;
            answer.assert_refusal(422, "credentials-changed", false, None);
            assert!(answer.json()["detail"].as_str().unwrap().contains("Do not mint a new key"), "{name}");
        }
        assert!(lab.send(with("alice")).await.is_replay());
        assert_eq!(lab.effects(), 1, "{name}");
    }
}

#[tokio::test]
async fn credentials_where_there_were_none_are_other_credentials() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    lab.post("k", "a").await;
    let request = keyed("POST", "/charges", "k").header("authorization", "Bearer 1").body(Body::from("a")).unwrap();
    lab.send(request).await.assert_refusal(422, "credentials-changed", false, None);
}

fn principal(parts: &http::request::Parts) -> Result<Scope, Rejection> {
    // As an authentication layer outside would have established it: `Bearer <who>.<token>`.
    let bearer = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let who = bearer.and_then(|bearer| bearer.strip_prefix("Bearer ")?.split_once('.'));
    let (who, _) = who.ok_or_else(|| Rejection::custom(StatusCode::UNAUTHORIZED, "Who?", "Log in."))?;
    Ok(Scope::new(who)?)
}

#[tokio::test]
async fn trap_22_a_token_refreshed_between_two_tries_is_never_a_second_charge() {
    let lab = Lab::counting(layer());
    assert_eq!(lab.send(with("authorization", "Bearer alice.1")).await.text(), "effect 1");
    let answer = lab.send(with("authorization", "Bearer alice.2")).await;
    answer.assert_refusal(422, "credentials-changed", false, None);
    assert!(answer.json()["detail"].as_str().unwrap().contains("a new key would run it again"));
    assert_eq!(lab.effects(), 1);

    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()).scope(principal));
    assert_eq!(lab.send(with("authorization", "Bearer alice.1")).await.text(), "effect 1");
    assert!(lab.send(with("authorization", "Bearer alice.2")).await.is_replay());
    assert_eq!(lab.send(with("authorization", "Bearer bob.1")).await.text(), "effect 2");
    assert_eq!(lab.post("k", "a").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(lab.effects(), 2);
}

#[tokio::test]
async fn trap_23_without_a_scope_no_stranger_reads_another_s_answer() {
    for name in ["authorization", "cookie", "x-api-key", "proxy-authorization", "host"] {
        let lab = Lab::counting(layer());
        assert_eq!(lab.send(with(name, "alice")).await.text(), "effect 1");
        let stranger = lab.send(with(name, "bob")).await;
        assert_eq!(stranger.status, 422, "{name}");
        assert!(!String::from_utf8_lossy(&stranger.body).contains("effect"), "{name}");
        assert!(lab.send(with(name, "alice")).await.is_replay(), "{name}");
        assert_eq!(lab.effects(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_second_host_that_says_otherwise_is_not_overlooked() {
    let lab = Lab::counting(layer());
    let hosts = |uri: &str, hosts: [&str; 2]| {
        let mut request = keyed("POST", uri, "k").body(Body::from("a")).unwrap();
        request.headers_mut().remove("host");
        hosts.into_iter().for_each(|host| {
            request.headers_mut().append("host", host.parse().unwrap());
        });
        request
    };
    assert_eq!(lab.send(hosts("/charges", ["a.test", "b.test"])).await.text(), "effect 1");
    for other in [["a.test", "c.test"], ["a.test", "a.test"], ["b.test", "a.test"]] {
        assert_eq!(lab.send(hosts("/charges", other)).await.problem(), "key-reused");
    }
    assert_eq!(lab.send(hosts("http://b.test/charges", ["a.test", "b.test"])).await.problem(), "key-reused");
    assert!(lab.send(hosts("/charges", ["A.test", "B.test"])).await.is_replay());
}

#[tokio::test]
async fn scope_says_whose_a_key_is() {
    let tenant = |parts: &http::request::Parts| Ok(Scope::new(parts.headers.get("x-tenant").unwrap())?);
    let lab = Lab::counting(layer().scope(tenant));
    assert_eq!(lab.send(with("x-tenant", "alice")).await.text(), "effect 1");
    assert_eq!(lab.send(with("x-tenant", "bob")).await.text(), "effect 2");
    for (name, run) in [("alice", "effect 1"), ("bob", "effect 2")] {
        let mut retry = with("x-tenant", name);
        retry.headers_mut().insert("authorization", "refreshed".parse().unwrap());
        let answer = lab.send(retry).await;
        assert_eq!((answer.text(), answer.is_replay()), (run, true));
    }
}

// A seeded fault: credentials are not compared if the layer has a scope function, even for a request without a scope.
#[tokio::test]
async fn a_request_without_a_scope_is_compared_by_its_credentials_though_others_have_one() {
    let tenant = |parts: &http::request::Parts| parts.headers.get("x-tenant").map(Scope::new).transpose();
    let lab = Lab::counting(layer().scope(move |parts| Ok(tenant(parts)?)));
    assert_eq!(lab.send(with("authorization", "Bearer alice")).await.text(), "effect 1");
    let stranger = lab.send(with("authorization", "Bearer bob")).await;
    stranger.assert_refusal(422, "credentials-changed", false, None);
    assert!(lab.send(with("authorization", "Bearer alice")).await.is_replay());
    assert_eq!(lab.send(with("x-tenant", "alice")).await.text(), "effect 2", "another id");
    assert_eq!(lab.send(with("x-tenant", "")).await.status, StatusCode::UNAUTHORIZED, "no scope is empty");
    assert_eq!(lab.effects(), 2);
}
