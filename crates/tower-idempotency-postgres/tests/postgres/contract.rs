//! PostgreSQL keeps the contract of a database that several processes share and that of transactions, and the store
//! over it that of stores, rule by rule.

mod backend {
    use tower_idempotency_conformance::backend::BackendSubject;
    use tower_idempotency_postgres::PostgresBackend;

    use crate::lab::{Lab, builder, lab};

    async fn subject() -> Option<BackendSubject<PostgresBackend>> {
        let Lab { url, namespace, backend, .. } = lab("the contract").await?;
        let other = builder(&url, &namespace).open().await.unwrap();
        let another = builder(&url, &format!("{namespace}-another")).open().await.unwrap();
        Some(BackendSubject::new(backend).another_process(other).another_namespace(another))
    }

    tower_idempotency_conformance::backend_conformance!(subject);
}

/// A backend behind a proxy that holds puts back, without prepared statements.
mod backend_behind_a_proxy {
    use std::sync::Arc;

    use tower_idempotency_conformance::backend::BackendSubject;
    use tower_idempotency_postgres::PostgresBackend;
    use tower_idempotency_shared::{Backend as _, Clocks};

    use crate::connections::proxy::Proxy;
    use crate::lab::{Lab, builder, claim, id, is_done, lab, until};

    async fn subject() -> Option<BackendSubject<PostgresBackend>> {
        let Lab { url, namespace, backend: other, .. } = lab("the contract behind a proxy").await?;
        let proxy = Arc::new(Proxy::to(&url).await);
        let backend = builder(&proxy.url(), &namespace).behind_pooler().open().await.unwrap();
        Some(BackendSubject::new(backend).another_process(other).held_back_by(move || proxy.hold()))
    }

    tower_idempotency_conformance::backend_conformance!(subject);

    /// Otherwise the rules about late writes would show nothing.
    #[tokio::test]
    async fn the_proxy_holds_puts_back_and_nothing_else() {
        let Some(lab) = lab("that the proxy holds puts back").await else { return };
        let proxy = Proxy::to(&lab.url).await;
        let backend = builder(&proxy.url(), &lab.namespace).behind_pooler().open().await.unwrap();
        let let_go = proxy.hold();
        let write = claim(id(1));
        let put = backend.put(Clocks::default(), std::slice::from_ref(&write));
        let meanwhile = async {
            until("the put is held back", async || proxy.waiting() == 1).await;
            assert_eq!(backend.get(Clocks::default(), &[id(1)]).await.unwrap().rows, [None]);
            assert_eq!(lab.get(id(1)).await, None);
            lab.put(claim(id(2))).await.unwrap();
            let_go();
        };
        let (answer, ()) = tokio::join!(put, meanwhile);
        assert!(is_done(answer.unwrap().rows[0].as_ref(), &write));
    }
}

/// A server whose commits wait for a standby that never comes.
mod undurable {
    use std::thread;

    use tokio::runtime;
    use tower_idempotency_conformance::backend::{self as suite, BackendSubject};

    use crate::lab::{Lab, ask_for_a_standby, ask_for_no_standby, client, own_server};

    #[tokio::test]
    async fn a_row_that_a_call_shows_is_durable() {
        let Some(server) = own_server("that rows which are shown are durable", &[]) else { return };
        let lab = Lab::new(&server.url()).await;
        let other = lab.another().await;
        let url = lab.url;
        let subject = BackendSubject::new(lab.backend).another_process(other).kept(server);
        let set = move |is_undurable| {
            runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let client = client(&url).await;
                if is_undurable { ask_for_a_standby(&client, &url).await } else { ask_for_no_standby(&client).await }
            });
        };
        // A runtime can't wait within another one.
        let subject = subject.undurable_by(move |is| thread::scope(|scope| scope.spawn(|| set(is)).join().unwrap()));
        suite::rule("a_row_that_a_call_shows_is_durable", subject).await;
    }
}

mod store {
    use std::sync::Arc;
    use std::time::Duration;

    use tower_idempotency_conformance::store::StoreSubject;
    use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

    use crate::lab::lab;

    /// A process on a machine that is slow under test.
    async fn open(backend: PostgresBackend) -> PostgresStore {
        PostgresStore::builder().call_timeout(Duration::from_secs(5)).open(backend).await.unwrap()
    }

    async fn subject() -> Option<StoreSubject<PostgresStore>> {
        let lab = Arc::new(lab("the contract of a store").await?);
        let (store, other) = (open(lab.another().await).await, open(lab.another().await).await);
        let reopen = move || {
            let lab = Arc::clone(&lab);
            async move { open(lab.another().await).await }
        };
        Some(StoreSubject::new(store).another_process(other).reopened_by(reopen).longest_outcome(16 << 20))
    }

    tower_idempotency_conformance::store_conformance!(subject);
}

mod transaction {
    use std::sync::Arc;

    use tower_idempotency::store::CommitError;
    use tower_idempotency_conformance::transaction::TransactionSubject;
    use tower_idempotency_postgres::PostgresBackend;
    use tower_idempotency_shared::{RecordInTransaction as _, SharedStore};

    use crate::lab::{client, lab};

    async fn subject() -> Option<TransactionSubject<PostgresBackend>> {
        let lab = Arc::new(lab("the contract of transactions").await?);
        lab.sql("CREATE TABLE IF NOT EXISTS effects_$ ()").await;
        let store = SharedStore::open(lab.another().await).await.unwrap();
        let counted = Arc::clone(&lab);
        let count = move || {
            let lab = Arc::clone(&counted);
            async move {
                let count = format!("SELECT count(*) FROM effects_{}", lab.namespace);
                lab.client.query_one(&count, &[]).await.unwrap().get::<_, i64>(0).try_into().unwrap()
            }
        };
        let transact = move |record, end| {
            let lab = Arc::clone(&lab);
            async move {
                let mut client = client(&lab.url).await;
                let transaction = client.transaction().await.unwrap();
                let effect = format!("INSERT INTO effects_{} DEFAULT VALUES", lab.namespace);
                transaction.batch_execute(&effect).await.unwrap();
                lab.backend.write_in(&transaction, record).await?;
                let ended = if end.await { transaction.commit().await } else { transaction.rollback().await };
                ended.map_err(CommitError::Aborted)
            }
        };
        Some(TransactionSubject::new(store, transact, count))
    }

    tower_idempotency_conformance::transaction_conformance!(subject);
}
