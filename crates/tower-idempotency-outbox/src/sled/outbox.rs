//! The outbox in a tree of sled: what applications call, and the trait [`Outbox`]. Each method is a transaction over
//! `tree.rs`, so a call comes through here when it is put in, leased, updated and swept.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tower_idempotency::SledStore;
use tower_idempotency::sled::{self, Tree};
use tower_idempotency::store::{Abort, CommitError, TransactionError, TransactionTree};
use tower_idempotency_client::Key;

use super::clock::{Clock, Now};
use super::head::{Head, is_open};
use super::tree;
use crate::lease::{Leased, Room, Update};
use crate::{Answer, Call, Entry, OpenCalls, Outbox, OutboxError, State};

/// How many heads of up to 4 KiB are written in one transaction, which has at most 128 KiB.
const LEASED_AT_ONCE: u16 = 24;
/// How many entries are deleted in one transaction.
const DELETED_AT_ONCE: usize = 16;

/// An outbox in a tree of a [`SledStore`]. One process has it at a time.
///
/// A call has at most some 90 KiB. To take calls, a relay reads the head of each one that has not ended, whatever its
/// destination: with 2,000 of them that takes some 3 ms, and with 10,000 some 15 ms.
///
/// It has two clocks: the wall clock, and one of its own, which the monotonic clock moves, and which stops while no
/// process has the outbox. A call is given up once its time is over by both, and is not sent if it is over by one.
/// What has ended is deleted by the outbox's own, and a lease ends by it: after a restart, the rest of it goes by. So
/// after a restart with a wall clock that is far ahead, calls that were tried wait, and nothing is deleted early.
/// After a time without a process, calls whose time has passed meanwhile wait as long again before they are given up:
/// [`GiveUp`](crate::Action::GiveUp) does so at once. A wall clock that is set back while no process has the outbox
/// can't be noticed.
///
/// ```no_run
/// use bytes::Bytes;
/// use tower_idempotency::SledStore;
/// use tower_idempotency_outbox::{Call, PutError, SledOutbox};
///
/// # async fn order(store: &SledStore) -> Result<(), Box<dyn std::error::Error>> {
/// let orders = store.db()?.open_tree("orders")?;
/// let outbox = SledOutbox::new(store, "outbox").await?;
///
/// let request = http::Request::post("https://api.example.com/charges").body(Bytes::from("order=17&amount=500"))?;
/// let call = Call::new(request)?;
/// let (put, key) = (outbox.clone(), call.key().clone());
/// // The order and the call are there together, or neither is.
/// let order = store.transaction([&orders, outbox.tree()], move |[orders, calls]| {
///     orders.insert("17", key.as_str())?;
///     put.put_in::<PutError>(&calls, &call)
/// });
/// order.await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SledOutbox {
    store: SledStore,
    tree: Tree,
    clock: Clock,
}

impl SledOutbox {
    /// Returns the outbox in the tree with this name, which is made if there is none.
    ///
    /// # Errors
    /// [`OutboxError::Name`]: the tree has other data. [`OutboxError::Database`]: the store is closed, or can't be
    /// read.
    pub async fn new(store: &SledStore, name: &str) -> Result<Self, OutboxError> {
        Self::of(store, name, true).await
    }

    /// Returns the outbox in the tree with this name. None is made. The future may be dropped at any time.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`OutboxError::Name`] if the store has no such tree, or an empty one.
    pub async fn existing(store: &SledStore, name: &str) -> Result<Self, OutboxError> {
        Self::of(store, name, false).await
    }

    async fn of(store: &SledStore, name: &str, may_be_made: bool) -> Result<Self, OutboxError> {
        let db = store.db().map_err(OutboxError::database)?;
        if !may_be_made && !db.tree_names().iter().any(|tree| tree == name.as_bytes()) {
            return Err(OutboxError::Name("that of no tree of the store"));
        }
        let tree = db.open_tree(name).map_err(OutboxError::database)?;
        let mut this = Self { store: store.clone(), tree, clock: Clock::new(None) };
        let read = this.read(|tree| Ok((tree::is_outbox(tree)?, tree.is_empty(), tree::time(tree)?)));
        let (is_outbox, is_empty, time) = read.await?;
        this.clock = Clock::new(time);
        match (is_outbox, is_empty) {
            (true, _) => Ok(this),
            (false, true) if may_be_made => this.write(|tree| Ok(tree::found(tree)?)).await.map(|()| this),
            (false, true) => Err(OutboxError::Name("that of an empty tree")),
            (false, false) => Err(OutboxError::Name("that of a tree with other data, or of a later release")),
        }
    }

    /// Opens an outbox in a directory of its own, for applications that have no database. Each call is then put in with
    /// [`Outbox::put`].
    ///
    /// # Errors
    /// The store can't be opened: see [`SledStore::open`].
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self, OutboxError> {
        Self::new(&SledStore::open(directory).map_err(OutboxError::database)?, "outbox").await
    }

    /// The tree, for a transaction of the application: [`SledStore::transaction`], or [`SledStore::complete_in`].
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Closes the store, once its clones and its relays are dropped. An outbox of an application's own store is dropped
    /// before that is closed.
    ///
    /// # Errors
    /// As [`SledStore::close`], for instance because there is a clone.
    pub async fn close(self) -> Result<(), OutboxError> {
        let Self { store, tree, .. } = self;
        drop(tree);
        store.close().await.map_err(OutboxError::database)
    }

    /// Puts a call in, in the application's transaction; `tree` is what that has of [`tree`](Self::tree).
    ///
    /// A call that is there already, in whatever state, is not put in again.
    ///
    /// # Errors
    /// The transaction has to be aborted: see [`PutError`]; or the call is too large.
    pub fn put_in<E: From<PutError>>(&self, tree: &TransactionTree<'_>, call: &Call) -> Result<(), Abort<E>> {
        if !tree::is_outbox(tree)? {
            return Err(Abort::Because(PutError::OtherTree.into()));
        }
        let json = call.to_json();
        if let Some(position) = tree::find(tree, call.key().as_str())?
            && let Some(head) = tree::head(tree, position)?
        {
            let is_same = tree::text(tree, b'c', position, head.call)? == json;
            return if is_same { Ok(()) } else { Err(Abort::Because(PutError::KeyReused.into())) };
        }
        let position = tree::next_position(tree)?;
        tree::write_key(tree, call.key().as_str(), position)?;
        tree::write_text(tree, b'c', position, &json, 0)?;
        let (key, partition_key, now) = (call.key().as_str(), call.partition_key(), self.clock.now());
        let head = Head::new(key, partition_key, call.destination(), json.len(), now);
        Ok(tree::write_head(tree, position, &head)?)
    }

    async fn write<T: Send + 'static>(
        &self,
        mut closure: impl FnMut(&TransactionTree<'_>) -> Result<T, Abort<PutError>> + Send + 'static,
    ) -> Result<T, OutboxError> {
        self.store.transaction([&self.tree], move |[tree]| closure(&tree)).await.map_err(|error| match error {
            CommitError::Aborted(PutError::KeyReused) => OutboxError::KeyReused,
            CommitError::Refused(error @ TransactionError::TooLarge { .. }) => OutboxError::TooLarge(error.to_string()),
            error => OutboxError::database(error),
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tree) -> Result<T, sled::Error> + Send + 'static,
    ) -> Result<T, OutboxError> {
        // A store that was closed or has failed is not read.
        self.store.db().map_err(OutboxError::database)?;
        let tree = self.tree.clone();
        let read = tokio::task::spawn_blocking(move || read(&tree)).await;
        read.map_err(OutboxError::database)?.map_err(OutboxError::database)
    }
}

impl std::fmt::Debug for SledOutbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SledOutbox").finish_non_exhaustive()
    }
}

impl Outbox for SledOutbox {
    async fn put(&self, call: &Call) -> Result<(), OutboxError> {
        let (this, call) = (self.clone(), call.clone());
        self.write(move |tree| this.put_in(tree, &call)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, OutboxError> {
        let key = key.clone();
        self.read(move |tree| match tree::find(tree, key.as_str())? {
            Some(position) => tree::entry_at(tree, position),
            None => Ok(None),
        })
        .await
    }

    async fn at(&self, position: u64) -> Result<Option<Entry>, OutboxError> {
        self.read(move |tree| tree::entry_at(tree, position)).await
    }

    async fn list(&self, state: State, after: Option<u64>, limit: u16) -> Result<Vec<Entry>, OutboxError> {
        self.read(move |tree| {
            let heads = tree::heads(tree, is_open(state), after.map_or(0, |after| after.saturating_add(1)));
            let listed = heads.filter(|line| line.as_ref().map_or(true, |(_, head)| head.state == state));
            listed.take(limit.into()).map(|line| line.map(|(position, head)| head.entry(position))).collect()
        })
        .await
    }

    async fn open_calls(&self) -> Result<Vec<OpenCalls>, OutboxError> {
        let now = self.clock.now().wall;
        self.read(move |tree| {
            let mut open = BTreeMap::new();
            for line in tree::heads(tree, true, 0) {
                let (_, Head { state, destination, stored, .. }) = line?;
                // One that can't be read has no time.
                let age = Duration::from_millis(if stored == 0 { 0 } else { now.saturating_sub(stored) });
                let none = OpenCalls { state, destination: destination.clone(), calls: 0, oldest: age };
                let calls = open.entry((state.as_str(), destination)).or_insert(none);
                (calls.calls, calls.oldest) = (calls.calls + 1, calls.oldest.max(age));
            }
            Ok(open.into_values().collect())
        })
        .await
    }

    async fn lease(&self, time: Duration, mut room: Room) -> Result<Vec<Leased>, OutboxError> {
        let now = self.clock.now();
        room.most = room.most.min(LEASED_AT_ONCE);
        let due = self.read(move |tree| due(tree, now, room)).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let leased = self.write(move |tree| {
            tree::write_time(tree, now.kept)?;
            let mut leased = Vec::new();
            for &(position, fence) in &due {
                // Another relay may have been here meanwhile.
                let Some(mut head) = tree::head(tree, position)?.filter(|head| head.fence == fence) else { continue };
                let before = (head.may_have_taken_place, head.tried_for(now));
                head.lease(now, time);
                tree::write_head(tree, position, &head)?;
                leased.push((position, head, before));
            }
            Ok(leased)
        });
        let leased = leased.await?;
        self.read(move |tree| {
            let leased = leased.into_iter().map(|(position, head, (may_have_taken_place, tried_for))| {
                Ok(Leased { entry: Entry { may_have_taken_place, ..tree::entry(tree, position, head)? }, tried_for })
            });
            leased.collect()
        })
        .await
    }

    async fn update(&self, entry: &Entry, update: Update) -> Result<bool, OutboxError> {
        let (position, fence, now) = (entry.position, entry.fence, self.clock.now());
        self.write(move |tree| {
            let head = tree::head(tree, position)?.filter(|head| head.fence == fence);
            let Some(mut head) = head else { return Ok(false) };
            let answer = update.answer.as_ref().map(Answer::to_json);
            if let Some(answer) = &answer {
                tree::write_text(tree, b'a', position, answer, head.answer.unwrap_or(0))?;
            }
            head.update(&update, answer.map(|answer| answer.len()), now);
            tree::write_head(tree, position, &head)?;
            tree::write_time(tree, now.kept)?;
            Ok(true)
        })
        .await
    }

    async fn sweep(&self, ended: Duration) -> Result<bool, OutboxError> {
        let now = self.clock.now().kept;
        let is_old = move |head: &Head| {
            // What can't be read has ended, too.
            let since = head.ended.unwrap_or(0);
            u128::from(now.saturating_sub(since)) >= ended.as_millis()
        };
        let old = self.read(move |tree| {
            // They are about in the order in which they have ended. One that comes late holds others back.
            let old =
                tree::heads(tree, false, 0).take_while(|line| line.as_ref().map_or(true, |(_, head)| is_old(head)));
            old.take(DELETED_AT_ONCE).map(|line| line.map(|(position, _)| position)).collect::<Result<Vec<_>, _>>()
        });
        let old = old.await?;
        let is_full = old.len() == DELETED_AT_ONCE;
        // Also where nothing is old: the outbox's own time goes on from what was written last.
        self.write(move |tree| {
            tree::write_time(tree, now)?;
            for &position in &old {
                if let Some(head) = tree::head(tree, position)?.filter(is_old) {
                    tree::remove(tree, position, &head)?;
                }
            }
            Ok(())
        })
        .await?;
        Ok(is_full)
    }
}

/// Finds entries that a relay may have, the earliest first: of each partition key the first one.
fn due(tree: &Tree, now: Now, mut room: Room) -> Result<Vec<(u64, u64)>, sled::Error> {
    let (mut due, mut behind) = (Vec::new(), HashSet::new());
    for line in tree::heads(tree, true, 0) {
        let (position, head) = line?;
        let is_due = head.is_due(now);
        if head.partition_key.is_none_or(|key| behind.insert(key)) && is_due {
            due.push((head.due, position, head.fence, head.destination));
        }
    }
    due.sort_unstable();
    due.retain(|(.., destination)| room.take(destination));
    Ok(due.into_iter().map(|(_, position, fence, _)| (position, fence)).collect())
}

/// Why a call can't be put in, in the application's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// Another call has this key.
    #[error("the outbox has another call with this key; use a new key for a new operation")]
    KeyReused,
    /// The tree is none of an outbox.
    #[error("the tree is not the outbox's; give the transaction SledOutbox::tree, and put_in what it has of that")]
    OtherTree,
}
