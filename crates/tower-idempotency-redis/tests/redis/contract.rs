//! Redis keeps the contract of a database that several processes share, and the store over it that of stores, rule by
//! rule.

mod backend {
    use tower_idempotency_conformance::backend::BackendSubject;
    use tower_idempotency_redis::RedisBackend;

    use crate::lab::{Lab, builder, lab};

    async fn subject() -> Option<BackendSubject<RedisBackend>> {
        let Lab { url, namespace, backend } = lab("the contract").await?;
        let other = builder(&url, &namespace).open().await.unwrap();
        let another = builder(&url, &format!("{namespace}-another")).open().await.unwrap();
        Some(BackendSubject::new(backend).another_process(other).another_namespace(another))
    }

    tower_idempotency_conformance::backend_conformance!(subject);
}

/// A namespace has one slot, and so one of three nodes.
mod cluster {
    use testkit::redis::RedisServer;
    use tokio::sync::OnceCell;
    use tower_idempotency_conformance::backend::BackendSubject;
    use tower_idempotency_redis::RedisBackend;

    use crate::lab::{at, cluster, fresh};

    async fn subject() -> Option<BackendSubject<RedisBackend>> {
        static NODES: OnceCell<Option<Vec<RedisServer>>> = OnceCell::const_new();
        let nodes = NODES.get_or_init(|| cluster("the contract in a cluster", 3)).await.as_ref()?;
        let nodes: Vec<_> = nodes.iter().collect();
        let (namespace, another) = (fresh(), fresh());
        let open = async |namespace: &str| at("cluster", &nodes, "", namespace).open().await.unwrap();
        let subject = BackendSubject::new(open(&namespace).await).another_process(open(&namespace).await);
        Some(subject.another_namespace(open(&another).await))
    }

    tower_idempotency_conformance::backend_conformance!(subject);
}

/// The rules that need servers of their own.
mod servers {
    use std::sync::{Arc, Mutex};

    use tower_idempotency_conformance::backend::{self as suite, BackendSubject};
    use tower_idempotency_redis::Durability;

    use crate::lab::{builder, own_server, pair, replicated};

    #[tokio::test]
    async fn a_row_that_a_call_shows_is_durable() {
        let Some((primary, replica)) = pair("that rows which are shown are durable") else { return };
        let (one, other) = (replicated(&primary.url(), "n").open().await.unwrap(), replicated(&primary.url(), "n"));
        let other = other.open().await.unwrap();
        let subject = BackendSubject::new(one).another_process(other).kept(primary);
        let subject = subject.undurable_by(move |is| if is { replica.pause() } else { replica.resume() });
        suite::rule("a_row_that_a_call_shows_is_durable", subject).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_is_another_one_after_its_start_only() {
        let settings = ["appendonly yes", "appendfsync always"];
        let Some(server) = own_server("the number of a server that starts again", &settings) else { return };
        let open = async || builder(&server.url(), "n").durability(Durability::LocalAof).unwrap().open().await.unwrap();
        let subject = BackendSubject::new(open().await).another_process(open().await);
        let server = Arc::new(Mutex::new(server));
        let subject = subject.restarted_by(move || {
            let mut server = server.lock().unwrap();
            server.kill();
            server.start_again();
            std::future::ready(())
        });
        suite::rule("the_server_is_another_one_after_its_start_only", subject).await;
    }
}

mod store {
    use std::sync::Arc;
    use std::time::Duration;

    use tower_idempotency_conformance::store::StoreSubject;
    use tower_idempotency_redis::{RedisBackend, RedisStore};

    use crate::lab::lab;

    /// A process on a machine that is slow under test.
    async fn open(backend: RedisBackend) -> RedisStore {
        RedisStore::builder().call_timeout(Duration::from_secs(5)).open(backend).await.unwrap()
    }

    async fn subject() -> Option<StoreSubject<RedisStore>> {
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
