//! Tracks whether this process and the others are alive, and which rows have changed. It holds the rows of this
//! process's runs, from the claim to the end.

// - here: `Sessions`, which renews this process's session, ends it, and marks others as dead.
// - `own.rs`: the session of this process. `others.rs`: the sessions of other processes, which this process watches.
// - `changes.rs`: notifications that a row has changed.

pub(crate) mod changes;
pub(crate) mod others;
pub(crate) mod own;

use std::sync::Arc;

use ahash::RandomState;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals;
use tower_idempotency::internals::Event;
use tower_idempotency::observer::LeaseChange;
use tower_idempotency::store::StoreError;

use self::others::OtherSessions;
use self::own::{Renewed, Session, dead};
use super::backend::{Backend, BackendError, Expect, Kind, Row, ServerId};
use super::database::Database;
use super::database::errors::not_written;
use super::database::snapshot::Rows;
use super::database::writes::WriteResult;

/// The sessions of this process and of the others.
#[derive(Debug)]
pub(crate) struct Sessions<B> {
    /// The session of this process, which `renew` and `end` write.
    pub(crate) own: Session,
    /// The rows that name a session of this process: its runs, and the operations that it asks about.
    pub(crate) held: DashMap<RecordId, Row, RandomState>,
    /// The sessions of other processes, as far as this one knows them. Use it through `others()`, which may start it
    /// over.
    others: OtherSessions,
    /// The number of changes of the server after which watching has started over.
    started_over: Mutex<u64>,
    database: Arc<Database<B>>,
    /// Held while the session is renewed. The value is `true` once the session has ended.
    renewing: tokio::sync::Mutex<bool>,
    /// Held while a barrier is written. It is locked before `renewing`.
    barriers: tokio::sync::Mutex<()>,
}

impl<B: Backend> Sessions<B> {
    pub(crate) fn new(own: Session, database: Arc<Database<B>>) -> Self {
        Self {
            others: OtherSessions::new(own.lease),
            own,
            held: DashMap::default(),
            started_over: Mutex::default(),
            database,
            renewing: tokio::sync::Mutex::new(false),
            barriers: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the sessions of other processes. Watching them starts over when another server has answered.
    pub(crate) fn others(&self) -> &OtherSessions {
        let mut started_over = self.started_over.lock();
        let changes = self.database.state.server_changes();
        if *started_over < changes {
            *started_over = changes;
            self.others.start_over();
        }
        &self.others
    }

    /// Begins the session, or renews it. Returns the time at which the renewal was first sent.
    pub(crate) async fn renew(&self) -> Result<Instant, StoreError> {
        let has_ended = self.renewing.lock().await;
        if *has_ended {
            return Err(internals::unavailable("the store was closed"));
        }
        let (own, slots) = (&self.own, &self.database.state.slots);
        loop {
            if !own.holds_half() {
                // The database was away, for other processes too.
                self.others().start_over();
            }
            let renewal = own.renewal(self.over_before());
            let WriteResult { row, sent, .. } =
                self.database.urgent.put(renewal.clone(), None).await.map_err(not_written)?;
            match own.renewed(&renewal, row.as_ref(), sent) {
                Renewed::Yes => {
                    let lease = own.lease;
                    if slots.lease.session() != Some(renewal.id) {
                        let session = renewal.id.short();
                        tracing::info!(target: "tower_idempotency", session, "other processes know this one by its session");
                    }
                    // The slots learn of it: a run that others may take over stops a sixth of the lease before the
                    // lease ends.
                    slots.lease.hold(renewal.id, sent + lease, lease / 6);
                    slots.telemetry.happened(Event::Lease(LeaseChange::Renewed));
                    return Ok(sent);
                }
                Renewed::Again => sleep(self.database.state.timeout / 100).await,
                // Then the loop begins the session that replaces it.
                Renewed::Dead => {
                    slots.telemetry.happened(Event::Lease(LeaseChange::Lost));
                    tracing::error!(
                        target: "tower_idempotency",
                        "another process took this one for dead, as its lease was not renewed in time, or the database \
                         has lost its session; runs of this process that no other has taken over may still end"
                    );
                }
            }
        }
    }

    /// Returns a time such that no run of this process with an earlier bound is under way, nor the end of one. A claim
    /// that is being made now has a later bound.
    fn over_before(&self) -> Timestamp {
        // A failover may have lost the copy of the claim that was answered, and kept an earlier copy. The row then has
        // an earlier bound than the answer said. The bound of a copy does not end before the operation began, and no
        // copy changes that time.
        let bounds = self.held.iter().filter_map(|row| row.until.map(|until| until.min(row.began)));
        bounds.fold(self.database.clocks().earliest(), Timestamp::min)
    }

    /// Ends the session, so that other processes need not wait for its lease. If the database does not answer, the
    /// lease runs out.
    pub(crate) async fn end(&self) {
        let end = async {
            // A renewal may be under way while the database does not answer.
            let mut has_ended = self.renewing.lock().await;
            if !std::mem::replace(&mut *has_ended, true)
                && let Some(end) = self.own.end()
            {
                let _ = self.database.urgent.put(end, None).await;
            }
        };
        let _ = timeout(self.database.state.timeout * 2, end).await;
    }

    /// Makes sure that all rows that `server` has shown are durable. A row that was read is durable if the same server
    /// has answered a later write as durable. So each server needs one write, the barrier, which is a renewal.
    pub(crate) async fn barrier(self: &Arc<Self>, server: ServerId) -> Result<(), StoreError> {
        if self.database.state.is_behind_barrier(server) {
            return Ok(());
        }
        // This runs in a task: a caller that is no longer polled would keep this process from renewing its session.
        let sessions = Arc::clone(self);
        let written = tokio::spawn(async move {
            // Barriers are written one after the other, so that a later caller finds it written.
            let _turn = sessions.barriers.lock().await;
            let is_written = sessions.database.state.is_behind_barrier(server);
            if is_written { Ok(()) } else { sessions.renew().await.map(drop) }
        });
        written.await.unwrap_or_else(|_| Err(internals::unavailable("the store's runtime is gone")))?;
        if self.database.state.is_behind_barrier(server) {
            return Ok(());
        }
        Err(internals::unavailable("the database was started again meanwhile"))
    }

    /// Reads the sessions of other processes.
    pub(crate) async fn look_at_others(&self) -> Result<(), BackendError> {
        let Rows { server, sent, rows, .. } = self.database.sessions().await?;
        let others = self.others();
        others.read(sent);
        // A session that has ended or was deleted is not listed any more, so it is read by its id.
        let unlisted = others.unlisted(&rows);
        let own = self.own.own();
        let rows = rows.into_iter().filter(|row| !own.contains(&row.id)).map(|row| (row.id, Some(row)));
        others.note(server, sent, rows);
        if unlisted.is_empty() {
            return Ok(());
        }
        let Rows { server, sent, rows, .. } = self.database.rows(&unlisted, 0).await?;
        self.others().note(server, sent, unlisted.into_iter().zip(rows));
        Ok(())
    }

    /// Marks sessions as dead that have not changed for long.
    pub(crate) async fn mark_long_over(&self) {
        for session in self.others().long_over() {
            if self.own.holds_half() {
                // A session that can't be marked now is tried again at the next look.
                let _ = self.mark_dead(session).await;
            }
        }
    }

    /// Marks the session of another process as dead, if it is over. Returns whether it is dead now: it is not if its
    /// row has changed since it was watched.
    pub(crate) async fn mark_dead(&self, session: RecordId) -> Result<bool, StoreError> {
        let others = self.others();
        let Some(expect) = others.expected(session) else { return Ok(others.is_over(session)) };
        let write = dead(session, expect);
        let token = write.token;
        let WriteResult { row, server, sent, .. } = self.database.urgent.put(write, None).await.map_err(not_written)?;
        // This write is done, or the session was ended or marked as dead before.
        if row.as_ref().is_some_and(|row| row.token == token || row.kind == Kind::Released) {
            self.others().ended(session);
            return Ok(true);
        }
        // The row has the expected token, and still was not written.
        if matches!((&row, expect), (Some(row), Expect::Token(token)) if row.token == token) {
            return Err(internals::unavailable("something else has the row of a session locked"));
        }
        self.others().note(server, sent, [(session, row)]);
        Ok(false)
    }
}
