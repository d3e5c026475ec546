//! Outboxes over any database, and what operators do with their calls.

use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::time::timeout;
use tower_idempotency_outbox::{Entry, OpenCalls, Outbox, OutboxError, State};

use crate::problem::{Problem, in_words};

/// The longest time for what is only read. A change has the outbox's own time limit.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An outbox over any database.
pub(crate) trait Calls: Send + Sync {
    /// Counts the calls that have not ended.
    fn open(&self) -> BoxFuture<'_, Result<Vec<OpenCalls>, Problem>>;

    /// Lists calls in a state.
    fn list(&self, state: State, after: Option<u64>, limit: u16) -> BoxFuture<'_, Result<Vec<Entry>, Problem>>;

    /// Changes a call. Returns whether it was changed.
    fn change<'a>(&'a self, actor: &str, entry: &'a Entry, action: CallAction) -> BoxFuture<'a, Result<bool, Problem>>;
}

impl<O: Outbox> Calls for O {
    fn open(&self) -> BoxFuture<'_, Result<Vec<OpenCalls>, Problem>> {
        Box::pin(in_time(self.open_calls()))
    }

    fn list(&self, state: State, after: Option<u64>, limit: u16) -> BoxFuture<'_, Result<Vec<Entry>, Problem>> {
        Box::pin(in_time(Outbox::list(self, state, after, limit)))
    }

    fn change<'a>(&'a self, actor: &str, entry: &'a Entry, action: CallAction) -> BoxFuture<'a, Result<bool, Problem>> {
        let operator = self.by(actor);
        Box::pin(async move {
            let changed = match action {
                CallAction::Retry => operator.retry(entry).await,
                CallAction::GiveUp => operator.give_up(entry).await,
                CallAction::Done => operator.settle(entry, true).await,
                CallAction::NotDone => operator.settle(entry, false).await,
            };
            changed
                .map_err(|error| failed("It is not known whether this was done; look at it again", &in_words(&error)))
        })
    }
}

async fn in_time<T>(read: impl Future<Output = Result<T, OutboxError>>) -> Result<T, Problem> {
    let unread = |why: &str| failed("The outbox does not answer this", why);
    match timeout(TIMEOUT, read).await {
        Ok(read) => read.map_err(|error| unread(&in_words(&error))),
        Err(_) => Err(unread(&format!("it has not answered within {} seconds", TIMEOUT.as_secs()))),
    }
}

fn failed(what: &str, why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {why}."))
}

/// What operators do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallAction {
    Retry,
    Done,
    NotDone,
    GiveUp,
}

impl CallAction {
    pub(crate) const ALL: [Self; 4] = [Self::Retry, Self::Done, Self::NotDone, Self::GiveUp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Done => "done",
            Self::NotDone => "not-done",
            Self::GiveUp => "give-up",
        }
    }

    /// Returns whether the action is for a call in this state.
    pub(crate) fn fits(self, state: State) -> bool {
        match self {
            Self::Retry => matches!(state, State::Refused | State::GivenUp | State::Damaged),
            Self::Done | Self::NotDone => matches!(state, State::GivenUp | State::Damaged),
            Self::GiveUp => state == State::Waiting,
        }
    }

    /// Returns the words on its button.
    pub(crate) const fn button(self) -> &'static str {
        match self {
            Self::Retry => "Send it again",
            Self::Done => "It has taken place",
            Self::NotDone => "It has not taken place",
            Self::GiveUp => "Give it up",
        }
    }

    /// Returns what the action leads to.
    pub(crate) fn consequence(self, entry: &Entry) -> &'static str {
        match self {
            Self::Retry if entry.may_have_taken_place => {
                "A relay sends the call again, under the same key. It may have taken place: if the other service has \
                 forgotten the key, it takes place a second time. Do this only if that service still knows the key, or \
                 if you have seen that it has not taken place."
            }
            Self::Retry => "A relay sends the call again, under the same key. So far, it has not taken place.",
            Self::Done => {
                "The call counts as delivered, without an answer, and is not sent again. Later calls in its order go on. \
                 Do this if you have seen at the other service that it has taken place."
            }
            Self::NotDone => {
                "The call counts as refused, and is not sent again. Later calls in its order go on. Do this if you have \
                 seen at the other service that it has not taken place, and it is not to take place any more."
            }
            Self::GiveUp => {
                "No relay sends the call any more. Later calls in its order wait until it is settled, or sent again."
            }
        }
    }
}

impl FromStr for CallAction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|action| action.name() == text).ok_or(())
    }
}
