//! With SeaORM 2.

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, Statement, TransactionTrait as _};
use tower_idempotency::server::Committed;

use crate::{Failure, Order};

/// Writes the order, its call and its record in one transaction.
///
/// # Errors
/// The transaction was rolled back, or it is unknown whether it was committed.
pub async fn order(database: &DatabaseConnection, order: Order) -> Result<Committed, Failure> {
    let Order { store, outbox, context, answer, call } = order;
    let transaction = database.begin().await?;
    transaction.execute_unprepared("INSERT INTO orders (amount) VALUES (500)").await?;
    let (sql, parameter) = (outbox.put_sql(), outbox.put_parameter(&call));
    let put = Statement::from_sql_and_values(DbBackend::Postgres, sql, [parameter.into()]);
    transaction.execute_raw(put).await?;
    // Last, just before the commit.
    let committed = store
        .complete_with(&context, answer, |sql, record| {
            transaction.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, [record.into()]))
        })
        .await?;
    transaction.commit().await?;
    Ok(committed)
}
