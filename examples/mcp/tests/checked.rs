//! `idem check` finds that a call of the tool is paid twice without the layer, and nothing with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use axum::Router;
use mcp::{Ledger, SharedLedger, protected, unprotected};
use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
use tempfile::tempdir;
use tower_idempotency::SledStore;
use tower_idempotency_check::{Outcome, Plan, Report};

async fn check(app: Router) -> Report {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    let plan = format!(
        r#"
        url = "http://{address}/mcp"
        profile = "mcp"
        tool = "pay"
        data = '{{"amount":500,"currency":"EUR"}}'
        key_from = "json:/params/arguments/idempotency_key"
        "#
    );
    Plan::from_toml(&plan).unwrap().run(|_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_keeps_every_check_with_the_layer_and_pays_twice_without_it() {
    for has_sessions in [true, false] {
        let config = StreamableHttpServerConfig::default().with_legacy_session_mode(has_sessions);
        let directory = tempdir().unwrap();
        let ledger: SharedLedger = Arc::new(tokio::sync::Mutex::new(Ledger::open(directory.path()).unwrap()));
        let store = SledStore::open(directory.path().join("keys")).unwrap();
        let report = check(protected(&ledger, config.clone(), store)).await;
        assert_eq!(report.exit_code(), 0, "{has_sessions} {}", report.to_text());
        let is_kept =
            |name: &str| report.checks.iter().any(|check| check.name == name && check.outcome == Outcome::Kept);
        assert!(is_kept("stream-cut") && is_kept("other-session") == has_sessions, "{}", report.to_text());

        let report = check(unprotected(&ledger, config)).await;
        assert_eq!(report.exit_code(), 1, "{has_sessions} {}", report.to_text());
        assert!(report.to_text().contains("the server does not look at keys"), "{}", report.to_text());
    }
}
