//! SQLite keeps all three contracts: of a database, of the store over it, and of transactions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use custom_backend::SqliteBackend;

mod backend {
    use tower_idempotency_conformance::backend::BackendSubject;

    use super::*;

    /// Opens a file of its own for each rule, as two processes do.
    async fn subject() -> BackendSubject<SqliteBackend> {
        let directory = tempfile::tempdir().unwrap();
        let open = |file| SqliteBackend::open(directory.path().join(file)).unwrap();
        let subject =
            BackendSubject::new(open("payments")).another_process(open("payments")).another_namespace(open("orders"));
        subject.kept(directory)
    }

    tower_idempotency_conformance::backend_conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        subject
    );
}

mod store {
    use tower_idempotency_conformance::store::StoreSubject;
    use tower_idempotency_shared::SharedStore;

    use super::*;

    async fn subject() -> StoreSubject<SharedStore<SqliteBackend>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("payments");
        let open = move || {
            let backend = SqliteBackend::open(&path).unwrap();
            async { SharedStore::open(backend).await.unwrap() }
        };
        StoreSubject::new(open().await).another_process(open().await).reopened_by(open).kept(directory)
    }

    tower_idempotency_conformance::store_conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        subject
    );
}

mod transaction {
    use custom_backend::Effect;
    use rusqlite::{Connection, Error};
    use tokio::runtime::Handle;
    use tower_idempotency_conformance::transaction::TransactionSubject;
    use tower_idempotency_shared::{RecordInTransaction as _, SharedStore};

    use super::*;

    async fn subject() -> TransactionSubject<SqliteBackend> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("payments");
        let backend = SqliteBackend::open(&path).unwrap();
        let application = Connection::open(&path).unwrap();
        application.execute_batch("CREATE TABLE effect (made)").unwrap();
        let store = SharedStore::open(backend.clone()).await.unwrap();
        let transact = move |record, end| {
            let (backend, runtime) = (backend.clone(), Handle::current());
            let effect: Effect = Box::new(move |transaction| {
                transaction.execute("INSERT INTO effect VALUES (1)", [])?;
                // The backend commits if the effect succeeds.
                if runtime.block_on(end) { Ok(()) } else { Err(Error::QueryReturnedNoRows) }
            });
            async move { backend.write_in(effect, record).await }
        };
        let effects = move || {
            let path = path.clone();
            async move {
                let connection = Connection::open(path).unwrap();
                let count = connection.query_row("SELECT count(*) FROM effect", [], |columns| columns.get::<_, i64>(0));
                count.unwrap().try_into().unwrap()
            }
        };
        TransactionSubject::new(store, transact, effects).kept(directory)
    }

    tower_idempotency_conformance::transaction_conformance!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        subject
    );
}
