//! SQLite keeps the whole contract.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use custom_backend::SqliteBackend;
use tower_idempotency::conformance::backend::Subject;

/// A file of its own for each rule, opened as two processes open it.
async fn subject() -> Subject<SqliteBackend> {
    let directory = tempfile::tempdir().unwrap();
    let open = |file| SqliteBackend::open(directory.path().join(file)).unwrap();
    let subject = Subject::new(open("payments")).beside(open("payments")).another_namespace(open("orders"));
    subject.kept(directory)
}

tower_idempotency::backend_conformance!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    subject
);
