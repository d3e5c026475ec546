//! One transition: read what stands there, let the protocol decide, compare and set.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::backend::{Backend, BackendError, Expect, GRACE, Kind, NewExpiry, NewFence, Row, Stamp, Write};
use super::puts::{NotPut, Stands};
use super::rows::{self, Held, View};
use super::session;
use super::state::Shelf;
use crate::key::RecordId;
use crate::record::{
    Applied, Change, Completion, Current, Draft, Expiry, Owner, Record, Reply, Settlement, State, Transition, next,
};
use crate::store::StoreError;

/// How often a row is looked at anew that somebody else changes, or holds, meanwhile.
const ROUNDS: u32 = 32;
/// The longest pause before a row is tried again that something else has locked.
const BUSY: Duration = Duration::from_millis(50);

/// What is known to stand there.
#[derive(Debug)]
struct Known {
    row: Option<Row>,
    now: crate::clock::Timestamp,
    /// The server that has shown it; `None` if this process wrote it.
    server: Option<super::backend::ServerId>,
}

impl<B: Backend> Shelf<B> {
    /// Takes one step on the record of `id`, or refuses it.
    pub(super) async fn step(&self, id: RecordId, transition: Transition) -> Result<Applied, StoreError> {
        let deadline = transition.claim().map(|claim| Instant::now() + claim.patience);
        // A claim expects nothing to be there, and asks only by being sent. What this process holds, it has written.
        let mut known = match &transition {
            Transition::Claim(_) => Known { row: None, now: self.reach.session.now(), server: None },
            _ => match self.held.get(&id) {
                Some(row) => Known { row: Some(row.clone()), now: self.reach.session.now(), server: None },
                None => self.read(id).await?,
            },
        };
        for _ in 0..ROUNDS {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(late());
            }
            let seen = self.view(&known).of_row(known.row.as_ref());
            // What takes an operation, or asks about it, needs all of its record.
            let needs_all = transition.claim().is_some() || matches!(transition, Transition::Inquire { .. });
            let record = match seen {
                Some(held) if needs_all => Some(held.whole(id)?),
                Some(held) => Some(held.columns(id)?),
                None => None,
            };
            let is_released = known.row.as_ref().is_some_and(|row| row.kind == Kind::Released);
            let current = if is_released { Current::Released } else { Current::from(record.as_ref()) };
            let (change, reply) = next(current, transition.clone());
            let (write, draft) = match change {
                Change::Nothing => return self.unchanged(id, &transition, known, reply, record).await,
                Change::Release => (self.release(id, known.row.as_ref()), None),
                Change::Put(draft) => {
                    let write = self.write(id, &draft, known.row.as_ref(), record.as_ref());
                    (write.ok_or_else(|| StoreError::unavailable("the record can't be encoded"))?, Some(draft))
                }
            };
            if transition.claim().is_some() && !self.reach.session.may_claim() {
                return Err(StoreError::unavailable("this process does not hold its session"));
            }
            // Whoever takes over says first that the session is dead: its process may be on its way to renew it.
            let takes_over = !matches!(reply, Reply::Refused)
                && matches!(transition, Transition::Reclaim(..) | Transition::Inquire { .. } | Transition::Resolve(..));
            if takes_over && !self.bury(known.row.as_ref()).await? {
                known = self.read(id).await?;
                continue;
            }
            let token = write.token;
            let (expected, limit) = (write.expect, deadline);
            let Stands { row, answer, .. } = match self.puts.put(write, limit).await {
                Ok(stands) => stands,
                Err(NotPut::Never(_)) if is_outcome(&transition) => {
                    // An outcome that the database never takes is consumed. What ends a run is never refused for good.
                    return Box::pin(self.step(id, consumed(transition))).await;
                }
                Err(error) => return Err(not_put(error)),
            };
            if let Some(done) = row.as_ref().filter(|row| row.token == token) {
                return Ok(self.done(id, done, draft, reply));
            }
            self.held.remove(&id);
            if matches!((&row, expected), (Some(row), Expect::Token(token)) if row.token == token) {
                tokio::time::sleep(BUSY.mul_f64(jitter())).await;
            }
            known = Known { row, now: answer.now, server: Some(answer.server) };
        }
        Err(StoreError::unavailable("the row is locked, or changes all the time"))
    }

    /// Reads the row of `id`.
    async fn read(&self, id: RecordId) -> Result<Known, StoreError> {
        let sent = Instant::now();
        let answer = match timeout(self.reach.timeout(), self.backend.get(&[id])).await {
            Ok(answer) => answer,
            Err(_) => Err(BackendError::Uncertain("it did not come in time".into())),
        };
        let answer = answer.inspect_err(|error| self.reach.failed(error)).map_err(away)?;
        self.reach.answered(answer.server, answer.now, sent, false, answer.rows.iter().flatten());
        let row = answer.rows.into_iter().next().flatten();
        Ok(Known { row, now: answer.now, server: Some(answer.server) })
    }

    /// The record of `id`, as this process sees it.
    pub(super) async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.recall(id) {
            return Ok(Some(record));
        }
        let known = self.read(id).await?;
        let record = match self.view(&known).of_row(known.row.as_ref()) {
            Some(held) => Some(held.whole(id)?),
            None => None,
        };
        self.tell(id, known, record).await
    }

    /// What this process knows of `id` without asking: a completed record that has not expired.
    pub(super) fn recall(&self, id: RecordId) -> Option<Record> {
        let record = self.cache.get(&id)?;
        let record = Record::clone(&record).live(self.reach.session.now());
        if record.is_none() {
            self.cache.remove(&id);
        }
        record
    }

    /// Gives a record that was read to whoever answers from it. What is done is told only behind a barrier, and kept.
    async fn tell(&self, id: RecordId, known: Known, record: Option<Record>) -> Result<Option<Record>, StoreError> {
        let is_done = |record: &Record| matches!(record.state, State::Completed { .. } | State::Consumed { .. });
        let Some(record) = record else { return Ok(None) };
        if is_done(&record) {
            if let Some(server) = known.server
                && !self.reach.session.is_behind_barrier(server)
            {
                self.barrier(server).await?;
            }
            self.cache.put(id, record.clone());
        }
        Ok(Some(record))
    }

    /// Answers a transition that changes nothing.
    async fn unchanged(
        &self,
        id: RecordId,
        transition: &Transition,
        known: Known,
        reply: Reply,
        record: Option<Record>,
    ) -> Result<Applied, StoreError> {
        self.held.remove(&id);
        if let (Reply::Refused, Transition::Complete(completion)) = (reply, transition) {
            self.dispute(completion).await;
        }
        let record = self.tell(id, known, record).await?;
        Ok(Applied { reply, record })
    }

    /// What was written is what stands there now.
    fn done(&self, id: RecordId, row: &Row, draft: Option<Draft<Bytes>>, reply: Reply) -> Applied {
        let Some(draft) = draft else {
            self.held.remove(&id);
            return Applied { reply, record: None };
        };
        let Draft { owned, fingerprint, attempt, origin, state, .. } = draft;
        let owner = if owned.is_some() { Owner::Here } else { Owner::Nobody };
        if owner == Owner::Here {
            self.held.insert(id, row.clone());
        } else {
            self.held.remove(&id);
        }
        let expires = if matches!(state, State::Running { .. }) { None } else { Some(row.expires) };
        let Row { fence, began, since, .. } = *row;
        let record = Record { fence, began, since, expires, fingerprint, attempt, origin, state, owner };
        if matches!(record.state, State::Completed { .. } | State::Consumed { .. }) {
            self.cache.put(id, record.clone());
        }
        Applied { reply, record: Some(record) }
    }

    fn view(&self, known: &Known) -> OwnView {
        OwnView { own: self.reach.session.own(), now: known.now, trusts_leases: self.reach.session.trusts_leases() }
    }

    /// The write by which the record becomes what `draft` says. `row` stands there, and is presented as `record`.
    fn write(&self, id: RecordId, draft: &Draft<Bytes>, row: Option<&Row>, record: Option<&Record>) -> Option<Write> {
        let session = draft.owned.map(|_| self.reach.session.id());
        let is_new = record.is_none();
        let fence = match draft.fence {
            None => NewFence::Above(self.reach.floor.get()),
            Some(fence) if row.is_some_and(|row| row.fence == fence) => NewFence::Keep,
            Some(fence) => NewFence::Exactly(fence),
        };
        let expires = match draft.expiry {
            // A run that is never ended is interrupted when its bound is over at the latest, and kept from then on.
            Expiry::Never => NewExpiry::In(match &draft.state {
                State::Running { interrupted_retention } => {
                    draft.owned.unwrap_or_default().saturating_add(*interrupted_retention)
                }
                _ => GRACE,
            }),
            Expiry::In(kept) => NewExpiry::In(kept),
            Expiry::AtLeast(least) => {
                let now = self.reach.session.now();
                let left = record.and_then(|record| record.expires).map_or(Duration::ZERO, |expires| {
                    Duration::from_millis(expires.as_millis().saturating_sub(now.as_millis()))
                });
                let is_as_it_stands = row.map(|row| row.expires) == record.and_then(|record| record.expires);
                if left >= least && is_as_it_stands { NewExpiry::Keep } else { NewExpiry::In(left.max(least)) }
            }
        };
        let is_question = matches!(draft.expiry, Expiry::AtLeast(_));
        Some(Write {
            id,
            expect: row.map_or(Expect::Absent, |row| Expect::Token(row.token)),
            token: super::random_token(),
            fence,
            kind: rows::kind(&draft.state),
            session,
            until: draft.owned,
            began: if is_new { Stamp::Now } else { Stamp::Keep },
            since: if is_question { Stamp::Keep } else { Stamp::Now },
            expires,
            state: rows::encode(&id, draft)?,
        })
    }

    /// The write that frees the key. The row is kept for as long as a late claim may still arrive.
    fn release(&self, id: RecordId, row: Option<&Row>) -> Write {
        Write {
            id,
            expect: row.map_or(Expect::Absent, |row| Expect::Token(row.token)),
            token: super::random_token(),
            fence: NewFence::Keep,
            kind: Kind::Released,
            session: None,
            until: None,
            began: Stamp::Keep,
            since: Stamp::Now,
            expires: NewExpiry::In(GRACE),
            state: Bytes::new(),
        }
    }

    /// Marks the session as dead that a row names, if its lease is over. Returns whether the row may be taken over: not
    /// if the session was renewed meanwhile.
    async fn bury(&self, row: Option<&Row>) -> Result<bool, StoreError> {
        let Some(session) = row.and_then(|row| row.session) else { return Ok(true) };
        if self.reach.session.own().contains(&session) {
            return Ok(true);
        }
        let Known { row: found, now, .. } = self.read(session).await?;
        // It is gone or dead already, or alive: then it is the run's own bound that is over.
        let Some(found) = found.filter(|found| found.kind == Kind::Session) else { return Ok(true) };
        if found.until.is_some_and(|until| until > now) {
            return Ok(row.and_then(|row| row.until).is_none_or(|until| until <= now));
        }
        let write = session::dead(session, found.token);
        let token = write.token;
        let stands = self.puts.put(write, None).await.map_err(not_put)?;
        let is_dead = |row: &Row| row.token == token || row.kind == Kind::Released;
        Ok(stands.row.as_ref().is_none_or(is_dead))
    }

    /// Writes something that is durable when it is answered, and so is all that `server` had shown before.
    async fn barrier(&self, server: super::backend::ServerId) -> Result<(), StoreError> {
        self.renew().await?;
        if self.reach.session.is_behind_barrier(server) {
            return Ok(());
        }
        Err(StoreError::unavailable("the database was started again meanwhile"))
    }

    /// Keeps an outcome that is refused because somebody took the operation over or settled it: in a row of its own, for
    /// operators.
    async fn dispute(&self, completion: &Completion) {
        let Completion { hold, fingerprint, settlement, .. } = completion;
        let state = match settlement {
            Settlement::Outcome(outcome) => State::Completed { outcome: outcome.clone() },
            Settlement::Consumed { status } => State::Consumed { status: *status },
        };
        let (fence, expiry) = (Some(hold.fence), Expiry::In(DISPUTED_KEPT));
        let (fingerprint, attempt) = (*fingerprint, hold.attempt);
        let draft = Draft { fence, expiry, owned: None, fingerprint, attempt, origin: None, state };
        let id = disputed(hold.id, hold.fence);
        let write = self.write(id, &draft, None, None).map(|write| Write { kind: Kind::Disputed, ..write });
        let Some(write) = write else { return };
        let kept = self.puts.put(write, None).await.is_ok();
        tracing::error!(
            target: "tower_idempotency", record_id = hold.id.short(), fence = hold.fence.0, kept,
            "a run ended after its operation was taken over or settled: its outcome is disputed"
        );
    }
}

/// How long a disputed outcome is kept.
const DISPUTED_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// The id of the row that keeps the disputed outcome of the run with this fence.
fn disputed(id: RecordId, fence: crate::record::Fence) -> RecordId {
    let digest = blake3::Hasher::new_derive_key("tower-idempotency 2026 disputed outcome v1")
        .update(id.as_bytes())
        .update(&fence.0.to_le_bytes())
        .finalize();
    RecordId::from_bytes(*digest.as_bytes())
}

/// Whether a run ends with an outcome.
fn is_outcome(transition: &Transition) -> bool {
    matches!(transition, Transition::Complete(Completion { settlement: Settlement::Outcome(_), .. }))
}

/// The same end of a run, without its outcome.
fn consumed(transition: Transition) -> Transition {
    match transition {
        Transition::Complete(Completion { hold, fingerprint, settlement: _, retention }) => {
            let settlement = Settlement::Consumed { status: 0 };
            Transition::Complete(Completion { hold, fingerprint, settlement, retention })
        }
        other => other,
    }
}

/// Between 0 and 1, at random.
fn jitter() -> f64 {
    let [a, b, ..] = super::random_token().0;
    f64::from(u16::from_le_bytes([a, b])) / f64::from(u16::MAX)
}

fn late() -> StoreError {
    StoreError::unavailable("the claim came too late")
}

pub(super) fn away(error: BackendError) -> StoreError {
    StoreError::Unavailable { reason: "the database does not answer".to_owned(), source: Some(Box::new(error)) }
}

/// What a write that was not done means for who asked for it.
pub(super) fn not_put(error: NotPut) -> StoreError {
    match error {
        NotPut::Away(error) | NotPut::Never(error) => {
            StoreError::Unavailable { reason: error.to_string(), source: None }
        }
        NotPut::Late => late(),
        NotPut::Gone => StoreError::uncertain("the store was closed meanwhile"),
    }
}

/// [`View`], with what it borrows.
#[derive(Debug)]
struct OwnView {
    own: Arc<std::collections::HashSet<RecordId>>,
    now: crate::clock::Timestamp,
    trusts_leases: bool,
}

impl OwnView {
    fn of_row(&self, row: Option<&Row>) -> Option<Held> {
        let Self { own, now, trusts_leases } = self;
        row.and_then(|row| View { own, now: *now, trusts_leases: *trusts_leases }.of(row))
    }
}
