//! With diesel-async.

use diesel::sql_query;
use diesel::sql_types::{Binary, Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use tower_idempotency::server::Committed;

use crate::{Failure, Order};

/// Writes the order, its call and its record in one transaction.
///
/// # Errors
/// The transaction was rolled back, or it is unknown whether it was committed.
pub async fn order(connection: &mut AsyncPgConnection, order: Order) -> Result<Committed, Failure> {
    let Order { store, outbox, context, answer, call } = order;
    let transaction = async |connection: &mut AsyncPgConnection| {
        sql_query("INSERT INTO orders (amount) VALUES (500)").execute(connection).await?;
        sql_query(outbox.put_sql()).bind::<Text, _>(outbox.put_parameter(&call)).execute(connection).await?;
        // Last, just before the commit.
        let committed = store
            .complete_with(&context, answer, |sql, record| sql_query(sql).bind::<Binary, _>(record).execute(connection))
            .await?;
        Ok(committed)
    };
    connection.transaction(transaction).await
}
