//! The place of the records of these tests, before and after a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore, SledStore};

use crate::handler::Layer;

/// The interval of the checks whether a run is left, and their total time.
const LOOK: Duration = Duration::from_millis(5);
const GIVE_UP: Duration = Duration::from_secs(20);
/// The tree of effects that are committed with their record.
const EFFECTS: &str = "effects";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Test,
    Sled,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Test, Self::Sled];
}

/// An open store. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    any: AnyStore,
    pub(crate) test: Option<TestStore>,
    pub(crate) sled: Option<SledStore>,
    directory: Option<Arc<TempDir>>,
}

impl Home {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Memory => Self { any: AnyStore::new(MemoryStore::new()), test: None, sled: None, directory: None },
            Kind::Test => Self::of_test(TestStore::new()),
            Kind::Sled => Self::of_sled(Arc::new(tempfile::tempdir().expect("a temporary directory"))),
        }
    }

    fn of_test(store: TestStore) -> Self {
        Self { any: AnyStore::new(store.clone()), test: Some(store), sled: None, directory: None }
    }

    fn of_sled(directory: Arc<TempDir>) -> Self {
        let store = SledStore::open(directory.path()).expect("the store can be opened");
        Self { any: AnyStore::new(store.clone()), test: None, sled: Some(store), directory: Some(directory) }
    }

    /// Returns the same records after a restart of the process, or `None` if the store forgets them.
    pub(crate) async fn reopened(&self) -> Option<Self> {
        if let Some(test) = &self.test {
            return Some(Self::of_test(test.reopen()));
        }
        self.sled.as_ref()?.close().await.expect("the store can be closed");
        Some(Self::of_sled(self.directory.clone()?))
    }

    pub(crate) fn layer(&self) -> Layer {
        IdempotencyLayer::new(self.any.clone())
    }

    pub(crate) fn effects(&self) -> Option<sled::Tree> {
        let database = self.sled.as_ref()?.db().expect("it is open");
        Some(database.open_tree(EFFECTS).expect("a tree"))
    }

    /// Returns the keys that had an effect in one transaction with their record, one for each effect.
    pub(crate) fn committed(&self) -> Vec<String> {
        let rows = self.effects().into_iter().flat_map(|tree| tree.iter().values().collect::<Vec<_>>());
        rows.map(|key| String::from_utf8_lossy(&key.expect("the tree can be read")).into_owned()).collect()
    }

    /// Waits until no run is left, and returns whether that came about.
    pub(crate) async fn is_quiet(&self) -> bool {
        let (layer, began) = (self.layer(), Instant::now());
        while layer.stats().live > 0 {
            if began.elapsed() > GIVE_UP {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}
