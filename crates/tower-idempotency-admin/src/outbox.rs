//! Outboxes over any database, and what operators do with their calls.

use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::time::timeout;
use tower_idempotency_outbox::{Action, Entry, OpenCalls, Outbox, OutboxError, State};

use crate::problem::{Problem, with_causes};
use crate::timeout::{Kept, TIMEOUT};

/// An outbox, with its name on the page.
pub(crate) struct Named {
    pub(crate) name: String,
    calls: Box<dyn Calls>,
    open: Kept<Vec<OpenCalls>>,
}

impl Named {
    pub(crate) fn new(name: String, outbox: impl Outbox) -> Self {
        Self { name, calls: Box::new(outbox), open: Kept::new() }
    }

    /// Counts the calls that have not ended, which reads each of them.
    pub(crate) async fn open(&self) -> Result<Vec<OpenCalls>, OutboxError> {
        self.open.or(self.calls.open()).await
    }

    /// Lists calls in a state.
    pub(crate) async fn list(&self, state: State, after: Option<u64>, limit: u16) -> Result<Vec<Entry>, OutboxError> {
        self.calls.list(state, after, limit).await
    }

    /// Returns the call at this position.
    pub(crate) async fn at(&self, position: u64) -> Result<Option<Entry>, Problem> {
        in_time(self.calls.at(position)).await
    }

    /// Changes a call. Returns whether it was changed.
    pub(crate) async fn change(&self, actor: &str, entry: &Entry, action: Action) -> Result<bool, Problem> {
        let changed = self.calls.change(actor, entry, action).await;
        self.open.forget().await;
        changed.map_err(|error| failed("It is not known whether this was done; look at it again", &with_causes(&error)))
    }
}

/// An outbox over any database.
trait Calls: Send + Sync {
    fn open(&self) -> OutboxAnswer<'_, Vec<OpenCalls>>;

    fn list(&self, state: State, after: Option<u64>, limit: u16) -> OutboxAnswer<'_, Vec<Entry>>;

    fn at(&self, position: u64) -> OutboxAnswer<'_, Option<Entry>>;

    fn change<'a>(&'a self, actor: &str, entry: &'a Entry, action: Action) -> OutboxAnswer<'a, bool>;
}

type OutboxAnswer<'a, T> = BoxFuture<'a, Result<T, OutboxError>>;

impl<O: Outbox> Calls for O {
    fn open(&self) -> OutboxAnswer<'_, Vec<OpenCalls>> {
        Box::pin(self.open_calls())
    }

    fn list(&self, state: State, after: Option<u64>, limit: u16) -> OutboxAnswer<'_, Vec<Entry>> {
        Box::pin(Outbox::list(self, state, after, limit))
    }

    fn at(&self, position: u64) -> OutboxAnswer<'_, Option<Entry>> {
        Box::pin(Outbox::at(self, position))
    }

    fn change<'a>(&'a self, actor: &str, entry: &'a Entry, action: Action) -> OutboxAnswer<'a, bool> {
        let operator = self.by(actor);
        Box::pin(async move { operator.apply(entry, action).await })
    }
}

/// Returns what was read, if it comes in time. A change has the outbox's own time limit.
pub(crate) async fn in_time<T>(read: impl Future<Output = Result<T, OutboxError>>) -> Result<T, Problem> {
    let unread = |why: &str| failed("The outbox does not answer this", why);
    match timeout(TIMEOUT, read).await {
        Ok(read) => read.map_err(|error| unread(&with_causes(&error))),
        Err(_) => Err(unread(&format!("it has not answered within {} seconds", TIMEOUT.as_secs()))),
    }
}

fn failed(what: &str, why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {why}."))
}

/// Returns the words on an action's button; none for one that this version of the page does not know.
pub(crate) const fn button(action: Action) -> Option<&'static str> {
    match action {
        Action::Retry => Some("Send it again"),
        Action::SettleAsDone => Some("It has taken place"),
        Action::SettleAsNotDone => Some("It has not taken place"),
        Action::GiveUp => Some("Give it up"),
        _ => None,
    }
}

/// Returns what an action leads to.
pub(crate) fn consequence(action: Action, entry: &Entry) -> &'static str {
    match action {
        Action::Retry if entry.may_have_taken_place => {
            "A relay sends the call again, under the same key. It may have taken place: if the other service has \
             forgotten the key, it takes place a second time. Do this only if that service still knows the key, or \
             if you have seen that it has not taken place."
        }
        Action::Retry => "A relay sends the call again, under the same key. So far, it has not taken place.",
        Action::SettleAsDone => {
            "The call counts as delivered, without an answer, and is not sent again. Later calls in its order go on. \
             Do this if you have seen at the other service that it has taken place."
        }
        Action::SettleAsNotDone => {
            "The call counts as refused, and is not sent again. Later calls in its order go on. Do this if you have \
             seen at the other service that it has not taken place, and it is not to take place any more."
        }
        Action::GiveUp => {
            "No relay sends the call any more. Later calls in its order wait until it is settled, or sent again."
        }
        _ => "",
    }
}
