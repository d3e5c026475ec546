//! Calls of the script on the primary, each behind its own barrier.

use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio::time::timeout;
use tower_idempotency_shared::{Answer, BackendError, Clocks};

use super::builder::RedisBackendBuilder;
use super::connection::connect::send;
use super::connection::pool::{Lent, Pool};
use super::error::{Called, MAXMEMORY, is_elsewhere, meaning, unreadable};
use super::script::{Call, Keys, Scripts};
use super::wire::{answer, time};

/// The slowest link for which time limits allow, in bytes a second.
const SLOWEST: u64 = 64 * 1024;
/// The limit of a call with a large answer. The store has one of its own, which is shorter.
const PATIENT: Duration = Duration::from_secs(60);

/// An answer to one of several calls, with what its operation adds. `None` if it was refused for lack of memory, and
/// another may be done.
type Answered = Option<Answer<Vec<Value>>>;

/// The database, as one process reaches it.
pub(crate) struct Database {
    pub(crate) settings: RedisBackendBuilder,
    pub(crate) pool: Pool,
    pub(crate) keys: Keys,
    /// The limit that is reached, as `Backend::full` names it, if one is: new keys are refused.
    pub(crate) limit: watch::Sender<Option<&'static str>>,
    pub(crate) scripts: Scripts,
    /// A number of this process, for a namespace that has no marker yet.
    pub(crate) process: String,
}

impl Database {
    /// A call of `operation`, which makes no new row. Its caller adds what the operation needs.
    pub(crate) fn call(&self, operation: &str, clocks: Clocks) -> Call {
        let arguments = [operation.to_owned(), time(clocks.earliest), time(clocks.latest), self.process.clone()];
        Call { is_claim: false, rows: Vec::new(), arguments: arguments.map(String::into_bytes).into() }
    }

    /// Notes the limit that is reached, if one is.
    pub(crate) fn note(&self, limit: Option<&'static str>) {
        if self.limit.send_replace(limit) != limit {
            tracing::warn!(target: "tower_idempotency", ?limit, "Redis has reached a limit, or not any more");
        }
    }

    /// Makes one call, with so many bytes. `None` says that its answer may be a large one.
    pub(crate) async fn ask(&self, call: Call, bytes: Option<usize>) -> Called<Answer<Vec<Value>>> {
        let answered = self.ask_all(&[call], bytes, false).await?.pop();
        answered.flatten().ok_or_else(|| unreadable("it is missing"))
    }

    /// Makes several calls in one round trip, with one barrier behind them.
    pub(crate) async fn ask_all(&self, calls: &[Call], bytes: Option<usize>, renews: bool) -> Called<Vec<Answered>> {
        let RedisBackendBuilder { durability, response_timeout, wait_for_replicas, .. } = self.settings;
        let barrier = durability.barrier(wait_for_replicas);
        let wait = if barrier.is_empty() { Duration::ZERO } else { wait_for_replicas };
        let more = |bytes: usize| Duration::from_millis((bytes as u64).saturating_mul(1_000) / SLOWEST);
        let limit = bytes.map_or(PATIENT, |bytes| response_timeout + wait + more(bytes));
        let commands = |with_text| {
            let mut commands = Pipeline::new();
            let calls = calls.iter().map(|call| call.command(&self.keys, &self.scripts, with_text));
            calls.chain(barrier.iter().cloned()).for_each(|command| _ = commands.add_command(command));
            commands
        };
        let has = |answers: &[Value], is: fn(&str) -> bool| {
            answers.iter().any(|answer| matches!(answer, Value::ServerError(error) if is(error.code())))
        };
        let mut lent = self.lend(renews).await?;
        let mut answers = self.within(&mut lent, commands(false), limit).await?;
        // A server that was just started, or promoted, does not know the script, or not each form of it. To send all
        // again is harmless, but what was done then is done, whatever the second answers are.
        let mut is_done = false;
        if has(&answers, |code| code == "NOSCRIPT") {
            is_done = answers.iter().take(calls.len()).any(|answer| match answer {
                Value::ServerError(error) => matches!(meaning(error), BackendError::Uncertain(_)),
                _ => true,
            });
            answers = self.within(&mut lent, commands(true), limit).await?;
        }
        // After the calls' answers come those of the barrier, if there is one.
        let short = answers.split_off(calls.len()).pop().and_then(|answer| durability.shortfall(answer));
        let is_elsewhere = has(&answers, is_elsewhere);
        let outcomes = answers.into_iter().map(|value| match value {
            Value::ServerError(error) => Err(meaning(&error)),
            value => answer(value, &lent.connection.run_id),
        });
        let outcomes: Vec<_> = outcomes.collect();
        lent.give_back();
        // Replicas that are gone may follow another primary by now. Of a server that does nothing they say nothing.
        if is_elsewhere || short.is_some() && outcomes.iter().any(Result::is_ok) {
            self.pool.drop_all();
        }
        if outcomes.iter().any(|outcome| matches!(outcome, Err(BackendError::Full(_)))) {
            self.note(Some(MAXMEMORY));
        }
        let answered = together(outcomes, is_done)?;
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
        if let Some(setup) = lent.connection.setup.take() {
            // It may be another server, or set up otherwise than at the last look.
            self.note(setup.limit(self.settings.durability, self.settings.accepted));
        }
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

/// The answers of calls that belong to one put. If none was done, this is the error of the first. If some were, or may
/// be, any error makes all uncertain; but a lack of memory does not, unless a first sending has done some of them.
fn together(outcomes: Vec<Called<Answer<Vec<Value>>>>, is_done_before: bool) -> Called<Vec<Answered>> {
    let is_done = |outcome| matches!(outcome, &Ok(_) | Err(BackendError::Uncertain(_)));
    let may_be_done = is_done_before || outcomes.iter().any(is_done);
    let each = outcomes.into_iter().map(|outcome| match outcome {
        Ok(answered) => Ok(Some(answered)),
        Err(BackendError::Full(_)) if may_be_done && !is_done_before => Ok(None),
        Err(error @ BackendError::Uncertain(_)) => Err(error),
        Err(error) if may_be_done => Err(BackendError::Uncertain(error.into())),
        Err(error) => Err(error),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use tower_idempotency::clock::Timestamp;
    use tower_idempotency_shared::ServerId;

    use super::*;

    #[test]
    fn trap_133_what_a_call_that_was_sent_twice_has_done_by_the_first_is_never_nothing() {
        for error in [BackendError::Full("room"), BackendError::Nothing("no".into()), BackendError::Busy("no".into())] {
            assert!(matches!(together(vec![Err(error)], true), Err(BackendError::Uncertain(_))));
        }
    }

    #[test]
    fn a_put_of_which_a_part_may_be_done_is_never_nothing() {
        let done = || Ok(Answer { now: Timestamp::from_millis(1), server: ServerId(1), rows: Vec::new() });
        let full = || Err(BackendError::Full("room"));
        let nothing = || Err(BackendError::Nothing("no".into()));
        let lost = || Err(BackendError::Uncertain("lost".into()));
        assert!(matches!(together(vec![full(), done()], false).as_deref(), Ok([None, Some(_)])));
        assert!(matches!(together(vec![full(), full()], false), Err(BackendError::Full("room"))));
        assert!(matches!(together(vec![nothing()], false), Err(BackendError::Nothing(_))));
        for parts in [
            vec![nothing(), done()],
            vec![done(), nothing()],
            vec![nothing(), lost()],
            vec![full(), lost()],
            vec![lost(), done()],
        ] {
            assert!(matches!(together(parts, false), Err(BackendError::Uncertain(_))));
        }
    }
}
