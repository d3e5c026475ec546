//! PostgreSQL keeps the contract of a database that several processes share, rule by rule.

use tower_idempotency::conformance::backend::Subject;
use tower_idempotency::store::postgres::PostgresBackend;

use super::lab::{Lab, builder, lab};

async fn subject() -> Option<Subject<PostgresBackend>> {
    let Lab { url, namespace, backend, .. } = lab("the contract").await?;
    let beside = builder(&url, &namespace).open().await.unwrap();
    let another = builder(&url, &format!("{namespace}-another")).open().await.unwrap();
    Some(Subject::new(backend).beside(beside).another_namespace(another))
}

tower_idempotency::backend_conformance!(subject);
