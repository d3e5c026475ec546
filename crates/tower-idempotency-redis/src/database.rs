//! Calls of the script on the primary, each behind its own barrier.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::timeout;
use tower_idempotency_shared::{BackendError, Clocks};

use super::connection::connect::evicts;
use super::connection::pool::{Lent, Pool};
use super::durability::Durability;
use super::error::{Extent, MAXMEMORY, uncertain};
use super::keys::Keys;
use super::script::{Call, Scripts, Sort};
use super::wire::row::{Answered, Unreadable};

/// The slowest link for which time limits allow, in bytes a second.
const SLOWEST: u64 = 64 * 1024;
/// The limit of a call with a large answer. The store has one of its own, which is shorter.
const PATIENT: Duration = Duration::from_secs(60);

/// The limit of a server that may delete records, as `Backend::full` names it.
pub(crate) const POLICY: &str = "maxmemory-policy";

/// The time that a call may take, and the connection that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// It has so many bytes there, and a short answer.
    Bytes(usize),
    /// It renews the session.
    Renewal,
    /// It may have a large answer.
    Patient,
}

/// The limit that is reached, as `Backend::full` names it, if one is: new keys are refused.
#[derive(Debug, Default)]
pub(crate) struct Fill(Mutex<Option<&'static str>>);

impl Fill {
    pub(crate) fn note(&self, limit: Option<&'static str>) {
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), limit);
        if before != limit {
            tracing::warn!(target: "tower_idempotency", ?limit, "Redis has reached a limit, or not any more");
        }
    }

    pub(crate) fn reached(&self) -> Option<&'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The database, as one process reaches it.
pub(crate) struct Database {
    pub(crate) pool: Pool,
    pub(crate) keys: Keys,
    pub(crate) durability: Durability,
    pub(crate) fill: Fill,
    pub(crate) accepts_eviction: bool,
    pub(crate) scripts: Scripts,
    /// The marker of a namespace that has none yet, and the number of the next call, which makes it another one after
    /// each wipe.
    pub(crate) marker: String,
    pub(crate) calls: AtomicU64,
    /// The time for an answer, and the time in it for the replicas.
    pub(crate) response_timeout: Duration,
    pub(crate) wait_for_replicas: Duration,
}

/// The answer to one of several calls, or why nothing was done.
pub(crate) type Outcome = Result<Answered, BackendError>;

impl Database {
    /// A call of `operation`.
    pub(crate) fn call(&self, sort: Sort, operation: &str, clocks: Clocks) -> Call {
        let marker = format!("{}-{}", self.marker, self.calls.fetch_add(1, Ordering::Relaxed));
        Call::new(sort, operation, &self.keys, clocks, &marker)
    }

    /// Makes one call.
    pub(crate) async fn ask(&self, call: Call, haste: Haste) -> Result<Answered, BackendError> {
        let answered = self.ask_all(&[call], haste).await?.pop();
        answered.unwrap_or_else(|| Err(Unreadable("it is missing").into()))
    }

    /// Makes several calls in one round trip, with one barrier behind them. The inner errors say that nothing was done
    /// by that call. The outer one is of all of them.
    pub(crate) async fn ask_all(&self, calls: &[Call], haste: Haste) -> Result<Vec<Outcome>, BackendError> {
        let mut lent = self.pool.take(haste == Haste::Renewal).await?;
        let policy = lent.connection.policy.take();
        if policy.is_some_and(|policy| evicts(&policy)) && !self.accepts_eviction {
            // It is another server, or set up otherwise than at the last look.
            self.fill.note(Some(POLICY));
        }
        let mut answers = self.send(&mut lent, calls, haste, false).await?;
        // A server that was just started, or promoted, does not know the script. To send all again is harmless.
        if answers.iter().any(|answer| Extent::of(answer) == Some(Extent::Unknown)) {
            answers = self.send(&mut lent, calls, haste, true).await?;
        }
        let waited = if self.barrier().is_some() { answers.pop() } else { None };
        let is_elsewhere = answers.iter().any(|answer| Extent::of(answer) == Some(Extent::Elsewhere));
        let run_id = lent.connection.run_id.clone();
        let mut outcomes: Vec<Outcome> = answers.into_iter().map(|answer| self.outcome(answer, &run_id)).collect();
        let waited = waited.filter(|_| outcomes.iter().any(Result::is_ok));
        let short = waited.and_then(|answer| self.durability.shortfall(&answer));
        lent.give_back();
        if is_elsewhere || short.is_some() {
            // Replicas that are gone may follow another primary by now.
            self.pool.drop_all();
        }
        // Whatever was done must not be taken for nothing.
        if let Some(at) = outcomes.iter().position(|outcome| matches!(outcome, Err(BackendError::Uncertain(_))))
            && let Err(error) = outcomes.swap_remove(at)
        {
            return Err(error);
        }
        short.map_or(Ok(outcomes), |short| Err(uncertain(short)))
    }

    fn barrier(&self) -> Option<Cmd> {
        self.durability.barrier(self.wait_for_replicas)
    }

    /// Sends other commands, whose errors are among the answers.
    pub(crate) async fn command(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, BackendError> {
        let mut lent = self.pool.take(false).await?;
        let answers = self.within(&mut lent, commands, self.response_timeout).await?;
        lent.give_back();
        Ok(answers)
    }

    async fn send(
        &self,
        lent: &mut Lent<'_>,
        calls: &[Call],
        haste: Haste,
        with_text: bool,
    ) -> Result<Vec<Value>, BackendError> {
        let barrier = self.barrier();
        let wait = barrier.as_ref().map_or(Duration::ZERO, |_| self.wait_for_replicas);
        let more = |bytes: usize| Duration::from_millis((bytes as u64).saturating_mul(1_000) / SLOWEST);
        let limit = match haste {
            Haste::Bytes(bytes) => self.response_timeout + wait + more(bytes),
            Haste::Renewal => self.response_timeout + wait,
            Haste::Patient => PATIENT,
        };
        let commands = calls.iter().map(|call| call.command(&self.scripts, with_text));
        self.within(lent, commands.chain(barrier).collect(), limit).await
    }

    /// Sends commands in one round trip. If an answer is lost or late, the caller drops the connection.
    async fn within(
        &self,
        lent: &mut Lent<'_>,
        commands: Vec<Cmd>,
        limit: Duration,
    ) -> Result<Vec<Value>, BackendError> {
        let (count, mut pipeline) = (commands.len(), Pipeline::with_capacity(commands.len()));
        for command in commands {
            pipeline.add_command(command);
        }
        let sent = timeout(limit, lent.connection.commands.send_packed_commands(&pipeline, 0, count)).await;
        let late = || uncertain(format!("there is no answer within {} ms", limit.as_millis()));
        let answers = sent.map_err(|_| late())?.map_err(|error| uncertain(error.to_string()))?;
        if answers.len() != count {
            return Err(Unreadable("it does not have an answer for each command").into());
        }
        Ok(answers)
    }

    fn outcome(&self, answer: Value, run_id: &str) -> Outcome {
        let Some(extent) = Extent::of(&answer) else { return Ok(Answered::read(answer, run_id)?) };
        if extent == Extent::Full {
            self.fill.note(Some(MAXMEMORY));
        }
        Err(extent.error(in_words(&answer)))
    }
}

/// An answer that is an error, in words.
fn in_words(answer: &Value) -> String {
    if let Value::ServerError(error) = answer { error.to_string() } else { String::new() }
}
