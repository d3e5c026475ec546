//! The description of the API says what the API does. That each path is described, and no other, is tested where the
//! routes are made.

use std::collections::BTreeMap;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use testkit::Answer;
use tower_idempotency::store::Store;
use tower_idempotency::{MemoryStore, RecordId};
use tower_idempotency_admin::{Access, AdminPage, Latencies};
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::SharedStoreBuilder;

use crate::desk::{Desk, PATH, authorize, from, layer};
use crate::schema::{resolved, violations};

const METHODS: [&str; 6] = ["get", "post", "put", "patch", "delete", "options"];

/// The description, and which of its answers were seen.
struct Described {
    document: Value,
    seen: BTreeMap<String, usize>,
}

impl Described {
    async fn by(desk: &Desk) -> Self {
        let document = desk.get("/api/openapi.json").await.json();
        let mut seen = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for status in operation["responses"].as_object().unwrap().keys() {
                    seen.insert(format!("{method} {path} {status}"), 0);
                }
            }
        }
        Self { document, seen }
    }

    /// Checks an answer against the description of its path, method and status.
    fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let status = answer.status.as_u16().to_string();
        let name = format!("{method} {path} {status}");
        *self.seen.get_mut(&name).unwrap_or_else(|| panic!("{name} is not described: {}", answer.text())) += 1;
        let described = &self.document["paths"][path][method]["responses"][&status];
        let described = resolved(&self.document, described);
        let content_type = answer.header("content-type").expect("a content type");
        let schema = &described["content"][content_type]["schema"];
        assert!(schema.is_object(), "{name}: {content_type} is not described");
        let violations = violations(&self.document, schema, &answer.json(), &name);
        assert!(violations.is_empty(), "{violations:#?}");
    }

    async fn get(&mut self, desk: &Desk, path: &str, uri: &str) {
        self.check("get", path, &desk.get(uri).await);
    }

    /// Sends a body that is as described, unless the answer is a 400.
    async fn post(&mut self, desk: &Desk, path: &str, body: Value) {
        let answer = desk.json(path, body.clone()).await;
        if answer.status == 200 {
            let schema = &self.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
            let violations = violations(&self.document, schema, &body, path);
            assert!(violations.is_empty(), "{violations:#?}");
        }
        self.check("post", path, &answer);
    }
}

#[tokio::test]
async fn each_answer_is_as_described_and_each_described_answer_is_given() {
    let (store, latencies) = (MemoryStore::new(), Latencies::new());
    store.observe(latencies.clone()).unwrap();
    let layer = layer(store);
    let page = AdminPage::new(layer.operations(), |parts| authorize(parts, Access::ALL)).latencies(latencies);
    let desk = Desk::of(layer.clone(), page);
    let mut described = Described::by(&desk).await;
    let (id, fence) = desk.interrupted("open").await;
    desk.charge("done", "17").await;
    let (done, done_fence) = desk.found("done").await;
    let none = RecordId::from_bytes([0; 32]);

    described.get(&desk, "/api/openapi.json", "/api/openapi.json").await;
    described.get(&desk, "/api/stats", "/api/stats").await;
    described.get(&Desk::over(layer.clone(), Access::ALL), "/api/stats", "/api/stats").await;
    for uri in ["/api/operations", "/api/operations?state=interrupted&older_than=1h&limit=1", "/api/operations?limit=0"]
    {
        described.get(&desk, "/api/operations", uri).await;
    }
    for id in [&id, &done, &none.to_string(), "wrong"] {
        described.get(&desk, "/api/operations/{id}", &format!("/api/operations/{id}")).await;
        described.get(&desk, "/api/operations/{id}/outcome", &format!("/api/operations/{id}/outcome")).await;
    }
    for uri in ["/api/disputed", "/api/disputed?limit=1001"] {
        described.get(&desk, "/api/disputed", uri).await;
    }
    for body in [json!({ "key": "open", "scope": ["acme"] }), json!({ "key": "none" }), json!({ "key": "" })] {
        described.post(&desk, "/api/find", body).await;
    }
    let answer = json!({ "status": 200, "headers": [["x", "y"]], "body": "eA==", "encoding": "base64" });
    let changes = [
        json!({ "id": id, "fence": "0", "action": "release" }),
        json!({ "id": id, "fence": fence, "action": "reconcile" }),
        json!({ "id": id, "fence": fence, "action": "answer", "answer": answer }),
        json!({ "id": done, "fence": done_fence, "action": "forget" }),
    ];
    described.post(&desk, "/api/changes", json!({ "changes": changes })).await;
    described.post(&desk, "/api/changes", json!({ "changes": [] })).await;
    let purge = json!({ "older_than": "0s", "state": "completed", "limit": 10 });
    let answers = json!({ "older_than": "0s", "answers_only": true });
    for body in [answers, purge, json!({}), json!({ "older_than": "0s", "limit": 0 })] {
        described.post(&desk, "/api/purge", body).await;
    }
    for path in ["/api/find", "/api/changes", "/api/purge"] {
        described.post(&desk, path, json!("x".repeat(5 << 20))).await;
    }
    let stranger = Desk::over(layer, Access::NONE);
    refused(&mut described, &stranger, 403).await;
    unavailable(&mut described).await;
    let missing: Vec<_> = described.seen.iter().filter(|(_, seen)| **seen == 0).map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "described, and not given: {missing:?}");
}

/// Sends one request to each path, which gets this status.
async fn refused<St: Store>(described: &mut Described, desk: &Desk<St>, status: u16) {
    for name in described.seen.clone().into_keys().filter(|name| name.ends_with(&status.to_string())) {
        let (method, rest) = name.split_once(' ').unwrap();
        let (path, _) = rest.split_once(' ').unwrap();
        let id = RecordId::from_bytes([0; 32]).to_string();
        let uri = path.replace("{id}", &id);
        let answer = match (method, path) {
            ("get", _) => desk.get(&uri).await,
            (_, "/api/find") => desk.json(&uri, json!({ "key": "k" })).await,
            _ => desk.json(&uri, json!({ "older_than": "0s" })).await,
        };
        assert_eq!(answer.status.as_u16(), status, "{name}");
        described.check(method, path, &answer);
    }
}

/// The store is closed.
async fn unavailable(described: &mut Described) {
    let store = SharedStoreBuilder::default().open(MemoryBackend::new()).await.unwrap();
    let desk = Desk::over(layer(store.clone()), Access::ALL);
    store.close().await.unwrap();
    refused(described, &desk, 503).await;
}

#[tokio::test]
async fn no_method_is_answered_that_is_not_described() {
    let desk = Desk::new();
    let document = desk.get("/api/openapi.json").await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in METHODS.into_iter().filter(|method| methods.get(method).is_none()) {
            let uri = format!("{PATH}{}", path.replace("{id}", "00"));
            let request = from(Request::builder().method(method.to_uppercase().as_str()).uri(uri));
            let request = request.header("sec-fetch-site", "same-origin").body(Body::empty()).unwrap();
            assert_eq!(desk.send(request).await.status, 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn each_described_parameter_of_a_list_is_taken_and_no_other_is() {
    let desk = Desk::new();
    desk.interrupted("k").await;
    let document = desk.get("/api/openapi.json").await.json();
    for (path, described) in [("operations", "/api/operations"), ("disputed", "/api/disputed")] {
        let parameters = document["paths"][described]["get"]["parameters"].as_array().unwrap();
        for parameter in parameters {
            let parameter = resolved(&document, parameter);
            let name = parameter["name"].as_str().unwrap();
            let value = match name {
                "state" => "interrupted",
                "cause" => "answered",
                "label" => "charge",
                "since" | "before" => "2026-11-22T10:03:07Z",
                "older_than" => "10m",
                "status" => "504",
                "scope" => &"0".repeat(64),
                "limit" => "10",
                // It is the `next` of a page.
                "after" => continue,
                other => panic!("{other}"),
            };
            let listed = desk.get(&format!("/api/{path}?{name}={value}")).await;
            assert_eq!(listed.status, 200, "{path}: {name}: {}", listed.text());
        }
        assert_eq!(desk.get(&format!("/api/{path}?colour=red")).await.status, 400, "{path}");
    }
    let listed = desk.get("/api/operations?cause=panicked").await.json();
    assert!(listed["operations"].as_array().unwrap().is_empty(), "the filter has an effect: {listed:#}");
}
