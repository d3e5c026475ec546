//! The payment server that the laboratories drive, as a program of their own.

#[tokio::main]
async fn main() {
    payment_server::main().await;
}
