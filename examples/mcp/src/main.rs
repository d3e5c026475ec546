//! A server of tools over MCP, one of which pays: `cargo run -p mcp`, or `cargo run -p mcp -- DIRECTORY` to keep what
//! it has written.
#![allow(clippy::print_stdout, reason = "it says where it listens, and how to try it")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use mcp::{Ledger, protected};
use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
use tokio::net::TcpListener;
use tower_idempotency::SledStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os().nth(1).map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let store = SledStore::open(directory.join("keys"))?;
    let ledger = Arc::new(tokio::sync::Mutex::new(Ledger::open(&directory)?));
    let app = protected(&ledger, StreamableHttpServerConfig::default(), store);

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    println!("listening on {url}; Ctrl-C ends it. A call of the tool, in {}:", directory.display());
    println!("{}", call(&url));
    println!("Send it twice: it pays once. With another \"id\", the answer has that one.");
    Ok(axum::serve(listener, app).await?)
}

/// A call of revision 2026-07-28, which needs no session.
fn call(url: &str) -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{"amount":500,"currency":"EUR"},
 "_meta":{"idempotencyKey":"order-17","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    format!(
        "curl -i {url} -H 'Accept: application/json, text/event-stream' -H 'Content-Type: application/json' \\\n \
         -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: pay' -d '\n{body}'"
    )
}
