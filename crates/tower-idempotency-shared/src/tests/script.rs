//! A backend that answers each call by a script, and keeps the calls.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tower_idempotency::clock::{Clock, Timestamp};
use tower_idempotency::internals::Slots;
use tower_idempotency::{Fence, RecordId};

use crate::backend::{
    Answer, Backend, BackendError, Clocks, Expect, Guarantee, Kind, NewExpiry, NewFence, Row, ServerId, Stamp, Token,
    Write,
};
use crate::database::clocks::ThreeClocks;
use crate::database::state::DatabaseState;

pub(super) const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Tokio's clock.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn wall(&self) -> Timestamp {
        START.plus(self.0.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The answer to a call.
pub(super) enum Reply {
    /// Every write is done; every row that is read is there.
    Done,
    /// Every row is as its write expects, and the write was not done.
    Locked,
    /// Other writes made the rows.
    Others,
    /// The answer has a row too few.
    Short,
    Error(BackendError),
    /// The answer takes this long.
    After(Duration, Box<Reply>),
}

type Replies = Mutex<VecDeque<Reply>>;

/// The time at which a put was sent, and its writes.
type Sent = (Instant, Vec<Write>);

/// A backend that answers by a script. At the end of the script, it does every call.
#[derive(Clone, Default)]
pub(super) struct Script {
    replies: Arc<Replies>,
    /// The writes of each put and the ids of each get, with the time at which each was sent.
    pub(super) puts: Arc<Mutex<Vec<Sent>>>,
    pub(super) gets: Arc<Mutex<Vec<Vec<RecordId>>>>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

pub(super) fn id(number: u8) -> RecordId {
    RecordId::from_bytes([number; 32])
}

/// Returns the row that a write makes.
pub(super) fn made_by(write: &Write) -> Row {
    Row {
        id: write.id,
        token: write.token,
        fence: Fence(7),
        kind: write.kind,
        session: write.session,
        until: None,
        began: START,
        since: START,
        expires: START.plus(Duration::from_secs(3_600)),
        state: Bytes::new(),
    }
}

/// Returns a write of this many bytes that expects a row.
pub(super) fn write(number: u8, bytes: usize) -> Write {
    Write {
        id: id(number),
        expect: Expect::Token(Token([0xee; 16])),
        token: Token([number; 16]),
        fence: NewFence::Keep,
        kind: Kind::Completed,
        session: None,
        until: None,
        began: Stamp::Keep,
        since: Stamp::Now,
        expires: NewExpiry::In(Duration::from_secs(3_600)),
        state: Bytes::from(vec![1; bytes]),
    }
}

/// Returns the row that [`write()`] expects.
fn expected(id: RecordId) -> Row {
    Row { token: Token([0xee; 16]), ..made_by(&Write { id, ..write(0, 0) }) }
}

pub(super) fn state() -> Arc<DatabaseState> {
    let clock = Arc::new(TokioClock(Instant::now()));
    let slots = Arc::new(Slots::default());
    Arc::new(DatabaseState::new(ThreeClocks::new(clock, Duration::from_secs(604_800)), TIMEOUT, slots))
}

pub(super) fn error(kind: fn(Box<dyn std::error::Error + Send + Sync>) -> BackendError) -> Reply {
    Reply::Error(kind("by the script".into()))
}

impl Script {
    pub(super) fn of(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self { replies: Arc::new(Mutex::new(replies.into_iter().collect())), ..Self::default() }
    }

    /// Returns the number of writes of each put.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.puts.lock().unwrap().iter().map(|(_, writes)| writes.len()).collect()
    }

    async fn answer(
        &self,
        done: impl Fn() -> Vec<Option<Row>>,
        ids: Vec<RecordId>,
    ) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        let mut reply = self.replies.lock().unwrap().pop_front().unwrap_or(Reply::Done);
        while let Reply::After(time, next) = reply {
            sleep(time).await;
            reply = *next;
        }
        let rows = match reply {
            Reply::Done => done(),
            Reply::Locked => ids.into_iter().map(|id| Some(expected(id))).collect(),
            Reply::Others => ids.into_iter().map(|id| Some(Row { token: Token([0xdd; 16]), ..expected(id) })).collect(),
            Reply::Short => ids.into_iter().skip(1).map(|_| None).collect(),
            Reply::Error(error) => return Err(error),
            Reply::After(..) => unreachable!("it was waited for"),
        };
        Ok(Answer { now: START, server: ServerId(1), rows })
    }
}

impl Backend for Script {
    async fn get(&self, _: Clocks, ids: &[RecordId]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        self.gets.lock().unwrap().push(ids.to_vec());
        self.answer(|| ids.iter().map(|id| Some(expected(*id))).collect(), ids.to_vec()).await
    }

    async fn put(&self, _: Clocks, writes: &[Write]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        self.puts.lock().unwrap().push((Instant::now(), writes.to_vec()));
        let ids = writes.iter().map(|write| write.id).collect();
        self.answer(|| writes.iter().map(|write| Some(made_by(write))).collect(), ids).await
    }

    async fn sessions(&self, _: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        unreachable!("it is not asked")
    }

    async fn list(
        &self,
        _: Clocks,
        _: &[RecordId],
        _: Option<(Timestamp, RecordId)>,
        _: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        unreachable!("it is not asked")
    }

    async fn scan(&self, _: Clocks, _: Option<RecordId>, _: usize) -> Result<Answer<Vec<Row>>, BackendError> {
        unreachable!("it is not asked")
    }

    async fn delete_expired(&self, _: Clocks, _: usize) -> Result<usize, BackendError> {
        unreachable!("it is not asked")
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        unreachable!("it is not asked")
    }
}
