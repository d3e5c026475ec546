//! With tokio-postgres, whose transaction the crates take as it is.

use bytes::Bytes;
use http::Response;
use tower_idempotency::server::Committed;
use tower_idempotency_postgres::tokio_postgres::Client;

use crate::{Failure, Order};

/// Writes the order, its call and its record in one transaction.
///
/// # Errors
/// The transaction was rolled back, or it is unknown whether it was committed.
pub async fn order(client: &mut Client, order: Order) -> Result<Committed, Failure> {
    let Order { store, outbox, context, answer, call } = order;
    let answer = Response::new(Bytes::from(answer));
    let transaction = client.transaction().await?;
    transaction.execute("INSERT INTO orders (amount) VALUES (500)", &[]).await?;
    outbox.put_in(&transaction, &call).await?;
    // Last, just before the commit.
    let committed = store.complete_in(&context, &transaction, answer).await?;
    transaction.commit().await?;
    Ok(committed)
}
