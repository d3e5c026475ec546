//! Calls of the script on the primary, each behind its own barrier.

use std::time::Duration;

use bytes::Bytes;
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio::time::timeout;
use tower_idempotency_shared::{Answer, BackendError, Clocks};

use super::builder::RedisBackendBuilder;
use super::connection::connect::send;
use super::connection::pool::{Lent, Pool};
use super::error::{Called, MAXMEMORY, is_elsewhere, meaning, unreadable};
use super::guarantee::Setup;
use super::script::{Call, Keys, Scripts};
use super::wire::{answer, time};

/// The slowest link for which time limits allow, in bytes a second.
const SLOWEST: u64 = 64 * 1024;
/// The limit of a call with a large answer. The store has one of its own, which is shorter.
const PATIENT: Duration = Duration::from_secs(60);

/// The database, as one process reaches it.
pub(crate) struct Database {
    pub(crate) settings: RedisBackendBuilder,
    pub(crate) pool: Pool,
    pub(crate) keys: Keys,
    /// The limit that is reached, as `Backend::full` names it, if one is: new keys are refused.
    pub(crate) limit: watch::Sender<Option<&'static str>>,
    /// The run id of a server that was seen without an append-only file, until it has a whole one.
    pub(crate) off: watch::Sender<String>,
    pub(crate) scripts: Scripts,
    /// A number of this process, for a namespace that has no marker yet.
    pub(crate) process: String,
}

impl Database {
    /// A call of `operation`, which makes no new row. Its caller adds what the operation needs.
    pub(crate) fn call(&self, operation: &str, clocks: Clocks) -> Call {
        let arguments = [operation.to_owned(), time(clocks.earliest), time(clocks.latest), self.process.clone()];
        Call { is_claim: false, renews: false, rows: Vec::new(), arguments: arguments.map(Bytes::from).into() }
    }

    /// Looks at how the server is set up, and notes the limit that is reached, if one is.
    pub(crate) fn look(&self, mut setup: Setup) -> Setup {
        let (RedisBackendBuilder { durability, accepted, .. }, run_id) = (&self.settings, setup.get("run_id"));
        setup.was_off = *self.off.borrow() == run_id;
        if setup.get("aof_enabled") == "0" {
            self.off.send_replace(run_id);
        } else if setup.was_off && !setup.rewrites() {
            self.off.send_replace(String::new());
        }
        self.note(setup.limit(*durability, *accepted));
        setup
    }

    fn note(&self, limit: Option<&'static str>) {
        if self.limit.send_replace(limit) != limit {
            tracing::warn!(target: "tower_idempotency", ?limit, "Redis has reached a limit, or not any more");
        }
    }

    /// Makes one call with its barrier, in one round trip. It has so many bytes; `None` says that its answer may be a
    /// large one.
    pub(crate) async fn ask(&self, call: Call, bytes: Option<usize>) -> Called<Answer<Vec<Value>>> {
        let RedisBackendBuilder { durability, response_timeout, wait_for_replicas, .. } = self.settings;
        let barrier = durability.barrier(wait_for_replicas);
        let wait = if barrier.is_empty() { Duration::ZERO } else { wait_for_replicas };
        let more = |bytes: usize| Duration::from_millis((bytes as u64).saturating_mul(1_000) / SLOWEST);
        let limit = bytes.map_or(PATIENT, |bytes| response_timeout + wait + more(bytes));
        let commands = |with_text| {
            let mut commands = Pipeline::with_capacity(1 + barrier.len());
            commands.add_command(call.command(&self.keys, &self.scripts, with_text));
            barrier.iter().for_each(|command| _ = commands.add_command(command.clone()));
            commands
        };
        let mut lent = self.lend(call.renews).await?;
        let mut answers = self.within(&mut lent, commands(false), limit).await?;
        // A server that was just started, or promoted, does not know the script. It has done nothing then.
        if matches!(&answers[0], Value::ServerError(error) if error.code() == "NOSCRIPT") {
            answers = self.within(&mut lent, commands(true), limit).await?;
        }
        // After the call's answer come those of the barrier, if there is one.
        let short = answers.split_off(1).pop().and_then(|answer| durability.shortfall(answer));
        let (is_elsewhere, answered) = match answers.remove(0) {
            Value::ServerError(error) => (is_elsewhere(error.code()), Err(meaning(&error))),
            value => (false, answer(value, &lent.connection.run_id)),
        };
        let generation = lent.connection.generation;
        lent.give_back();
        // Replicas that are gone may follow another primary by now. Of a server that does nothing they say nothing.
        if is_elsewhere || short.is_some() && answered.is_ok() {
            self.pool.drop_all(generation);
        }
        if matches!(answered, Err(BackendError::Full(_))) && self.limit.borrow().is_none() {
            self.note(Some(MAXMEMORY));
        }
        let answered = answered?;
        short.map_or(Ok(answered), |short| Err(BackendError::Uncertain(short.into())))
    }

    /// Sends other commands, whose errors are among the answers.
    pub(crate) async fn command(&self, commands: Pipeline) -> Called<Vec<Value>> {
        let mut lent = self.lend(false).await?;
        let answers = self.within(&mut lent, commands, self.settings.response_timeout).await?;
        lent.give_back();
        Ok(answers)
    }

    async fn lend(&self, renews: bool) -> Called<Lent<'_>> {
        let mut lent = self.pool.take(renews).await?;
        // It may be another server, or set up otherwise than at the last look.
        lent.connection.setup.take().map(|setup| self.look(setup));
        Ok(lent)
    }

    /// Sends commands in one round trip. If an answer is lost or late, the caller drops the connection.
    async fn within(&self, lent: &mut Lent<'_>, commands: Pipeline, limit: Duration) -> Called<Vec<Value>> {
        let Ok(sent) = timeout(limit, send(&mut lent.connection.commands, &commands)).await else {
            // Those to a machine that is gone are as silent.
            self.pool.drop_idle();
            return Err(BackendError::Uncertain(format!("there is no answer within {} ms", limit.as_millis()).into()));
        };
        let answers = sent.map_err(|error| BackendError::Uncertain(error.into()))?;
        let whole = Some(answers).filter(|answers| answers.len() == commands.len());
        whole.ok_or_else(|| unreadable("it does not have an answer for each command"))
    }
}
