//! A server of tools over MCP, one of which pays: the tool `pay`, and a ledger of what was paid.
//!
//! The tool knows no keys. [`protected`] puts the layer around the server, so that a call which is tried again with the
//! same key is paid once.

use std::fs::{File, OpenOptions, read_to_string};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use serde::Deserialize;
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, SledStore};

/// The payments, a line each. A service of your own asks a bank.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens the ledger in a directory.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("payments.csv");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Returns how many payments there are.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn count(&self) -> io::Result<usize> {
        Ok(read_to_string(&self.path)?.lines().count())
    }

    fn pay(&mut self, amount: u64, currency: &str) -> io::Result<usize> {
        writeln!(self.file, "{amount},{currency}")?;
        self.file.sync_data()?;
        self.count()
    }
}

/// The ledger of a server's tools.
pub type SharedLedger = Arc<tokio::sync::Mutex<Ledger>>;

#[derive(Debug, Clone)]
struct Payments(SharedLedger);

#[derive(Debug, Deserialize, JsonSchema)]
struct Payment {
    /// In cents.
    amount: u64,
    /// Three letters, such as EUR.
    currency: String,
    /// Names this payment: a new UUID for each payment that you intend. To try again after a lost answer or an error,
    /// send the same call with the same key: it is paid once. Another key is another payment.
    #[expect(dead_code, reason = "the layer reads it")]
    idempotency_key: Option<String>,
}

#[tool_router]
impl Payments {
    /// Pays an amount, and says the number of the payment. Calls need a key, in `idempotency_key` or in
    /// `_meta.idempotencyKey`. A call with a key that was paid gets the first answer, and pays nothing.
    #[tool(annotations(destructive_hint = true, idempotent_hint = true))]
    async fn pay(&self, Parameters(Payment { amount, currency, .. }): Parameters<Payment>) -> Result<String, String> {
        let number = self.0.lock().await.pay(amount, &currency).map_err(|error| error.to_string())?;
        Ok(format!("payment {number}: {amount} {currency}"))
    }
}

#[tool_handler]
impl ServerHandler for Payments {}

/// The server without the layer. A call that is tried again pays twice.
pub fn unprotected(ledger: &SharedLedger, config: StreamableHttpServerConfig) -> Router {
    let payments = Payments(Arc::clone(ledger));
    let sessions = Arc::new(LocalSessionManager::default());
    Router::new().nest_service("/mcp", StreamableHttpService::new(move || Ok(payments.clone()), sessions, config))
}

/// The same server with the layer around it. Calls of tools need a key; all other messages are passed on.
pub fn protected(ledger: &SharedLedger, config: StreamableHttpServerConfig, store: SledStore) -> Router {
    let layer = IdempotencyLayer::new(store).profile(Profile::mcp()).require_key(true);
    unprotected(ledger, config).layer(layer)
}

// The examples of the guide's page are tested here, because the root does not know the SDK.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/agents.md")]
mod guide {}
