//! Effect and record in one transaction of SQLite. A process is killed between the two, or after their commit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use custom_backend::{Effect, SqliteBackend};
use rusqlite::Connection;
use tower_idempotency::OnInterrupted;
use tower_idempotency::engine::{EffectError, OnceContext, OnceError, Outcome};
use tower_idempotency::store::{CommitError, TransactionError};
use tower_idempotency::{Fingerprint, Key, Once, RecordId};
use tower_idempotency_shared::{BackendError, RecordInTransaction as _, SharedStore};

type Store = SharedStore<SqliteBackend>;

/// The moment at which a process kills itself.
#[derive(Clone, Copy, PartialEq)]
enum Killed {
    BetweenEffectAndRecord,
    AfterTheCommit,
    Never,
}

/// The variable that makes this test program a child process, with the file and the moment.
const CHILD: &str = "CUSTOM_BACKEND_CHILD";

async fn open(file: &Path) -> Store {
    Connection::open(file).unwrap().execute_batch("CREATE TABLE IF NOT EXISTS charge (key TEXT)").unwrap();
    let short = Store::builder().call_timeout(Duration::from_secs(1)).lease(Duration::from_secs(6));
    short.open(SqliteBackend::open(file).unwrap()).await.unwrap()
}

fn charge(killed: Killed) -> Effect {
    Box::new(move |transaction| {
        transaction.execute("INSERT INTO charge VALUES ('order-17')", [])?;
        if killed == Killed::BetweenEffectAndRecord {
            std::process::abort();
        }
        Ok(())
    })
}

async fn order(store: &Store, killed: Killed) -> Result<Outcome<String>, OnceError<CommitError<BackendError>>> {
    let once = Once::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    let (store, outcome) = (store.clone(), "charged".to_owned());
    let effect = move |context: OnceContext<String>| async move {
        let committed = store.complete_in(&context, charge(killed), outcome).await;
        if killed == Killed::AfterTheCommit {
            std::process::abort();
        }
        committed.map_err(EffectError::NotStarted)
    };
    once.run(RecordId::new(None, &Key::new("order-17").unwrap()), Fingerprint::of(b"5 EUR"), effect).await
}

fn charges(file: &Path) -> i64 {
    Connection::open(file).unwrap().query_row("SELECT count(*) FROM charge", [], |columns| columns.get(0)).unwrap()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn child(what: &str) {
    let (moment, file) = what.split_once(' ').unwrap();
    let killed = if moment == "between" { Killed::BetweenEffectAndRecord } else { Killed::AfterTheCommit };
    let _ = order(&open(&PathBuf::from(file)).await, killed).await;
}

/// Runs the operation in a process that dies. Another process retries it until it is answered.
async fn a_process_dies(moment: &str, charged_before: i64) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("payments");
    let arguments = ["--exact", "the_child", "--nocapture"];
    let mut dies = Command::new(std::env::current_exe().unwrap());
    let died = dies.args(arguments).env(CHILD, format!("{moment} {}", file.display())).output().unwrap();
    assert!(!died.status.success(), "{died:?}");
    assert_eq!(charges(&file), charged_before);
    let store = open(&file).await;
    let outcome = loop {
        match order(&store, Killed::Never).await {
            Ok(outcome) => break outcome,
            // The session of the process that died is not over yet; or the disk is busy for longer than `call_timeout`,
            // and nothing was done.
            Err(OnceError::InFlight | OnceError::Unavailable) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((outcome.value.as_str(), outcome.replayed), ("charged", charged_before == 1));
    assert_eq!(charges(&file), 1);
}

#[test]
fn the_child() {
    if let Ok(what) = std::env::var(CHILD) {
        child(&what);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_between_effect_and_record_has_done_nothing_and_the_retry_charges() {
    a_process_dies("between", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_after_the_commit_has_charged_and_the_retry_is_answered() {
    a_process_dies("after", 1).await;
}

#[tokio::test]
async fn a_run_that_has_committed_commits_no_second_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("payments");
    let store = open(&file).await;
    let once = Once::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    // The transaction has decided how the run ends, so a panic of the effect would not be seen.
    let (send, again) = tokio::sync::oneshot::channel();
    let effect = move |context: OnceContext<String>| async move {
        let recorded = store.record_for(&context, "charged".to_owned());
        let (record, outcome) = recorded.map_err(EffectError::NotStarted)?;
        let backend = store.backend();
        backend.write_in(charge(Killed::Never), record.clone()).await.map_err(EffectError::NotStarted)?;
        send.send(backend.write_in(charge(Killed::Never), record).await).unwrap();
        Ok::<_, EffectError<CommitError<BackendError>>>(outcome)
    };
    let id = RecordId::new(None, &Key::new("order-17").unwrap());
    assert!(once.run(id, Fingerprint::of(b"5 EUR"), effect).await.is_ok());
    let again = again.await.unwrap();
    assert!(matches!(again, Err(CommitError::Superseded)), "{again:?}");
    assert_eq!(charges(&file), 1);
}

#[tokio::test]
async fn an_outcome_that_json_can_t_have_is_refused_before_the_transaction_and_the_id_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("payments");
    let store = open(&file).await;
    let once = Once::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    let id = RecordId::new(None, &Key::new("order-17").unwrap());
    let effect = async move |context: OnceContext<BTreeMap<(u8, u8), u8>>| {
        let outcome = BTreeMap::from([((1, 2), 3)]);
        let committed = store.complete_in(&context, charge(Killed::Never), outcome).await;
        assert!(matches!(committed, Err(CommitError::Refused(TransactionError::Unwritable(_)))), "{committed:?}");
        Err(EffectError::NotStarted("unwritable"))
    };
    once.run(id, Fingerprint::of(b"5 EUR"), effect).await.unwrap_err();
    assert_eq!(charges(&file), 0);
    let effect = async |_| Ok::<_, EffectError<&str>>(BTreeMap::new());
    assert!(!once.run(id, Fingerprint::of(b"5 EUR"), effect).await.unwrap().replayed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_whose_record_can_t_be_written_is_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("payments");
    let store = open(&file).await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON idempotency WHEN NEW.kind = 3
        BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    Connection::open(&file).unwrap().execute_batch(refuse).unwrap();
    let refused = order(&store, Killed::Never).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(charges(&file), 0);
    Connection::open(&file).unwrap().execute_batch("DROP TRIGGER refuse").unwrap();
    assert!(!order(&store, Killed::Never).await.unwrap().replayed);
    assert_eq!(charges(&file), 1);
}
