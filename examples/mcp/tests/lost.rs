//! What a client of the official SDK gets after it has lost an answer, in a session, in a new one, and without any.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use mcp::{Ledger, SharedLedger, protected, unprotected};
use rmcp::model::{CallToolRequestParams, CallToolResult, ProtocolVersion, RequestMetaObject};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
use rmcp::{RoleClient, model::ErrorData};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::proxy::{End, Fate, Pass, Proxy, Way};
use tower_idempotency::SledStore;

/// After how long a call is given up. A client waits for ever for a response that has another `id`.
const GIVE_UP: Duration = Duration::from_secs(60);

/// How server and clients speak.
#[derive(Debug, Clone, Copy)]
enum Revision {
    WithSessions,
    WithoutSessions,
    Of2026,
}

const REVISIONS: [Revision; 3] = [Revision::WithSessions, Revision::WithoutSessions, Revision::Of2026];

/// A connection whose answer to a call of a tool is lost, as long as some are to be lost.
struct Lost {
    is_call: AtomicBool,
    left: Arc<AtomicUsize>,
}

impl Fate for Lost {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        if way == Way::Request {
            self.is_call.fetch_or(bytes.windows(10).any(|part| part == b"tools/call"), Ordering::SeqCst);
        } else if self.is_call.load(Ordering::SeqCst)
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            return Pass::Cut(0, End::Rst);
        }
        Pass::On
    }
}

/// A server behind a way that loses answers.
struct Shop {
    revision: Revision,
    ledger: SharedLedger,
    way: Proxy,
    /// How many answers to calls are still to be lost.
    left: Arc<AtomicUsize>,
    _directory: TempDir,
}

impl Shop {
    async fn open(revision: Revision, is_protected: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Arc::new(tokio::sync::Mutex::new(Ledger::open(directory.path()).unwrap()));
        let has_sessions = matches!(revision, Revision::WithSessions);
        // The way has an address of its own.
        let config = StreamableHttpServerConfig::default().disable_allowed_hosts();
        let config = config.with_legacy_session_mode(has_sessions);
        let app = if is_protected {
            protected(&ledger, config, SledStore::open(directory.path().join("keys")).unwrap())
        } else {
            unprotected(&ledger, config)
        };
        let left = Arc::new(AtomicUsize::new(0));
        let to_lose = Arc::clone(&left);
        let fate = move |_| Some(Lost { is_call: AtomicBool::new(false), left: Arc::clone(&to_lose) });
        let way = Proxy::to(serve(app).await, fate).await;
        Self { revision, ledger, way, left, _directory: directory }
    }

    async fn client(&self) -> RunningService<RoleClient, ()> {
        let lifecycle = match self.revision {
            Revision::Of2026 => {
                ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
            }
            _ => ClientLifecycleMode::Initialize,
        };
        let transport = StreamableHttpClientTransport::from_uri(format!("http://{}/mcp", self.way.address()));
        ().serve_with_lifecycle(transport, lifecycle).await.unwrap()
    }

    async fn count(&self) -> usize {
        self.ledger.lock().await.count().unwrap()
    }
}

async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

type Paid = Result<CallToolResult, ServiceError>;

async fn pay(client: &RunningService<RoleClient, ()>, key: Option<&str>, amount: u64) -> Paid {
    let mut meta = RequestMetaObject::new();
    if let Some(key) = key {
        meta.insert("idempotencyKey".to_owned(), key.into());
    }
    call(client, meta, json!({ "amount": amount, "currency": "EUR" })).await
}

async fn call(client: &RunningService<RoleClient, ()>, meta: RequestMetaObject, arguments: Value) -> Paid {
    let mut call = CallToolRequestParams::new("pay");
    call.arguments = arguments.as_object().cloned();
    call.meta = Some(meta);
    tokio::time::timeout(GIVE_UP, client.call_tool(call)).await.expect("the client does not wait for ever")
}

/// The text of a result.
fn text(result: Paid) -> String {
    let result = result.unwrap();
    assert_eq!(result.is_error, Some(false));
    result.content[0].as_text().unwrap().text.clone()
}

fn error(result: Paid) -> ErrorData {
    match result.unwrap_err() {
        ServiceError::McpError(error) => error,
        other => panic!("{other:?}"),
    }
}

/// Pays, loses the answer, and asks again twice in the same session and once in a new one.
async fn pay_and_lose(shop: &Shop) -> HashSet<String> {
    let client = shop.client().await;
    shop.left.store(1, Ordering::SeqCst);
    pay(&client, Some("order-17"), 500).await.unwrap_err();
    assert_eq!(shop.left.load(Ordering::SeqCst), 0, "an answer was lost");
    let again = shop.client().await;
    let mut texts = HashSet::new();
    for client in [&client, &client, &again] {
        texts.insert(text(pay(client, Some("order-17"), 500).await));
    }
    texts
}

#[tokio::test]
async fn a_payment_whose_answer_is_lost_is_paid_once() {
    for revision in REVISIONS {
        let shop = Shop::open(revision, true).await;
        let texts = pay_and_lose(&shop).await;
        assert_eq!(texts, ["payment 1: 500 EUR".to_owned()].into(), "{revision:?}");
        assert_eq!(shop.count().await, 1, "{revision:?}");
        let arguments = json!({ "amount": 500, "currency": "EUR", "idempotency_key": "order-17" });
        let in_arguments = call(&shop.client().await, RequestMetaObject::new(), arguments).await;
        assert_eq!(text(in_arguments), "payment 1: 500 EUR", "{revision:?}: a model sets arguments alone");
        let other = text(pay(&shop.client().await, Some("order-18"), 500).await);
        assert_eq!(other, "payment 2: 500 EUR", "{revision:?}");
    }
}

#[tokio::test]
async fn without_the_layer_it_is_paid_each_time() {
    for revision in REVISIONS {
        let shop = Shop::open(revision, false).await;
        assert_eq!(pay_and_lose(&shop).await.len(), 3, "{revision:?}");
        assert_eq!(shop.count().await, 4, "{revision:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_an_error_that_the_client_can_read() {
    for revision in REVISIONS {
        let shop = Shop::open(revision, true).await;
        let client = shop.client().await;
        assert_eq!(client.list_all_tools().await.unwrap().len(), 1, "{revision:?}: it needs no key");
        let error_of_none = error(pay(&client, None, 500).await);
        assert_eq!(error_of_none.code.0, -32602, "{revision:?}");
        assert_eq!(error_of_none.data.unwrap()["effect"], "none", "{revision:?}");
        assert_eq!(shop.count().await, 0, "{revision:?}");
        text(pay(&client, Some("order-17"), 500).await);
        let error_of_other = error(pay(&client, Some("order-17"), 600).await);
        assert_eq!(error_of_other.data.unwrap()["effect"], "unknown", "{revision:?}");
        assert_eq!(shop.count().await, 1, "{revision:?}");
    }
}
