//! A server without sessions cancels a call whose client is gone. The layer keeps it going.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body_util::BodyExt as _;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, ProtocolVersion,
    RequestMetaObject,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleClient, RoleServer, ServerHandler};
use testkit::Gate;
use testkit::proxy::Proxy;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, SledStore};

/// What happens in the server, in this order.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Begun,
    Gone,
    Cancelled,
    Paid,
}

/// A tool that takes its time, and looks whether its call is cancelled.
#[derive(Clone)]
struct Bank {
    events: UnboundedSender<Event>,
    gate: Gate,
}

impl ServerHandler for Bank {
    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.events.send(Event::Begun).unwrap();
        tokio::select! {
            biased;
            () = context.ct.cancelled() => {
                self.events.send(Event::Cancelled).unwrap();
                Err(ErrorData::internal_error("cancelled", None))
            }
            () = self.gate.pass() => {
                self.events.send(Event::Paid).unwrap();
                Ok(CallToolResult::success(vec![ContentBlock::text("paid")]).into())
            }
        }
    }
}

/// Says that the client of a call is gone: the answer, or what would be it, is dropped.
struct Goes(Option<UnboundedSender<Event>>);

impl Drop for Goes {
    fn drop(&mut self) {
        if let Some(events) = &self.0 {
            // An error: the test is over.
            let _ = events.send(Event::Gone);
        }
    }
}

async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

struct Server {
    way: Proxy,
    gate: Gate,
    events: UnboundedReceiver<Event>,
}

impl Server {
    async fn new(answers_json: bool, layer: Option<IdempotencyLayer<SledStore>>) -> Self {
        let (sender, events) = unbounded_channel();
        let bank = Bank { events: sender.clone(), gate: Gate::default() };
        let gate = bank.gate.clone();
        let config = StreamableHttpServerConfig::default().disable_allowed_hosts();
        let config = config.with_legacy_session_mode(false).with_json_response(answers_json);
        let sessions = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(bank.clone()), sessions, config);
        let mut app = Router::new().nest_service("/mcp", service);
        if let Some(layer) = layer {
            app = app.layer(layer);
        }
        let watch = from_fn(move |request: Request, next: Next| {
            let is_call = request.headers().get("mcp-method").is_some_and(|method| method == "tools/call");
            let goes = Goes(is_call.then(|| sender.clone()));
            async move {
                let response: Response = next.run(request).await;
                response.map(|body| {
                    Body::new(body.map_frame(move |frame| {
                        let _is_kept = &goes;
                        frame
                    }))
                })
            }
        });
        let way = Proxy::to(serve(app.layer(watch)).await, |_| Some(())).await;
        Self { way, gate, events }
    }

    async fn client(&self) -> RunningService<RoleClient, ()> {
        let transport = StreamableHttpClientTransport::from_uri(format!("http://{}/mcp", self.way.address()));
        let lifecycle = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        ().serve_with_lifecycle(transport, lifecycle).await.unwrap()
    }

    async fn sees(&mut self, event: Event) {
        let next = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
        assert_eq!(next.expect("it comes about"), Some(event));
    }

    /// Begins a call, and cuts its connection once its tool runs.
    async fn call_and_go(&mut self) {
        let client = self.client().await;
        let calling = tokio::spawn(async move { client.call_tool(call()).await });
        self.sees(Event::Begun).await;
        self.way.cut_all();
        self.sees(Event::Gone).await;
        calling.await.unwrap().unwrap_err();
    }
}

fn call() -> CallToolRequestParams {
    let mut meta = RequestMetaObject::new();
    meta.insert("idempotencyKey".to_owned(), "order-17".into());
    let mut call = CallToolRequestParams::new("pay");
    call.meta = Some(meta);
    call
}

#[tokio::test]
async fn a_call_whose_client_is_gone_goes_on() {
    for answers_json in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let layer = IdempotencyLayer::new(SledStore::open(directory.path()).unwrap()).profile(Profile::mcp());
        let mut server = Server::new(answers_json, Some(layer)).await;
        server.call_and_go().await;
        server.gate.open();
        server.sees(Event::Paid).await;
        let again = server.client().await.call_tool(call()).await.unwrap();
        assert_eq!(again.content[0].as_text().unwrap().text, "paid");
        while let Ok(event) = server.events.try_recv() {
            assert_ne!(event, Event::Begun, "the tool runs once");
        }
    }
}

#[tokio::test]
async fn without_the_layer_it_is_cancelled_and_its_client_learns_nothing() {
    for answers_json in [false, true] {
        let mut server = Server::new(answers_json, None).await;
        server.call_and_go().await;
        server.sees(Event::Cancelled).await;
    }
}
