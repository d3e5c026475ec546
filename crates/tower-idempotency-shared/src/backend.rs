//! The contract of a database for a store that several processes share: it reads rows, and compares and sets them.
//!
//! The protocol is not here. [`SharedStore`](super::SharedStore) decides in Rust which row follows which, by the same
//! function as every other store. A backend only writes a row if the present row is as expected.

use std::error::Error;
use std::fmt::Debug;
use std::future::{Future, ready};

use futures_util::stream::{BoxStream, StreamExt as _, pending};
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::Gauges;

pub use super::kind::Kind;
pub use super::row::{Expect, GRACE, NewExpiry, NewFence, Row, Stamp, Token, Write};

/// An error of the database.
type Source = Box<dyn Error + Send + Sync>;

/// A database that several processes share, as [`SharedStore`](super::SharedStore) uses it.
///
/// # Rows
/// There is at most one [`Row`] per id and namespace. Only [`delete_expired`](Self::delete_expired) deletes rows. A row
/// whose expiry is not later than the earliest time counts as absent in `get`, `put`, `sessions`, `list` and `scan`,
/// whether it was deleted or not; `put` claims it over by an update.
///
/// # Time
/// Times are whole milliseconds since the Unix epoch. A database has one clock, which it reads in the step that it
/// judges, and answers ([`Answer::now`]). No decision rests on that clock alone: each call brings the [`Clocks`] of the
/// calling process. A row is judged by the *earliest*, the earlier of the database's time and [`Clocks::earliest`]. It
/// is stamped by the *latest*, the later of the database's time and [`Clocks::latest`]. Only [`Row::began`] is the
/// earliest, and [`Row::since`] the database's time. Writes have durations, and rows have times.
///
/// # Durability
/// A `put` is answered only once its writes would survive every failure that the database is said to survive
/// ([`guarantee`](Self::guarantee)). A row that a call shows is as durable as an answered `put`: in `get`, in a `put`
/// that was refused, in `sessions`, `list` and `scan`. Otherwise one process replays an outcome that a failover then
/// loses, and another process runs the operation again. A database that shows rows before they are durable makes each
/// such call wait behind a barrier of its own, and the call fails if the barrier is not reached. Only rows from before
/// a start of the server may be less durable: another [`ServerId`] answers from then on.
///
/// # Errors
/// A [`BackendError`] says whether anything may have been done. A `put` whose error is
/// [`Uncertain`](BackendError::Uncertain) is sent again, with the same tokens, until its answer is known.
///
/// # Compatibility
/// [`Row`], [`Write`], [`Answer`] and [`Guarantee`] are complete: backends make them, and a backend that leaves a field
/// out loses what the store relies on. So a new field is a breaking change, and the compiler names every place that
/// lacks it. [`Kind`] and [`BackendError`] may get new variants in a minor release.
///
/// # Cancel safety
/// Any future may be dropped at any time. Its call may still be done, then or later. A dropped future must leave the
/// backend usable: a connection that still waits for an answer is given up.
///
/// # Example
/// Rows in the memory of one process, under a lock. [`Write::apply_to`] compares and sets them, for a database that
/// can't do so in its own language. The page leaves out what filters rows: `sessions`, `list`, `scan` and
/// `delete_expired`;
/// [the example over SQLite](https://github.com/tower-idempotency/tower-idempotency/blob/main/examples/custom_backend)
/// has the whole trait.
///
/// ```
/// # use std::collections::HashMap;
/// # use std::io;
/// # use std::sync::{Mutex, PoisonError};
/// # use std::time::SystemTime;
/// #
/// # use tower_idempotency::clock::Timestamp;
/// # use tower_idempotency::{Fingerprint, Key, Once, RecordId, engine::EffectError};
/// # use tower_idempotency_shared::{
/// #     Answer, Backend, BackendError, Clocks, Guarantee, Kind, Moment, Row, ServerId, SharedStore, Write,
/// # };
/// type Rows = HashMap<RecordId, Row>;
/// type Answered<T> = Result<Answer<T>, BackendError>;
///
/// #[derive(Debug, Default)]
/// struct Toy(Mutex<Rows>);
///
/// /// Takes one step: the lock excludes all others, and the clock is read under it.
/// fn step<T>(toy: &Toy, clocks: Clocks, f: impl FnOnce(&mut Rows, Moment) -> T) -> Answered<T> {
///     let mut rows = toy.0.lock().unwrap_or_else(PoisonError::into_inner);
///     let at = clocks.at(SystemTime::now().into());
///     Ok(Answer { now: at.now, server: ServerId(0), rows: f(&mut rows, at) })
/// }
///
/// /// Returns the row, unless it counts as absent.
/// fn live(row: &Row, at: Moment) -> Option<Row> {
///     (!row.is_absent(at.earliest)).then(|| row.clone())
/// }
///
/// impl Backend for Toy {
///     async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Answered<Vec<Option<Row>>> {
///         step(self, clocks, |rows, at| ids.iter().map(|id| live(rows.get(id)?, at)).collect())
///     }
///
///     async fn put(&self, clocks: Clocks, writes: &[Write]) -> Answered<Vec<Option<Row>>> {
///         step(self, clocks, |rows, at| {
///             let answered = writes.iter().map(|write| {
///                 rows.extend(write.apply_to(rows.get(&write.id), at).map(|row| (row.id, row)));
///                 live(rows.get(&write.id)?, at)
///             });
///             answered.collect()
///         })
///     }
///
/// #     async fn sessions(&self, clocks: Clocks) -> Answered<Vec<Row>> {
/// #         step(self, clocks, |rows, at| {
/// #             let live = rows.values().filter_map(|row| live(row, at));
/// #             live.filter(|row| row.kind == Kind::Session).collect()
/// #         })
/// #     }
/// #
/// #     async fn list(
/// #         &self,
/// #         clocks: Clocks,
/// #         alive: &[RecordId],
/// #         after: Option<(Timestamp, RecordId)>,
/// #         limit: usize,
/// #     ) -> Answered<Vec<Row>> {
/// #         step(self, clocks, |rows, at| {
/// #             let place = |row: &Row| (row.began, row.id);
/// #             let is_meant = |row: &Row| row.is_listed(at.earliest, alive) && Some(place(row)) > after;
/// #             let mut listed: Vec<Row> = rows.values().filter_map(|row| live(row, at)).filter(is_meant).collect();
/// #             listed.sort_by_key(place);
/// #             listed.truncate(limit);
/// #             listed
/// #         })
/// #     }
/// #
/// #     async fn scan(&self, clocks: Clocks, after: Option<RecordId>, limit: usize) -> Answered<Vec<Row>> {
/// #         step(self, clocks, |rows, at| {
/// #             let is_operation = |kind| !matches!(kind, Kind::Released | Kind::Session | Kind::Disputed);
/// #             let is_meant = |row: &Row| is_operation(row.kind) && Some(row.id) > after;
/// #             let mut scanned: Vec<Row> = rows.values().filter_map(|row| live(row, at)).filter(is_meant).collect();
/// #             scanned.sort_by_key(|row| row.id);
/// #             scanned.truncate(limit);
/// #             scanned
/// #         })
/// #     }
/// #
/// #     async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
/// #         let deleted = step(self, clocks, |rows, at| {
/// #             rows.extract_if(|_, row| row.is_past_grace(at.earliest)).take(limit).count()
/// #         });
/// #         Ok(deleted?.rows)
/// #     }
/// #
///     async fn guarantee(&self) -> Result<Guarantee, BackendError> {
///         Ok(Guarantee { setup: "memory".into(), loses: vec!["all, at a restart".into()] })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let once = Once::new(SharedStore::open(Toy::default()).await?);
/// let id = RecordId::new(None, &Key::new("message-17")?);
/// for redelivered in [false, true] {
///     let effect = |_context| async { Ok::<_, EffectError<io::Error>>("mail sent".to_owned()) };
///     let result = once.run(id, Fingerprint::of(b"the message"), effect).await?;
///     assert_eq!((result.replayed, &*result.value), (redelivered, "mail sent"));
/// }
/// # Ok(())
/// # }
/// ```
pub trait Backend: Debug + Send + Sync + 'static {
    /// The name of the database, for logs: see [`Store::name`](tower_idempotency::store::Store::name). Default:
    /// `shared`.
    const NAME: &'static str = "shared";

    /// Reads the rows of `ids`, in their order; `None` for an id that is absent. There may be no ids.
    fn get(
        &self,
        clocks: Clocks,
        ids: &[RecordId],
    ) -> impl Future<Output = Result<Answer<Vec<Option<Row>>>, BackendError>> + Send;

    /// Does each of `writes`, or leaves its row alone, and then reads the rows, in the order of the writes. No two of
    /// the writes have the same id. Writes do not depend on each other: one may be done even if another is not.
    ///
    /// A write is done if one of these is true:
    /// - the row is absent, and [`Expect::Absent`] is expected;
    /// - the row is there, and has the token that is expected;
    /// - the row is there, and has the write's own token: the write was sent before.
    ///
    /// Otherwise nothing is changed. So a write was done if the row that is returned has its token. A row that has the
    /// expected token and not the write's was *busy*: something else has it locked. A row that is absent although
    /// [`Expect::Absent`] was expected was busy too. The write may be sent again then.
    ///
    /// If the row has the write's own token, the write comes again: its fence and its stamps are kept, and its `until`
    /// and its `expires` count from now. But the row keeps the later of its own time and the new one. The clocks may
    /// have been set back since an earlier copy was answered, and the process relies on that answer. A write's own
    /// token in a row past its expiry makes no difference: the row is absent. A call without any writes asks for the
    /// time.
    ///
    /// Of a row that the write did not make, a [`state`](Row::state) of more than 16 KiB should be left out of the
    /// answer, which then has an empty one: many claims that meet large rows would take too long on a slow link. The
    /// store gets such a row by itself, if it needs it.
    ///
    /// The database locks rows in the order of their ids, so that two calls can't wait for each other.
    fn put(
        &self,
        clocks: Clocks,
        writes: &[Write],
    ) -> impl Future<Output = Result<Answer<Vec<Option<Row>>>, BackendError>> + Send;

    /// Reads all rows of the kind [`Session`](Kind::Session), in any order. There is one for each process that uses the
    /// store, and each process calls this every sixth of its lease, so that an index has to serve it.
    fn sessions(&self, clocks: Clocks) -> impl Future<Output = Result<Answer<Vec<Row>>, BackendError>> + Send;

    /// Reads at most `limit` rows that may need an operator, ordered by [`began`](Row::began), in whole milliseconds,
    /// and id. It reads only those after `after` in that order:
    /// - those of the kinds [`Interrupted`](Kind::Interrupted) and [`Disputed`](Kind::Disputed), the latter with their
    ///   states cut as in [`scan`](Self::scan);
    /// - those of the kind [`Running`](Kind::Running) whose [`session`](Row::session) is absent or not in `alive`, or
    ///   whose [`until`](Row::until) is absent or not later than the earliest time.
    fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Vec<Row>>, BackendError>> + Send;

    /// Reads at most `limit` rows of the kinds [`Running`](Kind::Running), [`Interrupted`](Kind::Interrupted),
    /// [`Completed`](Kind::Completed), [`Consumed`](Kind::Consumed) and [`Other`](Kind::Other), ordered by id, and only
    /// those after `after` in that order. A [`state`](Row::state) of more than 2 KiB should be cut to its first 1 KiB,
    /// so that a page stays small. Operators look through all records by it, so it may read much in one call.
    fn scan(
        &self,
        clocks: Clocks,
        after: Option<RecordId>,
        limit: usize,
    ) -> impl Future<Output = Result<Answer<Vec<Row>>, BackendError>> + Send;

    /// Deletes at most `limit` rows that have been past their expiry for [`GRACE`] by the earliest time, of this
    /// namespace or of all, and returns how many it deleted. Without that grace, a write that is still on its way could
    /// meet a row that was deleted and made anew, with a smaller fence.
    fn delete_expired(&self, clocks: Clocks, limit: usize) -> impl Future<Output = Result<usize, BackendError>> + Send;

    /// Returns the ids of rows that were written from now on, by any process, this one included, as far as the database
    /// notifies of them. Some may be missing: waiters then find changes by reading. Ids of other namespaces do no harm.
    /// The stream does not end. By default the database notifies of nothing.
    fn changes(&self) -> BoxStream<'static, RecordId> {
        pending().boxed()
    }

    /// Returns what the database promises and what it can lose, as it is set up now.
    fn guarantee(&self) -> impl Future<Output = Result<Guarantee, BackendError>> + Send;

    /// Writes rows as they are, with their fences and times: each if its id is absent, or if there is a row past its
    /// expiry with a smaller fence. Returns the ids of those that it wrote, which are as durable as after a
    /// [`put`](Self::put). Ids do not repeat. For a tool that moves records while no process uses the store. By default
    /// the database has no way to do it.
    #[doc(hidden)]
    fn adopt(
        &self,
        clocks: Clocks,
        rows: &[Row],
    ) -> impl Future<Output = Result<Answer<Vec<RecordId>>, BackendError>> + Send {
        let _ = (clocks, rows);
        ready(Err(BackendError::Never("this database has no way to take the records of another store".into())))
    }

    /// Returns the limit that the database has reached, if there is one: new keys are refused with
    /// [`StoreError::Full`](tower_idempotency::store::StoreError::Full) then, and everything else is done. It is called
    /// for each claim, so it does not ask the database. By default there is no limit. [`guarantee`](Self::guarantee),
    /// which is called every 30 seconds, may take note of one.
    fn full(&self) -> Option<&'static str> {
        None
    }

    /// Returns what is known of `records`, `bytes` and `connections`. It does not ask the database. By default nothing
    /// is known.
    fn gauges(&self) -> Gauges {
        Gauges::default()
    }
}

/// The clocks of the process that calls: see [`Backend`], *Time*.
///
/// By default, only the database's clock decides, for tools and tests that have no clock of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// The earliest of the process's clocks.
    pub earliest: Timestamp,
    /// The latest of the process's clocks.
    pub latest: Timestamp,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { earliest: Timestamp::from_millis(u64::MAX), latest: Timestamp::from_millis(0) }
    }
}

/// The rows that were read, the time of the read, and the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The database's time, read in the same step as the rows.
    pub now: Timestamp,
    /// The server that has answered.
    pub server: ServerId,
    /// The rows that were read.
    pub rows: T,
}

/// The number of a server, which changes whenever rows that were shown may be gone: when a server starts, when another
/// one is promoted, also on a connection that stays, and when the rows are wiped. It may stay the same after a start
/// that never shows rows that were not durable before it, as with a database in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId(pub u64);

/// The promises of a database as it is set up, and what it can lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantee {
    /// The database and its setup, for a log: its version, its role, and the settings that count.
    pub setup: String,
    /// The ways in which the database can lose answered writes, with a sentence for each. If it is empty, this release
    /// knows of no such way.
    pub loses: Vec<String>,
}

/// An error of a backend, which says whether the call may have been done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Nothing was done, nor will be: the database can't be reached, or has refused. Trying again may help.
    #[error("the database can't be reached or has refused: {0}")]
    Nothing(#[source] Source),
    /// Nothing was done, nor will be: something else has a row locked, or the database asks to try again. The database
    /// can be reached. Each write of the call is sent again by itself.
    #[error("a row is locked: {0}")]
    Busy(#[source] Source),
    /// Nothing was done, nor will be: too many calls of this process are under way. The database may be well.
    #[error("too many calls are under way: {0}")]
    Crowded(#[source] Source),
    /// Nothing was done, nor will be, however often it is tried: the database does not take such a row, as its state is
    /// too large for example. An outcome that is refused in this way is recorded as [`Consumed`](Kind::Consumed), which
    /// takes less than a hundred bytes and may not be refused.
    #[error("the database does not take the row: {0}")]
    Never(#[source] Source),
    /// Nothing was done, nor will be: the database has reached this limit, and has no room for a new row. The database
    /// can be reached. A claim is refused with [`StoreError::Full`](tower_idempotency::store::StoreError::Full) then,
    /// unless the key has a row. Ends of runs may not be refused in this way, nor may renewals.
    #[error("the database is full: {0} reached")]
    Full(&'static str),
    /// It may have been done, or may still be: the answer was lost or did not come in time, or it says that the write
    /// is not as durable as it has to be.
    #[error("it is not known whether the database did it: {0}")]
    Uncertain(#[source] Source),
}
