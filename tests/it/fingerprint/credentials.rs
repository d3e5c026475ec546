//! The credentials of a client, if there is no scope: a request with a header that names another client never gets the
//! first one's answer.

use axum::body::Body;
use http::header::HeaderName;
use http::{HeaderValue, Request};
use testkit::lab::{Lab, layer, post};
use tower_idempotency::server::{CREDENTIAL_HEADERS, EXEMPT_HEADERS, IGNORED_COOKIES};
use tower_idempotency::{IdempotencyLayer, MemoryStore, Scope};

/// The request `post("k", "a")` with these headers besides.
fn with(headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = post("k", "a");
    for (name, value) in headers {
        request.headers_mut().append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    request
}

/// The answer to the second of two requests: `replayed`, or the refusal's name.
async fn second(layer: IdempotencyLayer<MemoryStore>, first: &[(&str, &str)], retry: &[(&str, &str)]) -> String {
    let lab = Lab::counting(layer);
    assert_eq!(lab.send(with(first)).await.text(), "effect 1");
    let answer = lab.send(with(retry)).await;
    assert_eq!(lab.effects(), 1);
    if answer.is_replay() { "replayed".to_owned() } else { answer.problem() }
}

async fn assert_separates(layer: impl Fn() -> IdempotencyLayer<MemoryStore>, name: &str) {
    let lab = Lab::counting(layer());
    assert_eq!(lab.send(with(&[(name, "alice")])).await.text(), "effect 1", "{name}");
    for stranger in [&[(name, "bob")][..], &[], &[(name, "alice"), (name, "bob")], &[(name, "Alice")]] {
        let refused = lab.send(with(stranger)).await;
        assert_eq!(refused.problem(), "credentials-changed", "{name}");
        refused.assert_refusal(422, "credentials-changed", false, None);
        assert!(!refused.text().contains("effect"), "{name}");
    }
    assert!(lab.send(with(&[(name, "alice")])).await.is_replay(), "{name}");
    assert_eq!(lab.effects(), 1, "{name}");
}

#[tokio::test]
async fn every_header_on_the_list_separates_two_clients() {
    for entry in CREDENTIAL_HEADERS {
        assert_separates(layer, &entry.replace('*', "acme")).await;
    }
}

// Each of these once got another client's answer. The test names them, so that they stay on the list.
#[tokio::test]
async fn the_headers_by_which_gateways_and_apis_name_a_client_separate_two_clients() {
    let names = "
        authorization proxy-authorization cookie x-api-key x-auth-token api-key apikey access-token x-access-token token
        private-token job-token x-session-token x-session-id x-id-token x-amz-security-token x-vault-token
        x-shopify-access-token x-goog-api-key ocp-apim-subscription-key x-functions-key x-rapidapi-key x-acme-api-key
        x-acme-token x-acme-auth client_id client_secret x-jwt-assertion x-forwarded-user x-forwarded-email
        x-forwarded-preferred-username x-forwarded-groups x-forwarded-access-token x-auth-request-user
        x-auth-request-email x-auth-request-access-token remote-user remote-groups x-remote-user x-remote-extra-scopes
        x-webauth-user x-authentik-username x-authenticated-user x-consumer-id x-consumer-username
        x-credential-identifier x-userinfo x-user-id x-user x-goog-iap-jwt-assertion x-goog-authenticated-user-email
        x-goog-authenticated-user-id x-serverless-authorization x-apigateway-api-userinfo x-endpoint-api-userinfo
        cf-access-jwt-assertion cf-access-client-id cf-access-authenticated-user-email cf-access-token x-amzn-oidc-data
        x-amzn-oidc-identity x-amzn-oidc-accesstoken x-amzn-ava-user-context x-amzn-mtls-clientcert
        x-amzn-mtls-clientcert-serial-number x-ms-client-principal x-ms-client-principal-id
        x-ms-token-aad-access-token x-zumo-auth x-arr-clientcert x-pomerium-jwt-assertion x-pomerium-claim-email
        x-vouch-user x-forwarded-client-cert x-forwarded-tls-client-cert x-forwarded-tls-client-cert-info client-cert
        client-cert-chain ssl-client-cert ssl-client-subject-dn x-ssl-client-cert x-ssl-client-s-dn x-client-cert
        x-client-cert-serial-number x-client-dn cf-client-cert-sha256 cloudfront-viewer-cert-subject l5d-client-id
        wl-proxy-client-cert tailscale-user-login teleport-jwt-assertion impersonate-user impersonate-extra-scopes sudo
        sm_user oam_remote_user osso-user-dn iv-user oidc_claim_sub x-hasura-user-id x-wsse x-scope-orgid x-tenant-id";
    for name in names.split_whitespace() {
        assert_eq!(second(layer(), &[(name, "alice")], &[(name, "bob")]).await, "credentials-changed", "{name}");
    }
}

#[tokio::test]
async fn the_values_of_two_credential_headers_are_not_taken_for_one_another_s() {
    let one = [("x-user-id", "1"), ("x-org-id", "2")];
    let exchanged = [("x-user-id", "2"), ("x-org-id", "1")];
    assert_eq!(second(layer(), &one, &exchanged).await, "credentials-changed");
    assert_eq!(second(layer(), &[("x-user", "1")], &[("remote-user", "1")]).await, "credentials-changed");
    // But their order makes no difference.
    let turned = [("x-org-id", "2"), ("x-user-id", "1")];
    assert_eq!(second(layer(), &one, &turned).await, "replayed");
}

#[tokio::test]
async fn what_clients_renew_with_each_try_and_does_not_say_who_they_are_makes_no_difference() {
    let names = EXEMPT_HEADERS.iter().map(|entry| entry.replace('*', "x"));
    let others = "dpop signature-input stripe-signature webhook-signature x-jws-signature user-agent x-forwarded-for
        x-request-id traceparent x-amz-date x-csrf-token csrf-token x-tokens x-ssl-client authorizations a zzz";
    for name in names.chain(others.split_whitespace().map(str::to_owned)) {
        assert_eq!(second(layer(), &[(&name, "1")], &[(&name, "2")]).await, "replayed", "{name}");
    }
}

// A signature identifies a client that has no other credentials; for other clients it does not count.
#[tokio::test]
async fn a_signature_separates_clients_that_have_nothing_else() {
    let signed = |signature| [("signature", signature), ("user-agent", "1")];
    assert_eq!(second(layer(), &signed("sig1=:alice:"), &signed("sig1=:alice:")).await, "replayed");
    assert_eq!(second(layer(), &signed("sig1=:alice:"), &signed("sig1=:bob:")).await, "credentials-changed");
    assert_eq!(second(layer(), &signed("sig1=:alice:"), &[]).await, "credentials-changed");
    let known = |signature| [("signature", signature), ("authorization", "Bearer alice")];
    assert_eq!(second(layer(), &known("sig1=:a:"), &known("sig1=:b:")).await, "replayed");
    assert_eq!(second(layer(), &known("sig1=:a:"), &signed("sig1=:a:")).await, "credentials-changed");
    let with_cookie = |signature| [("signature", signature), ("cookie", "sid=alice")];
    assert_eq!(second(layer(), &with_cookie("sig1=:a:"), &with_cookie("sig1=:b:")).await, "replayed");
}

#[tokio::test]
async fn the_header_of_the_key_is_no_credential_whatever_its_name_is() {
    let named = |name| {
        let mut request = post("k", "a");
        let key = request.headers_mut().remove("idempotency-key").unwrap();
        request.headers_mut().insert("x-request-token", key);
        request.headers_mut().insert("x-request-token", HeaderValue::from_static(name));
        request
    };
    let lab = Lab::counting(layer().header_name(HeaderName::from_static("x-request-token")));
    assert_eq!(lab.send(named("k")).await.text(), "effect 1");
    assert!(lab.send(named("\"k\"")).await.is_replay(), "the same key, written otherwise");
}

#[tokio::test]
async fn the_name_of_a_scheme_is_compared_without_case_and_nothing_else_is() {
    for name in ["authorization", "proxy-authorization", "x-forwarded-authorization"] {
        let same = async |one, other| second(layer(), &[(name, one)], &[(name, other)]).await;
        for other in ["bearer tOken", "BEARER tOken", "Bearer  tOken", "bEaReR\ttOken"] {
            assert_eq!(same("Bearer tOken", other).await, "replayed", "{name}: {other}");
        }
        for (one, other) in [
            ("Bearer tOken", "Bearer token"),
            ("Bearer tOken", "Basic tOken"),
            ("Bearer tOken", "BearertOken"),
            ("Bearer tOken", "Bearer tOken x"),
            ("Bearer a  b", "Bearer a b"),
            // Without a scheme, the whole value is a secret.
            ("SeCret", "secret"),
            ("Bearer", "bearer"),
            ("SeCret ", "secret "),
        ] {
            assert_eq!(same(one, other).await, "credentials-changed", "{name}: {one} {other}");
        }
    }
    // Other headers have no scheme.
    assert_eq!(second(layer(), &[("x-token", "A b")], &[("x-token", "a b")]).await, "credentials-changed");
}

// A scheme is digested apart from its token: no other header replaces it.
#[tokio::test]
async fn a_scheme_is_not_taken_for_a_header() {
    let one = [("x-authorization", "bearer 1")];
    let other = [("x-authorization", "1"), ("scheme", "bearer"), ("a-scheme", "bearer")];
    let adding =
        || layer().credential_headers([HeaderName::from_static("scheme"), HeaderName::from_static("a-scheme")]);
    assert_eq!(second(adding(), &one, &other).await, "credentials-changed");
}

const ACME: HeaderName = HeaderName::from_static("acme-caller");

#[tokio::test]
async fn the_application_names_further_headers_that_say_who_asks() {
    assert_eq!(second(layer(), &[("acme-caller", "alice")], &[("acme-caller", "bob")]).await, "replayed");
    let adding = || layer().credential_headers([HeaderName::from_static("dpop"), ACME]);
    assert_separates(adding, "acme-caller").await;
    assert_separates(adding, "authorization").await;
    assert_separates(|| layer().credential_headers([HeaderName::from_static("x-csrf-token")]), "x-csrf-token").await;
}

#[tokio::test]
async fn a_scope_says_who_asks_whatever_the_headers_say() {
    let scoped = || layer().credential_headers([ACME]).scope(|_| Ok(Scope::new("alice")?));
    for name in ["acme-caller", "authorization", "x-forwarded-user"] {
        assert_eq!(second(scoped(), &[(name, "1")], &[(name, "2")]).await, "replayed", "{name}");
    }
}

// A stranger must not learn which of two layers has other options, so the options for credentials are compared together
// with the credentials. A record that was made with other options never counts as the same.
#[tokio::test]
async fn a_record_made_with_other_credential_options_is_never_answered_from() {
    let store = MemoryStore::new();
    let plain = || IdempotencyLayer::new(store.clone());
    let tenant = HeaderName::from_static("acme-tenant");
    let options = [
        plain(),
        plain().credential_headers([ACME]),
        plain().credential_headers([ACME, tenant.clone()]),
        plain().credential_cookies(["sid"]),
        plain().credential_cookies(["sid", "id"]),
        plain().credential_cookies([""; 0]),
        plain().credential_headers([ACME]).credential_cookies(["sid"]),
    ];
    for (number, recorded) in options.iter().enumerate() {
        let key = format!("k{number}");
        assert!(!Lab::counting(recorded.clone()).post(&key, "a").await.is_replay());
        for (other, presented) in options.iter().enumerate() {
            let lab = Lab::counting(presented.clone());
            let answer = lab.post(&key, "a").await;
            assert_eq!((answer.is_replay(), lab.effects()), (number == other, 0), "{number} {other}");
            if number != other {
                answer.assert_refusal(422, "credentials-changed", false, None);
            }
        }
    }
    // These are the same options in another form: a header on the list counts anyway.
    let turned = plain().credential_headers([tenant, ACME, ACME, HeaderName::from_static("x-api-key")]);
    assert!(Lab::counting(turned).post("k2", "a").await.is_replay());
    let none = plain().credential_headers([ACME]).credential_headers([]);
    assert!(Lab::counting(none).post("k0", "a").await.is_replay());
    let turned = plain().credential_cookies(["id", "sid", "id"]);
    assert!(Lab::counting(turned).post("k4", "a").await.is_replay());
    // Records that were made under a scope do not depend on these options.
    let scoped =
        |layer: &IdempotencyLayer<MemoryStore>| Lab::counting(layer.clone().scope(|_| Ok(Scope::new("alice")?)));
    assert_eq!(scoped(&options[0]).post("s", "a").await.text(), "effect 1");
    for layer in &options {
        assert!(scoped(layer).post("s", "a").await.is_replay());
    }
}

const LISTS: [&[&str]; 3] = [CREDENTIAL_HEADERS, EXEMPT_HEADERS, IGNORED_COOKIES];

/// Returns the fixed beginning of a name on a list.
fn stem(entry: &str) -> &str {
    entry.strip_suffix('*').unwrap_or(entry)
}

#[test]
fn the_lists_can_be_searched() {
    for list in LISTS {
        assert!(list.is_sorted_by(|one, other| stem(one) < stem(other)), "sorted, and no entry twice");
        for entry in list {
            let inner = entry.strip_prefix('*').unwrap_or(stem(entry));
            assert!(!inner.is_empty() && !inner.contains('*'), "{entry}");
            let hides = |other: &&&str| other.ends_with('*') && *other != entry && entry.starts_with(stem(other));
            assert_eq!(list.iter().find(hides), None, "{entry} is hidden");
        }
    }
    for entry in [CREDENTIAL_HEADERS, EXEMPT_HEADERS].concat() {
        assert!(HeaderName::from_lowercase(entry.replace('*', "x").as_bytes()).is_ok(), "{entry}");
    }
}

#[test]
fn a_list_that_changes_needs_another_version_of_fingerprints() {
    // If this fails, raise the `VERSION` in `src/fingerprint.rs` (once a version is released), and put the new
    // digest here.
    let digest = blake3::hash(LISTS.map(|list| list.join("\n")).join("\n\n").as_bytes()).to_hex();
    assert_eq!(&digest.as_str()[..16], "ace41ce9e47d75ca");
}
