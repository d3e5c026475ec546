//! Serves the payments: `cargo run -p exactly-once-tokio-postgres -- postgres://user:password@host/database`.

use exactly_once_tokio_postgres::{Bank, Failure};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).ok_or("give the database's URL: postgres://user:password@host/database")?;
    let bank = Bank::open(&url).await?;
    let listener = TcpListener::bind("127.0.0.1:4243").await?;
    eprintln!("try: curl -i -X POST http://127.0.0.1:4243/payments -H 'Idempotency-Key: order-17'");
    axum::serve(listener, bank.app()).await?;
    Ok(())
}
