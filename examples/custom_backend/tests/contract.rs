//! SQLite keeps the whole contract, and so does the store over it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use custom_backend::SqliteBackend;

mod backend {
    use tower_idempotency_conformance::backend::Subject;

    use super::*;

    /// A file of its own for each rule, opened as two processes open it.
    async fn subject() -> Subject<SqliteBackend> {
        let directory = tempfile::tempdir().unwrap();
        let open = |file| SqliteBackend::open(directory.path().join(file)).unwrap();
        let subject =
            Subject::new(open("payments")).another_process(open("payments")).another_namespace(open("orders"));
        subject.kept(directory)
    }

    tower_idempotency_conformance::backend_conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        subject
    );
}

mod store {
    use tower_idempotency::store::shared::SharedStore;
    use tower_idempotency_conformance::store::Subject;

    use super::*;

    async fn subject() -> Subject<SharedStore<SqliteBackend>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("payments");
        let open = move || {
            let backend = SqliteBackend::open(&path).unwrap();
            async { SharedStore::open(backend).await.unwrap() }
        };
        Subject::new(open().await).another_process(open().await).reopened_by(open).kept(directory)
    }

    tower_idempotency_conformance::store_conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        subject
    );
}
