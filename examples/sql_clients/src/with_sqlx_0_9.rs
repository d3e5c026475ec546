//! With sqlx 0.9.

use sqlx::PgPool;
use tower_idempotency::server::Committed;

use crate::{Failure, Order};

/// Writes the order, its call and its record in one transaction.
///
/// # Errors
/// The transaction was rolled back, or it is unknown whether it was committed.
pub async fn order(pool: &PgPool, order: Order) -> Result<Committed, Failure> {
    let Order { store, outbox, context, answer, call } = order;
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO orders (amount) VALUES (500)").execute(&mut *transaction).await?;
    sqlx::query(outbox.put_sql()).bind(outbox.put_parameter(&call)).execute(&mut *transaction).await?;
    // Last, just before the commit.
    let committed = store
        .complete_with(&context, answer, |sql, record| sqlx::query(sql).bind(record).execute(&mut *transaction))
        .await?;
    transaction.commit().await?;
    Ok(committed)
}
