//! Keys, and the requests that have one: a malformed key is refused, and a request that has none, or is not covered,
//! passes untouched (promises 7 and 8).

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, Request};
use testkit::lab::{Lab, keyed, layer, on_disk, with};
use tower_idempotency::internals::{HeaderError, read_key};
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{AnyStore, IdempotencyLayer, Key, KeyError, MemoryStore, Once, RecordId, Scope, SledStore};

// Row: not covered (default: POST and PATCH are), or no key where none is required → passed through untouched.

#[tokio::test]
async fn a_method_that_is_not_covered_passes_through_untouched() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let before = lab.effects();
        // The layer does not even read a key that it would refuse elsewhere.
        for key in ["k", "k", "not a key"] {
            let answer = lab.send(keyed(method, "/charges", key).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 200, "{method}");
            assert!(!answer.is_replay(), "{method}");
        }
        assert_eq!(lab.effects(), before + 3, "{method}");
    }
    assert!(store.is_empty());
}

#[tokio::test]
async fn post_and_patch_are_covered() {
    for method in ["POST", "PATCH"] {
        let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
        for replayed in [false, true] {
            let answer = lab.send(keyed(method, "/charges", "k").body("a".into()).unwrap()).await;
            assert_eq!((answer.text(), answer.is_replay()), ("effect 1", replayed), "{method}");
        }
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn a_request_without_a_key_passes_through_untouched() {
    let store = MemoryStore::new();
    let length = |body: Bytes| async move { body.len().to_string() };
    let app = Router::new().route("/charges", any(length)).layer(IdempotencyLayer::new(store.clone()));
    let lab = Lab::of(app);
    for _ in 0..2 {
        // This body is longer than that of a keyed request may be.
        let body = vec![b'x'; 1024 * 1024 + 1];
        let answer = lab.send(Request::post("/charges").body(body.into()).unwrap()).await;
        assert_eq!((answer.text(), answer.is_replay()), ("1048577", false));
    }
    assert!(store.is_empty());
}

// Row: more than one field line; bad quoted string; empty or blank; over 255 bytes; a byte outside the accepted set →
// 400 `key-malformed`.

#[tokio::test]
async fn trap_19_a_malformed_non_ascii_or_doubled_key_is_refused_and_never_unprotected() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store).fail_open(true));
    for key in ["", " ", "\u{1f4b3}", "cl\u{e9}", "\"open", "a,b", "two words"] {
        lab.send(with("idempotency-key", key)).await.assert_refusal(400, "key-malformed", false, None);
    }
    for second in ["k", "other", ""] {
        let doubled = keyed("POST", "/charges", "k").header("idempotency-key", second).body(Body::empty()).unwrap();
        lab.send(doubled).await.assert_refusal(400, "key-malformed", false, None);
    }
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn trap_26_a_key_on_a_safe_method_is_neither_answered_nor_stored_nor_refused() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).require_key(true));
    lab.post("k", "a").await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        for key in ["k", "not, a key"] {
            let answer = lab.send(keyed(method, "/charges", key).body(Body::empty()).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.is_replay()), (200, false), "{method}");
        }
    }
    assert_eq!((lab.effects(), store.len()), (7, 1));
}

#[tokio::test]
async fn trap_34_the_same_request_under_another_key_is_another_intent() {
    let lab = Lab::counting(layer());
    assert_eq!(lab.post("k1", "a").await.text(), "effect 1");
    assert_eq!(lab.post("k2", "a").await.text(), "effect 2");
    assert_eq!(lab.post("K1", "a").await.text(), "effect 3", "keys are case-sensitive");
}

#[tokio::test]
async fn header_name_is_where_the_key_is_read() {
    let lab = Lab::counting(layer().header_name(HeaderName::from_static("x-request-key")));
    let request = || Request::post("/charges").header("x-request-key", "k").body(Body::empty()).unwrap();
    lab.send(request()).await;
    assert!(lab.send(request()).await.is_replay());
    for run in ["effect 2", "effect 3"] {
        assert_eq!(lab.post("k", "a").await.text(), run, "no key at all");
    }
}

#[tokio::test]
async fn methods_are_covered_as_named_but_safe_ones_and_connect_never() {
    let named = ["PUT", "GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"].map(|name| name.parse::<Method>().unwrap());
    let lab = Lab::counting(layer().methods(named));
    let safe = ["GET", "HEAD", "OPTIONS", "TRACE"].map(|method| (method, 2));
    for (method, runs) in [("PUT", 1), ("POST", 2), ("CONNECT", 2)].into_iter().chain(safe) {
        let before = lab.effects();
        for _ in 0..2 {
            lab.send(keyed(method, "/charges", method).body(Body::empty()).unwrap()).await;
        }
        assert_eq!(lab.effects() - before, runs, "{method}");
    }
}

/// Sends a request with this method and key twice. Returns the statuses, and the effects.
async fn twice(lab: &Lab, method: &str, key: Option<&str>) -> ([u16; 2], usize) {
    let before = lab.effects();
    let mut statuses = [0; 2];
    for status in &mut statuses {
        let request = Request::builder().method(method).uri("/charges");
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        *status = lab.send(request.body(Body::empty()).unwrap()).await.status.as_u16();
    }
    (statuses, lab.effects() - before)
}

// Row: the method differs from a covered one in the case of its letters alone → 501. Services over WSGI read it without
// its case. Seeded fault: such a method passes.
#[tokio::test]
async fn a_method_in_other_letters_than_a_covered_one_is_refused_and_never_unprotected() {
    let put = "PUT".parse::<Method>().unwrap();
    let small = "purge".parse::<Method>().unwrap();
    for (layer, refused, passed) in [
        (layer(), &["post", "Post", "patch", "pATCH"][..], &["put", "get", "delete", "PURGE"][..]),
        (layer().methods([put, small]), &["put", "PURGE", "Purge"], &["post", "patch"]),
        (layer().require_key(true), &["post", "Put", "DELETe", "get", "purge"], &[]),
        (layer().covers(|parts| parts.uri.path() != "/charges"), &[], &["post", "patch"]),
        (layer().require_key(true).covers(|_| false), &[], &["patch", "delete"]),
        // The application compares with the method that it knows.
        (layer().covers(|parts| parts.method == Method::POST), &["post"], &["patch"]),
        (layer().require_key(true).covers(|parts| parts.method == Method::PUT), &["put"], &["post", "delete"]),
    ] {
        let lab = Lab::counting(layer);
        for (method, key) in refused.iter().flat_map(|method| [(method, None), (method, Some("k"))]) {
            assert_eq!(twice(&lab, method, key).await, ([501; 2], 0), "{method} {key:?}");
        }
        for (method, key) in passed.iter().flat_map(|method| [(method, None), (method, Some("k"))]) {
            assert_eq!(twice(&lab, method, key).await, ([200; 2], 2), "{method} {key:?}");
        }
    }
    let lab = Lab::counting(layer());
    let refused = lab.send(keyed("patch", "/charges", "k").body(Body::empty()).unwrap()).await;
    refused.assert_refusal(501, "custom", false, None);
    assert!(refused.text().contains("patch"), "{}", refused.text());
    assert_eq!(refused.header("idempotency-effect"), Some("none;retry=?0"));
}

// Seeded faults: only the named methods need a key; a method that is not named runs unprotected with its key.
#[tokio::test]
async fn require_key_is_for_every_method_that_is_not_safe() {
    let lab = Lab::counting(layer().require_key(true));
    for method in ["POST", "PATCH", "PUT", "DELETE", "PROPPATCH"] {
        assert_eq!(twice(&lab, method, None).await, ([400; 2], 0), "{method}");
        assert_eq!(twice(&lab, method, Some(method)).await, ([200; 2], 1), "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"] {
        assert_eq!(twice(&lab, method, None).await, ([200; 2], 2), "{method}");
    }
    let lab = Lab::counting(layer().require_key(true).covers(|parts| parts.method == Method::POST));
    assert_eq!(twice(&lab, "DELETE", None).await, ([200; 2], 2), "`covers` leaves it out");
}

#[tokio::test]
async fn covers_says_which_requests_are_covered() {
    let lab = Lab::counting(layer().require_key(true).covers(|parts| parts.uri.path().starts_with("/charges")));
    for (path, runs) in [("/charges", 1), ("/search", 2)] {
        let before = lab.effects();
        for _ in 0..2 {
            lab.send(keyed("POST", path, path).body(Body::empty()).unwrap()).await;
        }
        assert_eq!(lab.effects() - before, runs, "{path}");
    }
    let keyless = |path| lab.send(Request::post(path).body(Body::empty()).unwrap());
    assert_eq!(keyless("/charges").await.problem(), "key-missing");
    assert_eq!(keyless("/search").await.status, 200);
}

// Row: no key where `require_key` → 400 `key-missing`.

#[tokio::test]
async fn require_key_and_strict_keys_refuse_what_they_say() {
    let lab = Lab::counting(layer().require_key(true).strict_keys(true));
    lab.send(Request::post("/").body(Body::empty()).unwrap()).await.assert_refusal(400, "key-missing", false, None);
    lab.post("bare", "a").await.assert_refusal(400, "key-malformed", false, None);
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.post("\"quoted\"", "a").await.text(), "effect 1");
}

const NAME: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns the key that is read from these header lines.
fn read(values: &[&[u8]], strict: bool) -> Result<Option<Key>, HeaderError> {
    let lines = values.iter().map(|value| (NAME, HeaderValue::from_bytes(value).unwrap()));
    let mut headers = HeaderMap::new();
    headers.extend(lines);
    read_key(&headers, &NAME, strict)
}

fn accepted(text: &str) -> Result<Option<Key>, HeaderError> {
    Ok(Some(key(text)))
}

#[test]
fn trap_20_a_quoted_and_a_bare_key_are_the_same_key() {
    assert_eq!(read(&[b"abc"], false), accepted("abc"));
    assert_eq!(read(&[b"\"abc\""], false), accepted("abc"));
    assert_eq!(read(&[b"\"abc\";v=1; w"], false), accepted("abc"));
    assert_eq!(read(&[b"\"a\\\"b, c\""], false), accepted("a\"b, c"));
}

#[test]
fn keys_that_clients_are_known_to_send_are_accepted() {
    for sent in ["8e03978e-40d5-43e8-bc93-6894a57f9324", "stripe-node-retry-8e03978e-40d5", "cart_42!", "\"17\""] {
        assert!(matches!(read(&[sent.as_bytes()], false), Ok(Some(_))), "{sent}");
    }
}

#[test]
fn trap_19_what_is_not_a_key_is_an_error_and_never_no_key() {
    let malformed: [&[u8]; 14] = [
        b"",
        b"\"",
        b"\"abc",
        b"\"abc\"x",
        b"\"a\\b\"",
        b"\"\"",
        b"\"  \"",
        b"a b",
        b"a,b",
        b"a;b",
        b"a\"b",
        b"a\\b",
        "clé".as_bytes(),
        b"\"a\", \"b\"",
    ];
    for value in malformed {
        assert!(read(&[value], false).is_err(), "{:?}", String::from_utf8_lossy(value));
    }
    assert_eq!(read(&[b"a", b"a"], false), Err(HeaderError::Repeated(NAME)));
    assert_eq!(read(&[b"\"a\"", b""], false), Err(HeaderError::Repeated(NAME)));
    assert!(read(&["k".repeat(256).as_bytes()], false).is_err());
    assert_eq!(read(&["k".repeat(255).as_bytes()], false), accepted(&"k".repeat(255)));
    assert_eq!(read(&[format!("\"{}\"", "k".repeat(255)).as_bytes()], false), accepted(&"k".repeat(255)));
}

#[test]
fn a_key_that_quotes_would_help_is_told_so_and_no_other() {
    assert_eq!(read(&[b"a b"], false), Err(HeaderError::BadBare(NAME)));
    assert_eq!(read(&[b"\"a b\""], false), accepted("a b"));
    for value in ["clé".as_bytes(), b"a\tb"] {
        assert_eq!(read(&[value], false), Err(HeaderError::NotAscii(NAME)));
        assert!(read(&[&[b"\"", value, b"\""].concat()], false).is_err());
    }
}

#[test]
fn strict_mode_takes_quoted_keys_only() {
    assert_eq!(read(&[b"abc"], true), Err(HeaderError::NotQuoted(NAME)));
    assert_eq!(read(&[b"\"abc\""], true), accepted("abc"));
    let empty = HeaderError::Key { name: NAME, source: KeyError::Empty };
    assert_eq!(read(&[b""], true), Err(empty), "quotes would not help");
    assert_eq!(read(&[], true), Ok(None));
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn scope(parts: &[&str]) -> Scope {
    parts[1..].iter().fold(Scope::new(parts[0]).unwrap(), |scope, part| scope.and(part).unwrap())
}

#[test]
fn a_key_is_one_to_255_printable_bytes() {
    assert!(Key::new(&"k".repeat(255)).is_ok());
    assert_eq!(Key::new(&"k".repeat(256)), Err(KeyError::TooLong { bytes: 256 }));
    assert_eq!(Key::new(""), Err(KeyError::Empty));
    assert_eq!(Key::new("  "), Err(KeyError::Empty));
    assert_eq!(Key::new("abc\u{e9}"), Err(KeyError::Character { at: 3 }));
    assert_eq!(Key::new("a\tb"), Err(KeyError::Character { at: 1 }));
}

#[test]
fn neither_debug_output_shows_what_it_holds() {
    assert_eq!(format!("{:?}", key("secret")), "Key(6 bytes)");
    assert!(!format!("{:?}", scope(&["alice"])).contains("alice"));
    let id = RecordId::new(None, &key("secret"));
    assert_eq!(format!("{id:?}"), format!("RecordId({}…)", &id.to_string()[..8]));
}

// Found when a server logged its layer at DEBUG: sled's trees show all their keys and values.
#[tokio::test]
async fn trap_120_no_debug_output_of_a_store_or_a_layer_shows_what_was_sent_or_answered() {
    let (_sled, sled) = on_disk(SledStore::builder());
    #[cfg(feature = "fjall")]
    let (_fjall, fjall) = on_disk(tower_idempotency::FjallStore::builder());
    for store in [
        AnyStore::new(sled),
        #[cfg(feature = "fjall")]
        AnyStore::new(fjall),
        AnyStore::new(MemoryStore::new()),
        AnyStore::new(TestStore::new()),
    ] {
        let layer = IdempotencyLayer::new(store.clone());
        let lab = Lab::new(layer.clone(), |_| async { "secret" });
        for number in 0..20 {
            lab.post(&format!("secret-{number}"), "secret").await;
        }
        let once = Once::<_, ()>::new(store.clone());
        for shown in [format!("{store:?}"), format!("{layer:?}"), format!("{once:?}"), format!("{:#?}", layer.clone())]
        {
            // As a text, and as the numbers of its bytes in a row or in lines.
            assert!(!shown.contains("secret") && !shown.contains("115, 101") && !shown.contains("115,\n"), "{shown}");
            assert!(shown.len() < 4_000, "{shown}");
        }
    }
}

#[test]
fn trap_24_scope_parts_are_length_prefixed_and_never_run_together() {
    let (one, two) = (scope(&["a:b", "c"]), scope(&["a", "b:c"]));
    assert_ne!(RecordId::new(Some(&one), &key("k")), RecordId::new(Some(&two), &key("k")));
    let shifted = RecordId::new(Some(&scope(&["ab"])), &key("c"));
    assert_ne!(shifted, RecordId::new(Some(&scope(&["a"])), &key("bc")));
    assert_ne!(RecordId::new(None, &key("k")), RecordId::new(Some(&scope(&["k"])), &key("k")));
}

#[test]
fn no_scope_has_an_empty_part_in_which_all_strangers_would_meet() {
    assert!(Scope::new("").is_err());
    assert!(Scope::new("tenant").unwrap().and("").is_err());
}

#[test]
fn a_record_id_survives_its_text() {
    let id = RecordId::new(Some(&scope(&["a"])), &key("k"));
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in ["xyz".to_owned(), "é".repeat(32), "+f".repeat(32)] {
        assert!(text.parse::<RecordId>().is_err(), "{text}");
    }
    assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
}
