//! `idem outbox`.

use serde_json::{Value, json};
use tower_idempotency_client::Key;
use tower_idempotency_outbox::{Entry, Outbox, State};

use super::change::unchanged;
use crate::arguments::{OfCall, OutboxCommand, OutboxLs, OutboxShow, StoreOptions};
use crate::consent;
use crate::failure::{Ended, Failure};
use crate::input;
use crate::open::OpenedOutbox;
use crate::screen::{self, Screen};

/// What is listed by default: first what waits for an operator.
const OPEN: [State; 4] = [State::GivenUp, State::Damaged, State::Sending, State::Waiting];
/// The calls that are read at a time: each has its request and its answer.
const PAGE: usize = 100;

pub(crate) async fn run(options: &StoreOptions, command: OutboxCommand, screen: Screen) -> Result<Ended, Failure> {
    let of = match &command {
        OutboxCommand::Ls(ls) => &ls.of,
        OutboxCommand::Show(show) => &show.of,
        OutboxCommand::Retry(call) | OutboxCommand::GiveUp(call) => &call.of,
        OutboxCommand::Resolve(resolve) => &resolve.call.of,
    };
    match OpenedOutbox::at(of, options).await? {
        OpenedOutbox::Postgres(outbox) => act(&outbox, &command, screen).await,
        OpenedOutbox::Sled(outbox) => {
            let acted = act(&outbox, &command, screen).await;
            outbox.close().await.map_err(|error| Failure::of(&error))?;
            acted
        }
    }
}

async fn act(outbox: &impl Outbox, command: &OutboxCommand, screen: Screen) -> Result<Ended, Failure> {
    match command {
        OutboxCommand::Ls(ls) => list(outbox, ls, screen).await,
        OutboxCommand::Show(show) => look(outbox, show, screen).await,
        OutboxCommand::Retry(call) => change(outbox, call, Change::Retry, screen).await,
        OutboxCommand::GiveUp(call) => change(outbox, call, Change::GiveUp, screen).await,
        OutboxCommand::Resolve(resolve) => {
            change(outbox, &resolve.call, Change::Resolve { is_done: resolve.done }, screen).await
        }
    }
}

async fn list(outbox: &impl Outbox, ls: &OutboxLs, screen: Screen) -> Result<Ended, Failure> {
    let (mut entries, mut has_more) = (Vec::new(), false);
    for &state in ls.state.as_ref().map_or(&OPEN[..], std::slice::from_ref) {
        let mut after = ls.after;
        loop {
            // One more says whether there are more.
            let most = (ls.limit + 1 - entries.len()).min(PAGE);
            let page = outbox.list(state, after, most as u16).await.map_err(|error| Failure::of(&error))?;
            after = page.last().map(|entry| entry.position);
            let is_last = page.len() < most;
            entries.extend(page);
            has_more = entries.len() > ls.limit;
            if is_last || has_more {
                break;
            }
        }
        if has_more {
            entries.truncate(ls.limit);
            break;
        }
    }
    let next = entries.last().filter(|_| has_more).map(|entry| (entry.state, entry.position));
    let mut text = screen::calls(&entries);
    if let Some((state, position)) = next {
        text.push_str(&format!("\nthere are more: --state {state} --after {position}"));
    }
    let values: Vec<Value> = entries.iter().map(screen::call_as_json).collect();
    screen.answer(text, &json!({ "calls": values, "next": next.map(|(_, position)| position.to_string()) }))?;
    Ok(Ended::Well)
}

async fn look(outbox: &impl Outbox, show: &OutboxShow, screen: Screen) -> Result<Ended, Failure> {
    let found = match show.position.as_str() {
        input::STANDARD => {
            let key = Key::new(input::key()?.key.as_str()).map_err(|error| Failure::Usage(error.to_string()))?;
            outbox.get(&key).await.map_err(|error| Failure::of(&error))?
        }
        position => {
            let position = position.parse();
            let position = position.map_err(|_| Failure::Usage("the position of a call is a number".to_owned()))?;
            at(outbox, position).await?
        }
    };
    let Some(entry) = found else {
        screen.answer("no call is there; it may have ended, and been deleted since", &Value::Null)?;
        return Ok(Ended::Badly);
    };
    let (mut text, mut value) = (screen::call(&entry), screen::call_as_json(&entry));
    if show.request {
        let (lines, request) = screen::request(&entry);
        text.push_str(&lines);
        value["request"] = request;
    }
    screen.answer(text, &value)?;
    Ok(Ended::Well)
}

/// Returns the call at this position.
async fn at(outbox: &impl Outbox, position: u64) -> Result<Option<Entry>, Failure> {
    for &state in State::ALL {
        let page = outbox.list(state, position.checked_sub(1), 1).await.map_err(|error| Failure::of(&error))?;
        if let Some(entry) = page.into_iter().next().filter(|entry| entry.position == position) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Retry,
    GiveUp,
    Resolve { is_done: bool },
}

impl Change {
    /// Returns the states of calls for which it is.
    fn states(self) -> &'static [State] {
        match self {
            Self::Retry => &[State::Refused, State::GivenUp, State::Damaged],
            Self::GiveUp => &[State::Waiting],
            Self::Resolve { .. } => &[State::GivenUp, State::Damaged],
        }
    }

    /// Says what it leads to.
    fn consequence(self, entry: &Entry) -> &'static str {
        match self {
            Self::Retry if entry.may_have_taken_place => {
                "It is sent again under the same key. The operation MAY HAVE TAKEN PLACE: if the server has forgotten the \
                 key, it takes place a second time."
            }
            Self::Retry => "It is sent again under the same key. The operation has not taken place so far.",
            Self::GiveUp => {
                "No relay sends it any more. Later calls in its order wait until it is resolved, or retried and delivered."
            }
            Self::Resolve { is_done: true } => {
                "It counts as delivered, without an answer. Later calls in its order go on."
            }
            Self::Resolve { is_done: false } => "It counts as refused: it is not sent. Later calls in its order go on.",
        }
    }
}

async fn change(outbox: &impl Outbox, call: &OfCall, change: Change, screen: Screen) -> Result<Ended, Failure> {
    let Some(entry) = at(outbox, call.position).await? else {
        return unchanged(screen, "no call is at this position");
    };
    if entry.fence() != call.fence {
        let now = format!("its fence is {} now: it has changed since. Look at it again", entry.fence());
        return unchanged(screen, &now);
    }
    if !change.states().contains(&entry.state) {
        return unchanged(screen, &format!("it is {}, which this change is not for", entry.state));
    }
    let said = format!("{}\n{}", screen::call(&entry), change.consequence(&entry));
    let operator = outbox.by(consent::confirm(&call.consent, &said, false)?);
    let changed = match change {
        Change::Retry => operator.retry(&entry).await,
        Change::GiveUp => operator.give_up(&entry).await,
        Change::Resolve { is_done } => operator.settle(&entry, is_done).await,
    };
    match changed.map_err(|error| Failure::of(&error))? {
        true => {
            screen.answer("done", &json!({ "result": "done" }))?;
            Ok(Ended::Well)
        }
        false => unchanged(screen, "it has changed meanwhile. Look at it again"),
    }
}
