//! The place of the records of these tests, before and after a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use laboratories::engine::{Embedded, Engine, Settings, Table};
use tempfile::TempDir;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{AnyStore, IdempotencyLayer, MemoryStore};

use crate::handler::Layer;

/// The interval of the checks whether a run is left, and their total time.
const LOOK: Duration = Duration::from_millis(5);
const GIVE_UP: Duration = Duration::from_secs(20);
/// The table of effects that are committed with their record.
const EFFECTS: &str = "effects";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Test,
    Embedded(Engine),
}

impl Kind {
    /// Returns the kinds of store, with the engines that are chosen.
    pub(crate) fn all() -> Vec<Self> {
        [Self::Memory, Self::Test].into_iter().chain(Engine::chosen().into_iter().map(Self::Embedded)).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Test => "test",
            Self::Embedded(engine) => engine.name(),
        }
    }

    pub(crate) fn is_embedded(self) -> bool {
        matches!(self, Self::Embedded(_))
    }
}

/// An open store. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    any: AnyStore,
    pub(crate) test: Option<TestStore>,
    /// The embedded store, its engine and its directory.
    embedded: Option<(Embedded, Engine, Arc<TempDir>)>,
}

impl Home {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Memory => Self { any: AnyStore::new(MemoryStore::new()), test: None, embedded: None },
            Kind::Test => Self::of_test(TestStore::new()),
            Kind::Embedded(engine) => {
                Self::of_embedded(engine, Arc::new(tempfile::tempdir().expect("a temporary directory")))
            }
        }
    }

    fn of_test(store: TestStore) -> Self {
        Self { any: AnyStore::new(store.clone()), test: Some(store), embedded: None }
    }

    fn of_embedded(engine: Engine, directory: Arc<TempDir>) -> Self {
        let store = engine.open(directory.path(), Settings::default()).expect("the store can be opened");
        Self { any: store.any(), test: None, embedded: Some((store, engine, directory)) }
    }

    /// Returns the same records after a restart of the process, or `None` if the store forgets them.
    pub(crate) async fn reopened(&self) -> Option<Self> {
        if let Some(test) = &self.test {
            return Some(Self::of_test(test.reopen()));
        }
        let (store, engine, directory) = self.embedded.as_ref()?;
        store.close().await.expect("the store can be closed");
        Some(Self::of_embedded(*engine, Arc::clone(directory)))
    }

    pub(crate) fn layer(&self) -> Layer {
        IdempotencyLayer::new(self.any.clone())
    }

    pub(crate) fn effects(&self) -> Option<Table> {
        let (store, ..) = self.embedded.as_ref()?;
        Some(store.table(EFFECTS).expect("it is open"))
    }

    /// Returns the keys that had an effect in one transaction with their record, one for each effect.
    pub(crate) fn committed(&self) -> Vec<String> {
        let rows = self.effects().map(|effects| effects.values().expect("the table can be read"));
        rows.unwrap_or_default().iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
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
