//! With Diesel, on a thread that may wait.

use bytes::Bytes;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::{Binary, Text};
use diesel::{RunQueryDsl as _, sql_query};
use http::Response;
use tower_idempotency::server::Committed;

use crate::{Failure, Order};

/// Writes the order, its call and its record in one transaction. A program has `PgConnection` in place of the type
/// parameter, which is here because `PgConnection` needs `libpq`.
///
/// # Errors
/// The transaction was rolled back, or it is unknown whether it was committed.
pub fn order<C: LoadConnection<Backend = Pg>>(connection: &mut C, order: Order) -> Result<Committed, Failure> {
    let Order { store, outbox, context, answer, call } = order;
    let answer = Response::new(Bytes::from(answer));
    connection.transaction(|connection| {
        sql_query("INSERT INTO orders (amount) VALUES (500)").execute(connection)?;
        sql_query(outbox.put_sql()).bind::<Text, _>(outbox.put_parameter(&call)).execute(connection)?;
        // Last, just before the commit.
        let (record, committed) = store.record_for(&context, answer)?;
        let record = store.backend().query(&record)?;
        sql_query(record.sql()).bind::<Binary, _>(record.bytes()).execute(connection)?;
        Ok(committed)
    })
}
