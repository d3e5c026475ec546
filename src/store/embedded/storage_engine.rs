//! What an embedded engine has to do for a store: an ordered map of bytes, written in steps.

use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;

use super::transact::Transacted;
use super::writes::Writes;
use crate::store::OpenError;

/// An engine that is open. A handle; clones share it.
///
/// It is called by one thread that writes, and by a few that read. What panics in it poisons the store.
pub(crate) trait StorageEngine: Clone + Debug + Send + Sync + 'static {
    /// The most bytes that are written in one step, or one transaction. Between two syncs there are at most half as
    /// many more.
    const MAX_STEP: usize;

    /// How it is set up.
    type Options: Clone + Debug + Send + Sync + 'static;
    /// A key or a value, as it is read.
    type Value: AsRef<[u8]>;
    /// What an application writes together with a record. What it holds of the application's is
    /// [`Theirs`](super::transact::Theirs).
    type Transaction: Send + 'static;
    /// What the thread that watches over it keeps for it: see [`tend`](Self::tend).
    type Watch: Default;

    /// Opens what is in `path`, which this process has locked. `was_used`: something may have been recorded there, so
    /// the engine must not take it for an empty one.
    fn open(options: &Self::Options, path: &Path, was_used: bool) -> Result<Self, OpenError>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Self::Value>, ReadError>;

    /// The entries from a key on, in the order of their keys.
    fn range(&self, from: Vec<u8>) -> impl Iterator<Item = Result<(Self::Value, Self::Value), ReadError>>;

    /// Writes a step, so that all of it is recovered or nothing; or, where it is not atomic, any prefix of it
    /// [in order](Writes::in_order). Nobody reads while one is written that is not atomic.
    fn write(&self, step: Writes) -> Result<(), String>;

    /// Makes durable all that was written before this call.
    fn sync(&self) -> Result<(), String>;

    /// Runs `effect`, and writes what it wrote together with what `own` makes of its outcome; says the outcome, and how
    /// many bytes the effect wrote, without what `own` said. `own` may be called again, when what it said before was
    /// undone.
    fn transact(&self, effect: &mut Self::Transaction, own: Own<'_>) -> Transacted<(Bytes, usize)>;

    /// Helps a write on that has been under way for a second, and is called again and again until it is over.
    fn nudge(&self);

    /// Is called eight times a second, from before an engine is opened until its last handle is gone, one that was lent
    /// included: on one thread after the other, each with a watch of its own, which begins before the last one ends.
    fn tend(watch: &mut Self::Watch);

    /// Lets this handle go.
    fn close(self);

    /// Whether all handles are gone, those that were lent too, so that `path` can be opened again.
    fn is_closed(path: &Path) -> bool;
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The engine failed.
    #[error("{0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The bytes are not what was written.
    #[error("{0}")]
    Corrupt(String),
}

/// What a store writes together with an outcome.
pub(crate) type Own<'a> = &'a mut dyn FnMut(&Bytes) -> Transacted<Writes>;

/// All entries whose keys begin so.
pub(super) fn scan<'a, E: StorageEngine>(
    engine: &'a E,
    prefix: &[u8],
) -> impl Iterator<Item = Result<(E::Value, E::Value), ReadError>> + use<'a, E> {
    let prefix = prefix.to_vec();
    let entries = engine.range(prefix.clone());
    entries.take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.as_ref().starts_with(&prefix)))
}

/// Their keys.
pub(super) fn scan_keys<'a, E: StorageEngine>(
    engine: &'a E,
    prefix: &[u8],
) -> impl Iterator<Item = Result<E::Value, ReadError>> + use<'a, E> {
    scan(engine, prefix).map(|entry| entry.map(|(key, _)| key))
}
