//! A transaction for each request, so that a handler has no line for exactly once: a recipe to copy.
//!
//! [`transaction`] is a middleware of axum, inside the layer. It begins a transaction, which the handler takes as an
//! argument, [`Tx`]. A success or a redirect is committed with its record; an error is rolled back. A service that says
//! "no" behind a 200 changes `is_error`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::{StatusCode, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tower_idempotency::IdempotencyContext;
use tower_idempotency_postgres::PostgresStore;

/// Why a handler is not answered. Without a record, the layer frees the key under `Rerun`, so that a retry runs.
type Unavailable = (StatusCode, String);

/// The transaction of a request, as an argument of its handler: `sqlx::query(…).execute(&mut **tx.0)`.
#[derive(Debug)]
pub struct Tx(pub OwnedMutexGuard<Transaction<'static, Postgres>>);

impl<S: Sync> FromRequestParts<S> for Tx {
    type Rejection = Unavailable;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Unavailable> {
        let shared = parts.extensions.get::<Arc<Mutex<Transaction<'static, Postgres>>>>().cloned();
        let own = shared.and_then(|shared| shared.try_lock_owned().ok());
        own.map(Self).ok_or_else(|| unavailable("the route has no transaction, or its handler takes two"))
    }
}

/// Runs the handler in a transaction, and commits that with the record of its answer.
///
/// # Errors
/// The database can't be reached, or has refused; the transaction was rolled back. If the commit has failed without an
/// answer, the layer finds out whether it took place, and the client gets what was recorded.
pub async fn transaction(
    State((store, pool)): State<(PostgresStore, PgPool)>,
    context: Option<IdempotencyContext>,
    mut request: Request,
    next: Next,
) -> Result<Response, Unavailable> {
    if context.is_none() && request.headers().contains_key("idempotency-key") {
        return Err(unavailable("the layer has to be outside of the transaction, and cover the route"));
    }
    let begun = Arc::new(Mutex::new(pool.begin().await.map_err(unavailable)?));
    request.extensions_mut().insert(Arc::clone(&begun));
    let answer = next.run(request).await;
    // The handler has dropped its own. If it gave it to a task, nothing is committed.
    let own = Arc::into_inner(begun).ok_or_else(|| unavailable("the handler has kept its transaction"))?;
    let mut transaction = own.into_inner();
    if is_error(answer.status()) {
        transaction.rollback().await.map_err(unavailable)?;
        return Ok(answer);
    }
    let answer = match context {
        // Last, just before the commit.
        Some(context) => store
            .complete_with(&context, answer, |sql, record| sqlx::query(sql).bind(record).execute(&mut *transaction))
            .await
            .map_err(unavailable)?
            .into_response(),
        None => answer,
    };
    transaction.commit().await.map_err(unavailable)?;
    Ok(answer)
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

pub(crate) fn unavailable(error: impl ToString) -> Unavailable {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
