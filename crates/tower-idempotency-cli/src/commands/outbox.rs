//! `idem outbox`.

use serde_json::{Value, json};
use tower_idempotency_client::Key;
use tower_idempotency_outbox::{Action, Entry, Outbox, State};

use super::change::unchanged;
use crate::address::Address;
use crate::arguments::{OfCall, OutboxCommand, OutboxLs, OutboxShow, Place, Resolve, StoreOptions};
use crate::consent;
use crate::failure::{Ended, Failure};
use crate::input;
use crate::open::{nowhere_else, outbox_in_directory, outbox_in_postgres};
use crate::screen::{self, Screen};

/// What is listed by default: first what waits for an operator.
const OPEN: [State; 4] = [State::GivenUp, State::Damaged, State::Sending, State::Waiting];
/// The calls that are read at a time.
const PAGE: usize = 500;

pub(crate) async fn run(options: &StoreOptions, command: OutboxCommand, screen: Screen) -> Result<Ended, Failure> {
    let of = match &command {
        OutboxCommand::Ls(ls) => &ls.of,
        OutboxCommand::Show(show) => &show.of,
        OutboxCommand::Retry(call) | OutboxCommand::GiveUp(call) => &call.of,
        OutboxCommand::Resolve(resolve) => &resolve.call.of,
    };
    match Address::of(of.store.clone())? {
        Address::Directory(directory) => {
            let outbox = outbox_in_directory(&directory, &of.outbox).await?;
            let acted = act(&outbox, &command, screen).await;
            outbox.close().await.map_err(Failure::of)?;
            acted
        }
        Address::Postgres(database) => {
            act(&outbox_in_postgres(&database, &of.outbox, options)?, &command, screen).await
        }
        Address::Redis(_) => Err(nowhere_else()),
    }
}

async fn act(outbox: &impl Outbox, command: &OutboxCommand, screen: Screen) -> Result<Ended, Failure> {
    let (call, action) = match command {
        OutboxCommand::Ls(ls) => return list(outbox, ls, screen).await,
        OutboxCommand::Show(show) => return look(outbox, show, screen).await,
        OutboxCommand::Retry(call) => (call, Action::Retry),
        OutboxCommand::GiveUp(call) => (call, Action::GiveUp),
        OutboxCommand::Resolve(Resolve { call, done: true, .. }) => (call, Action::SettleAsDone),
        OutboxCommand::Resolve(Resolve { call, .. }) => (call, Action::SettleAsNotDone),
    };
    change(outbox, call, action, screen).await
}

async fn list(outbox: &impl Outbox, ls: &OutboxLs, screen: Screen) -> Result<Ended, Failure> {
    let states = ls.state.as_ref().map_or(&OPEN[..], std::slice::from_ref);
    let after = ls.after;
    if let Some(after) = after
        && !states.contains(&after.state)
    {
        return Err(Failure::Usage(format!("--after {after} is of a list with --state {}", after.state)));
    }
    // Earlier lists have shown the states before.
    let left = states.iter().skip_while(|state| after.is_some_and(|after| after.state != **state));
    let (limit, mut entries) = (usize::from(ls.limit), Vec::new());
    for &state in left {
        let mut position = after.filter(|after| after.state == state).map(|after| after.position);
        // One more says whether there are more.
        while entries.len() <= limit {
            let most = (limit + 1 - entries.len()).min(PAGE);
            let page = outbox.list(state, position, most as u16).await.map_err(Failure::of)?;
            position = page.last().map(|entry| entry.position);
            let is_last = page.len() < most;
            entries.extend(page);
            if is_last {
                break;
            }
        }
    }
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| has_more).map(|last| Place { state: last.state, position: last.position });
    let mut text = screen::calls(&entries);
    if let Some(next) = next {
        text.push_str(&format!("\nthere are more: --after {next}"));
    }
    let values: Vec<Value> = entries.iter().map(screen::call_as_json).collect();
    screen.answer(text, &json!({ "calls": values, "next": next.map(|next| next.to_string()) }))?;
    Ok(Ended::Well)
}

async fn look(outbox: &impl Outbox, show: &OutboxShow, screen: Screen) -> Result<Ended, Failure> {
    let found = match show.position.as_str() {
        input::STANDARD => {
            let key = Key::new(input::key()?.key.as_str()).map_err(Failure::usage)?;
            outbox.get(&key).await.map_err(Failure::of)?
        }
        position => {
            let position = position.parse();
            let position = position.map_err(|_| Failure::usage("the position of a call is a number"))?;
            outbox.at(position).await.map_err(Failure::of)?
        }
    };
    let Some(entry) = found else {
        screen.answer("no call is there; it may have ended, and been deleted since", &Value::Null)?;
        return Ok(Ended::Badly);
    };
    let (mut text, mut value) = (screen::call(&entry), screen::call_as_json(&entry));
    value["status"] = entry.answer.as_ref().map(|answer| answer.status.as_u16()).into();
    if show.request {
        let (lines, request) = screen::request(&entry);
        text.push_str(&lines);
        value["request"] = request;
    }
    screen.answer(text, &value)?;
    Ok(Ended::Well)
}

/// Says what a change leads to.
fn consequence(action: Action, entry: &Entry) -> &'static str {
    match action {
        Action::Retry if entry.may_have_taken_place => {
            "It is sent again under the same key. The operation MAY HAVE TAKEN PLACE: if the server has forgotten the \
             key, it takes place a second time."
        }
        Action::Retry => "It is sent again under the same key. The operation has not taken place so far.",
        Action::GiveUp => {
            "No relay sends it any more. Later calls in its order wait until it is resolved, or retried and delivered."
        }
        Action::SettleAsDone => "It counts as delivered, without an answer. Later calls in its order go on.",
        Action::SettleAsNotDone => "It counts as refused: it is not sent. Later calls in its order go on.",
        // This command makes no other.
        _ => "",
    }
}

async fn change(outbox: &impl Outbox, call: &OfCall, action: Action, screen: Screen) -> Result<Ended, Failure> {
    let Some(entry) = outbox.at(call.position).await.map_err(Failure::of)? else {
        return unchanged(screen, "no call is at this position");
    };
    if entry.fence() != call.fence {
        let now = format!("its fence is {} now: it has changed since. Look at it again", entry.fence());
        return unchanged(screen, &now);
    }
    if !action.is_for(entry.state) {
        return unchanged(screen, &format!("it is {}, which this change is not for", entry.state));
    }
    let said = format!("{}\n{}", screen::call(&entry), consequence(action, &entry));
    let operator = outbox.by(consent::confirm(&call.consent, &said, false)?);
    match operator.apply(&entry, action).await.map_err(Failure::of)? {
        true => {
            screen.answer("done", &json!({ "result": "done" }))?;
            Ok(Ended::Well)
        }
        false => unchanged(screen, "it has changed meanwhile. Look at it again"),
    }
}
