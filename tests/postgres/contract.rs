//! PostgreSQL keeps the contract of a database that several processes share, and the store over it that of stores, rule
//! by rule.

mod backend {
    use tower_idempotency::conformance::backend::Subject;
    use tower_idempotency::store::postgres::PostgresBackend;

    use crate::lab::{Lab, builder, lab};

    async fn subject() -> Option<Subject<PostgresBackend>> {
        let Lab { url, namespace, backend, .. } = lab("the contract").await?;
        let beside = builder(&url, &namespace).open().await.unwrap();
        let another = builder(&url, &format!("{namespace}-another")).open().await.unwrap();
        Some(Subject::new(backend).beside(beside).another_namespace(another))
    }

    tower_idempotency::backend_conformance!(subject);
}

mod store {
    use std::sync::Arc;
    use std::time::Duration;

    use tower_idempotency::conformance::store::Subject;
    use tower_idempotency::store::postgres::{PostgresBackend, PostgresStore};

    use crate::lab::lab;

    /// A process on a machine that is slow under test.
    async fn open(backend: PostgresBackend) -> PostgresStore {
        PostgresStore::builder().call_timeout(Duration::from_secs(5)).open(backend).await.unwrap()
    }

    async fn subject() -> Option<Subject<PostgresStore>> {
        let lab = Arc::new(lab("the contract of a store").await?);
        let (store, beside) = (open(lab.another().await).await, open(lab.another().await).await);
        let reopen = move || {
            let lab = Arc::clone(&lab);
            async move { open(lab.another().await).await }
        };
        Some(Subject::new(store).beside(beside).reopened_by(reopen).longest_outcome(16 << 20))
    }

    tower_idempotency::store_conformance!(subject);
}
