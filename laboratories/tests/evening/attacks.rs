//! What pages of other hosts try, in a browser whose person is signed in: they act and frame, and neither works. The
//! page's own forms work, also where the browser says nothing of sites: over plain HTTP, under a name that is not this
//! machine's.

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use http::request::Parts;
use testkit::lab::Lab;
use testkit::process::until;
use tokio::net::TcpListener;
use tower_idempotency::operations::{Filter, StateKind};
use tower_idempotency::{IdempotencyLayer, MemoryStore, Unsure};
use tower_idempotency_admin::{Access, Actor, AdminPage};

use crate::browser::{Browser, Manner};

const NAMES: Manner = Manner {
    arguments: &["--host-resolver-rules=MAP *.example 127.0.0.1", "--disable-popup-blocking"],
    has_no_javascript: false,
};

/// An application with an interrupted operation and the page, which lets in everyone who comes.
struct Target {
    layer: IdempotencyLayer<MemoryStore>,
    port: u16,
    row: String,
}

impl Target {
    async fn start() -> Self {
        let layer = IdempotencyLayer::new(MemoryStore::new());
        let lab = Lab::new(layer.clone(), |_| async { (Unsure, http::StatusCode::GATEWAY_TIMEOUT) });
        lab.post("k", "a").await;
        let listed = layer.operations().list(&Filter::all(), None, 1).await.expect("the store works").operations;
        let row = format!("{}:{}", listed[0].id, listed[0].fence.0);
        let authorize = async |_: Parts| Ok(Actor::new("alice", Access::ALL));
        let page = AdminPage::new(layer.operations(), authorize);
        let port = serve(Router::new().nest("/ops", page.router())).await;
        Self { layer, port, row }
    }

    fn url(&self) -> String {
        format!("http://pay.example:{}/ops", self.port)
    }

    async fn is_settled(&self) -> bool {
        let filter = Filter::all().in_state(StateKind::Interrupted);
        self.layer.operations().list(&filter, None, 1).await.expect("the store works").operations.is_empty()
    }
}

async fn serve(app: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

/// A page of another host, which does this to the target.
async fn page(body: String) -> u16 {
    let app = Router::new().route("/", get(async |State(body): State<String>| Html(body))).with_state(body);
    serve(app).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_host_can_not_act() {
    let Some(browser) = Browser::start("a page of another host can't act", NAMES).await else { return };
    let target = Target::start().await;
    let (url, row) = (target.url(), &target.row);
    let attack = page(format!(
        r#"<form method="post" action="{url}"><input name="do" value="apply"><input name="action" value="release">
        <input name="row" value="{row}"><button id="go">A kitten</button></form>"#
    ))
    .await;
    // Another host, another name of the same site, and another port of the same name.
    for host in ["evil.example", "www.pay.example", "pay.example"] {
        browser.go(&format!("http://{host}:{attack}/")).await;
        browser.click("#go").await;
        until("an answer", async || browser.url().await.starts_with(&url)).await;
        browser.until_text("body", |body| body.contains("A POST must come from this page")).await;
        assert!(!target.is_settled().await, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_host_can_not_frame_or_read_the_page() {
    let Some(browser) = Browser::start("a page of another host can't frame the page", NAMES).await else { return };
    let target = Target::start().await;
    let url = target.url();
    let attack = page(format!(
        r#"<iframe src="{url}" width="900" height="900"></iframe><p id="said">waiting</p>
        <script>fetch("{url}/api/operations", {{ credentials: "include" }}).then((answer) => answer.text())
        .then((text) => {{ said.textContent = text }}, () => {{ said.textContent = "refused" }})</script>"#
    ))
    .await;
    browser.go(&format!("http://evil.example:{attack}/")).await;
    browser.until_text("#said", |said| said != "waiting").await;
    assert_eq!(browser.text("#said").await, "refused");
    browser.enter_frame("iframe").await;
    assert!(!browser.text("body").await.contains("Interrupted"), "the page is framed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_own_forms_work_over_plain_http_and_nothing_is_blocked() {
    let Some(browser) = Browser::start("the page's own forms work over plain HTTP", NAMES).await else { return };
    let target = Target::start().await;
    browser.go(&target.url()).await;
    browser.until_text("[data-count=runs] [data-part=rate]", |rate| rate != "–").await;
    browser.click("input[name=row]").await;
    browser.click("button[name=action][value=release]").await;
    browser.click("#confirm").await;
    browser.until_text("#results", |results| results.contains("Done: the key is free.")).await;
    assert!(target.is_settled().await);
    // Neither the policy nor a missing file has left an error.
    let mut errors = browser.errors().await;
    // The browser takes this header over TLS alone, and says so.
    errors.retain(|error| !error.contains("Cross-Origin-Opener-Policy"));
    assert!(errors.is_empty(), "{errors:?}");
}
