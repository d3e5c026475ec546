//! The outbox in PostgreSQL: what applications call, and the trait [`Outbox`]. Each method sends a statement of
//! `statements.rs`, so a call comes through here when it is put in, leased, updated and swept.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use deadpool_postgres::tokio_postgres::error::{DbError, SqlState};
use deadpool_postgres::tokio_postgres::types::{ToSql, Type};
use deadpool_postgres::tokio_postgres::{Error, Row, Transaction};
use tokio::time::{Instant, timeout};
use tower_idempotency_client::Key;

use super::clock::{Clock, Now};
use super::connection::{Connection, STATEMENT_TIMEOUT, begin};
use super::rows::{counted, entry, leased, listed, read};
use super::statements::{Statements, migration};
use crate::lease::{Leased, Room, Update};
use crate::{Answer, Call, Entry, OpenCalls, Outbox, OutboxError, State};

/// A statement's parameter.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How long a result waits for its row, which an operator may have locked. Then others get the connection.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// A time that the database can subtract from any other.
const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// How many entries are deleted by one statement.
const DELETED_AT_ONCE: usize = 1_000;

/// An outbox in a table of PostgreSQL, 13 or later. Any number of processes share it.
///
/// A time is that of the middle one of three clocks: the database's, and the process's wall clock and monotonic
/// clock. If the first two differ by more than a minute when the process begins, waits go by the database's, or by
/// the wall clock if that is the one which the relays before had. How long ago a first try was, each clock says for
/// itself: a call is given up once its time is over by all of them, and by the time that relays have seen go by,
/// which the table `clock` has; what has ended is deleted by the same rule. So one clock that is wrong costs nothing,
/// and two that are wrong together, as on a machine with both, delete nothing early. After a time without a relay,
/// calls whose time has passed meanwhile are not sent, and wait as long again before they are given up:
/// [`GiveUp`](crate::Action::GiveUp) does so at once.
///
/// A lease is over by the database's clock, which all relays have in common, be it right or wrong. If the wall clocks
/// of the relay that has it and of the one that looks say that it goes on, it does: so the database's clock may jump
/// ahead. A wall clock that is wrong makes a lease twice as long at the most. If the database's clock is set back, a
/// lease of before has all of its time again from the next sweep on, which each relay makes once a minute. If a wall
/// clock is wrong while the database's jumps ahead, two relays may send a call at once, with its key.
///
/// One case is left. The database's clock and a relay's differ, the first try of a call is made then, and the next one
/// is another process's, to which the two agree or differ by another time. Where the first relay was the first one that
/// this outbox has had, or the relay's clock was ahead of what others have seen, nothing tells which clock was right.
/// If the difference is [`give_up_after`](crate::Relay::give_up_after) or more, the call is held, because the server
/// may have forgotten its key: look the operation up, and give the call up, to settle it or to try it again.
///
/// Relays and [`Outbox`]'s methods take their connections from a pool;
/// the application's transactions are those of any client.
///
/// The table is `call` in the schema of the outbox; its columns are there for people to read. Give each API, or each
/// account with it, an outbox of its own: a relay sends all calls that it finds.
///
/// A call has at most 16 MiB in the table, which is a body of some 12 MB. A relay takes one such call at a time, and
/// small ones before large ones.
///
/// To take calls, a relay looks once at each partition key that has a call which has not ended, and at each destination
/// (scheme, host and port) to which calls without one wait: 50,000 partition keys take some 0.2 s. Where 32 calls to
/// one destination take 4 ms, 32 calls out of 2,000 destinations take 15 ms, and out of 10,000 some 60 ms.
///
/// Each statement is a transaction of its own, which the server ends within 15 s: if the table is locked for longer, a
/// relay logs that, and asks again. A relay needs two connections of its pool at least. Where it shares the pool with
/// the application, which may hold all of them, give it a pool of its own.
///
/// If `synchronous_commit` is off, or a standby takes over that has not received all, what the database has forgotten
/// counts as not done: a call may be lost with its transaction, or be sent again with its key.
#[derive(Clone)]
pub struct PostgresOutbox {
    pool: Pool,
    statements: Arc<Statements>,
    clock: Arc<Clock>,
    /// The partition key after which the next lease looks for calls, so that each has its turn.
    after: Arc<Mutex<String>>,
}

impl PostgresOutbox {
    /// The SQLSTATE with which [`put_sql`](Self::put_sql) fails if another call has the key. The transaction has to be
    /// rolled back.
    pub const KEY_REUSED: &'static str = "TI003";

    /// Returns the outbox in this schema. Nothing is sent to the database.
    ///
    /// # Errors
    /// [`OutboxError::Name`]: the schema's name has other characters than lower-case letters, digits and underscores.
    pub fn new(pool: Pool, schema: &str) -> Result<Self, OutboxError> {
        let (statements, clock) = (Arc::new(Statements::new(schema)?), Arc::default());
        Ok(Self { pool, statements, clock, after: Arc::default() })
    }

    /// Makes the schema and the table, unless they are there; then this takes no lock, and the role needs no right to
    /// make them. Several processes may do it at once.
    ///
    /// # Errors
    /// [`OutboxError::Database`], for instance if the role may make no schema, or if the database's encoding is not
    /// `UTF8`.
    pub async fn migrate(&self) -> Result<(), OutboxError> {
        let Statements { is_there, lock, make, .. } = &*self.statements;
        let began = Instant::now();
        let made = async {
            let connection = Connection::of(&self.pool).await?;
            let is_made = async || connection.client().query_typed_one(is_there, &[]).await?.try_get::<_, bool>(0);
            let made = async {
                if !is_made().await? {
                    // A transaction that was begun and fails ends with its connection.
                    connection.client().batch_execute(&begin(began, None)).await?;
                    connection.client().batch_execute(lock).await?;
                    // Another process may have made it meanwhile.
                    if !is_made().await? {
                        connection.client().batch_execute(make).await?;
                    }
                    connection.client().batch_execute("COMMIT").await?;
                }
                Ok::<_, Error>(())
            };
            made.await.map_err(OutboxError::database)?;
            connection.give_back();
            Ok(())
        };
        timeout(STATEMENT_TIMEOUT, made).await.map_err(OutboxError::database)?
    }

    /// Returns the SQL that [`migrate`](Self::migrate) runs for the outbox in this schema, for a team that applies it
    /// by itself: one text for each version, from 1 on. The first one also gives `role` the rights that an application
    /// and its relays need. Each text is plain SQL without parameters, for one transaction. It may run again, and
    /// leaves the transaction's search path as it was.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn migrations(schema: &str, role: Option<&str>) -> Result<Vec<(i32, String)>, OutboxError> {
        Ok(vec![(1, migration(schema, role)?)])
    }

    /// Puts a call in, in the application's transaction.
    ///
    /// A call that is there already, in whatever state, is not put in again.
    ///
    /// # Errors
    /// The transaction has to be rolled back: [`OutboxError::KeyReused`], [`OutboxError::TooLarge`], or the database's
    /// error.
    pub async fn put_in(&self, transaction: &Transaction<'_>, call: &Call) -> Result<(), OutboxError> {
        let put = transaction.query_typed(self.put_sql(), &[(&self.put_parameter(call), Type::TEXT)]).await;
        put.map(drop).map_err(put_error)
    }

    /// The statement that puts a call in, for a transaction of any client. It has one parameter, of type `text`, which
    /// is [`put_parameter`](Self::put_parameter).
    ///
    /// With sqlx, 0.8 or 0.9:
    ///
    /// ```rust,ignore
    /// sqlx::query(outbox.put_sql()).bind(outbox.put_parameter(&call)).execute(&mut *transaction).await?;
    /// ```
    ///
    /// [The examples](https://github.com/tower-idempotency/tower-idempotency/tree/main/examples/sql_clients/src) have
    /// the same with SeaORM, Diesel and diesel-async.
    #[must_use]
    pub fn put_sql(&self) -> &'static str {
        self.statements.put
    }

    /// The call, as [`put_sql`](Self::put_sql) takes it.
    #[must_use]
    pub fn put_parameter(&self, call: &Call) -> String {
        call.to_json()
    }

    /// The process's moment, for a statement that asks what time it is.
    async fn now(&self) -> Result<Now, OutboxError> {
        loop {
            if let Some(now) = self.clock.now() {
                return Ok(now);
            }
            let rows = self.query(&self.statements.time, &[]).await?;
            for (database, floor) in read(&rows, |row| Ok((row.try_get(0)?, row.try_get(1)?)))? {
                self.clock.begin(database, floor);
            }
        }
    }

    async fn find(&self, key: Option<&str>, position: Option<i64>) -> Result<Option<Entry>, OutboxError> {
        let rows = self.query(&self.statements.find, &[(&key, Type::TEXT), (&position, Type::INT8)]).await?;
        Ok(read(&rows, entry)?.pop())
    }

    /// Sends one statement.
    async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, OutboxError> {
        self.query_within(None, sql, parameters).await
    }

    /// The same, and waits no longer than this for a lock. A connection goes back to the pool only after a success:
    /// after an error, or if this is dropped, it may still be busy, or in a transaction.
    ///
    /// The transaction is committed once the answer is here. A statement that is carried out after this has ended is
    /// undone with its connection: calls that it has taken would be sent by no relay.
    async fn query_within(
        &self,
        locked: Option<Duration>,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, OutboxError> {
        let began = Instant::now();
        let rows = async {
            let connection = Connection::of(&self.pool).await?;
            let begin = begin(began, locked);
            // They are sent together, in this order.
            let rows = async { connection.client().query_typed(sql, parameters).await };
            let rows = tokio::try_join!(connection.client().batch_execute(&begin), rows);
            let ((), rows) = rows.map_err(put_error)?;
            connection.client().batch_execute("COMMIT").await.map_err(OutboxError::database)?;
            connection.give_back();
            Ok(rows)
        };
        timeout(STATEMENT_TIMEOUT, rows).await.map_err(OutboxError::database)?
    }
}

impl fmt::Debug for PostgresOutbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresOutbox").field("put_sql", &self.statements.put).finish_non_exhaustive()
    }
}

impl Outbox for PostgresOutbox {
    async fn put(&self, call: &Call) -> Result<(), OutboxError> {
        self.query(self.put_sql(), &[(&self.put_parameter(call), Type::TEXT)]).await.map(drop)
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, OutboxError> {
        self.find(Some(key.as_str()), None).await
    }

    async fn at(&self, position: u64) -> Result<Option<Entry>, OutboxError> {
        self.find(None, Some(i64::try_from(position).unwrap_or(i64::MAX))).await
    }

    async fn list(&self, state: State, after: Option<u64>, limit: u16) -> Result<Vec<Entry>, OutboxError> {
        let after = after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX));
        let (state, limit) = (state.as_str(), i64::from(limit));
        let parameters: [Parameter<'_>; 3] = [(&state, Type::TEXT), (&after, Type::INT8), (&limit, Type::INT8)];
        read(&self.query(&self.statements.list, &parameters).await?, listed)
    }

    async fn open_calls(&self) -> Result<Vec<OpenCalls>, OutboxError> {
        read(&self.query(&self.statements.open_calls, &[]).await?, counted)
    }

    async fn lease(&self, time: Duration, room: Room) -> Result<Vec<Leased>, OutboxError> {
        let (destinations, taken): (Vec<_>, Vec<_>) =
            room.taken.iter().map(|(destination, taken)| (destination.as_str(), i64::from(*taken))).unzip();
        let turn = || self.after.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = turn().clone();
        loop {
            let Now { wall, kept, floor, is_agreed, process, elapsed } = self.now().await?;
            let parameters: [Parameter<'_>; 12] = [
                (&wall, Type::TIMESTAMPTZ),
                (&kept, Type::TIMESTAMPTZ),
                (&floor, Type::TIMESTAMPTZ),
                (&time.as_secs_f64(), Type::FLOAT8),
                (&i64::from(room.most), Type::INT8),
                (&destinations, Type::TEXT_ARRAY),
                (&taken, Type::INT8_ARRAY),
                (&i64::from(room.of_each), Type::INT8),
                (&after, Type::TEXT),
                (&is_agreed, Type::BOOL),
                (&process, Type::INT8),
                (&elapsed, Type::FLOAT8),
            ];
            let rows = self.query(&self.statements.lease, &parameters).await?;
            // The next lease begins where this one has ended, or at the first partition key. Where nothing is found
            // while the relay has calls, their destinations may have no place left: the turn stays where it is.
            if !rows.is_empty() || room.taken.is_empty() {
                let next = rows.first().and_then(|row| row.try_get::<_, Option<String>>("next").ok()?);
                *turn() = next.unwrap_or_default();
            }
            if !rows.is_empty() || after.is_empty() {
                return read(&rows, leased);
            }
            after.clear();
        }
    }

    async fn update(&self, entry: &Entry, update: Update) -> Result<bool, OutboxError> {
        // Positions and fences come from the database, where they are of this type.
        let (position, fence) = (entry.position as i64, entry.fence as i64);
        let key = entry.call.as_ref().map(|call| call.key().as_str());
        let answer = update.answer.as_ref().map(Answer::to_json);
        let Now { wall, kept, is_agreed, .. } = self.now().await?;
        let parameters: [Parameter<'_>; 13] = [
            (&wall, Type::TIMESTAMPTZ),
            (&kept, Type::TIMESTAMPTZ),
            (&position, Type::INT8),
            (&fence, Type::INT8),
            (&update.state.as_str(), Type::TEXT),
            (&update.wait.as_secs_f64(), Type::FLOAT8),
            (&update.restarts, Type::BOOL),
            (&update.is_no_try, Type::BOOL),
            (&update.may_have_taken_place, Type::BOOL),
            (&update.reason, Type::TEXT),
            (&answer, Type::TEXT),
            (&is_agreed, Type::BOOL),
            (&key, Type::TEXT),
        ];
        Ok(!self.query_within(Some(LOCK_TIMEOUT), &self.statements.update, &parameters).await?.is_empty())
    }

    async fn sweep(&self, ended: Duration) -> Result<bool, OutboxError> {
        let Now { wall, kept, floor, .. } = self.now().await?;
        let moment: [Parameter<'_>; 3] =
            [(&wall, Type::TIMESTAMPTZ), (&kept, Type::TIMESTAMPTZ), (&floor, Type::TIMESTAMPTZ)];
        let (ended, most) = (ended.min(AGES).as_secs_f64(), DELETED_AT_ONCE as i64);
        let bounds: [Parameter<'_>; 2] = [(&ended, Type::FLOAT8), (&most, Type::INT8)];
        self.query(&self.statements.keep_time, &moment).await?;
        let deleted = self.query(&self.statements.delete, &[&moment[..], &bounds].concat()).await?;
        let is_full = deleted.len() == DELETED_AT_ONCE;
        if !is_full {
            self.query(&self.statements.soon, &moment[..2]).await?;
        }
        Ok(is_full)
    }
}

fn put_error(error: Error) -> OutboxError {
    match error.code().map(SqlState::code) {
        Some(PostgresOutbox::KEY_REUSED) => OutboxError::KeyReused,
        _ if error.as_db_error().and_then(DbError::constraint) == Some("call_is_too_large") => {
            OutboxError::TooLarge("it has more than 16 MiB".to_owned())
        }
        _ => OutboxError::database(error),
    }
}
