//! The database in memory keeps the contract of transactions, and an application or a database that breaks it is caught
//! by the rule's name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_idempotency::store::CommitError;
use tower_idempotency_conformance::memory_backend::{MemoryBackend, MemoryTransaction};
use tower_idempotency_conformance::transaction::{End, RULES, TransactionSubject, rule};
use tower_idempotency_shared::{BackendError, RecordInTransaction as _, RunRecord, SharedStore};

/// A fault of a database, or of the application over it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// There is none.
    None,
    /// The record is not written.
    NoRecord,
    /// The effect is not part of the transaction.
    EffectApart,
    /// The record is committed before the transaction ends.
    RecordApart,
    /// The row is not locked before the transaction ends.
    NoLock,
    /// A rollback leaves the row locked.
    LockIsKept,
    /// A record that is superseded is taken for written.
    SupersededIsOk,
}

/// The faults, and a rule that catches each of them.
const CAUGHT: [(Fault, &str); 6] = [
    (Fault::NoRecord, "a_committed_transaction_leaves_effect_and_record"),
    (Fault::EffectApart, "a_transaction_that_is_rolled_back_leaves_neither"),
    (Fault::RecordApart, "a_transaction_that_is_rolled_back_leaves_neither"),
    (Fault::NoLock, "an_open_transaction_keeps_its_row"),
    (Fault::LockIsKept, "a_transaction_that_is_rolled_back_leaves_neither"),
    (Fault::SupersededIsOk, "a_run_that_was_taken_over_commits_nothing"),
];

type Error = CommitError<BackendError>;

/// A database whose only effect is a number.
#[derive(Debug, Clone)]
struct App {
    backend: MemoryBackend,
    effects: Arc<AtomicUsize>,
    fault: Fault,
}

impl App {
    async fn transact(self, record: RunRecord, end: End) -> Result<(), Error> {
        let mut transaction = self.backend.transaction();
        let charge = || self.effects.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::None => self.write_in(&mut transaction, record).await?,
            Fault::NoRecord => {}
            Fault::EffectApart => {
                self.write_in(&mut transaction, record).await?;
                charge();
            }
            Fault::RecordApart => {
                self.write_in(&mut transaction, record).await?;
                let apart = std::mem::replace(&mut transaction, self.backend.transaction());
                apart.commit().map_err(CommitError::Aborted)?;
            }
            Fault::NoLock => {
                let commits = end.await;
                self.write_in(&mut transaction, record).await?;
                return self.commit(transaction, commits);
            }
            Fault::LockIsKept => {
                self.write_in(&mut transaction, record).await?;
                if !end.await {
                    Box::leak(Box::new(transaction));
                    return Ok(());
                }
                return self.commit(transaction, true);
            }
            Fault::SupersededIsOk => match self.write_in(&mut transaction, record).await {
                Ok(()) | Err(CommitError::Superseded) => {}
                Err(error) => return Err(error),
            },
        }
        let commits = end.await;
        if self.fault == Fault::EffectApart {
            return if commits { transaction.commit().map_err(CommitError::Aborted) } else { Ok(()) };
        }
        self.commit(transaction, commits)
    }

    async fn write_in(&self, transaction: &mut MemoryTransaction, record: RunRecord) -> Result<(), Error> {
        self.backend.write_in(transaction, record).await
    }

    fn commit(&self, transaction: MemoryTransaction, commits: bool) -> Result<(), Error> {
        if commits {
            transaction.commit().map_err(CommitError::Aborted)?;
            self.effects.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

async fn with(fault: Fault) -> TransactionSubject<MemoryBackend> {
    let backend = MemoryBackend::new();
    let store = SharedStore::open(backend.clone()).await.unwrap();
    let app = App { backend, effects: Arc::default(), fault };
    let counted = Arc::clone(&app.effects);
    let effects = move || std::future::ready(counted.load(Ordering::SeqCst));
    TransactionSubject::new(store, move |record, end| app.clone().transact(record, end), effects)
}

async fn subject() -> TransactionSubject<MemoryBackend> {
    with(Fault::None).await
}

tower_idempotency_conformance::transaction_conformance!(
    #[tokio::test(start_paused = true)]
    subject
);

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_transaction_is_caught_by_its_rule() {
    for (fault, name) in CAUGHT {
        let tried = tokio::spawn(async move { rule(name, with(fault).await).await });
        let caught = tried.await.expect_err("a fault was not caught").into_panic();
        let message = caught.downcast_ref::<String>().unwrap();
        assert!(message.contains(&format!("the rule `{name}` does not hold")), "{fault:?}: {message}");
        println!("{fault:?}: {message}");
    }
    assert!(CAUGHT.iter().all(|(_, name)| RULES.contains(name)));
}
