//! A server of tools over MCP, one of which pays: `cargo run -p mcp`. To keep what it writes, name a directory:
//! `cargo run -p mcp -- DIRECTORY`; and another address after it, if you like.
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
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".to_owned());

    let ledger = Arc::new(tokio::sync::Mutex::new(Ledger::open(&directory)?));
    let store = SledStore::open(directory.join("keys"))?;
    let app = protected(&ledger, StreamableHttpServerConfig::default(), store);

    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    println!("listening on {url}");
    println!("The ledger is {}. Send this twice; it pays once:\n", directory.join("payments.csv").display());
    println!("{}\n", call(&url));
    println!(
        "With another \"id\", the answer has that one. With another amount, it is refused. Ctrl-C ends the server."
    );
    Ok(axum::serve(listener, app).await?)
}

/// A call of revision 2026-07-28, which needs no session.
fn call(url: &str) -> String {
    let of_revision =
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;
    format!(
        r#"curl {url} -H 'Accept: application/json, text/event-stream' -H 'Content-Type: application/json' \
  -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: pay' \
  -d '{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"pay",
       "arguments":{{"amount":500,"currency":"EUR"}},"_meta":{{"idempotencyKey":"order-17",
       {of_revision}}}}}}}'"#
    )
}
