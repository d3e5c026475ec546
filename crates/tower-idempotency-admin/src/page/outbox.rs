//! The calls of outboxes: how many there are, those that wait for an operator, and the way to change one.

use futures_util::future::{join, join_all};
use maud::{Markup, html};
use tower_idempotency::store::Store;
use tower_idempotency_outbox::{Action, Entry, OpenCalls, OutboxError, State};

use super::frame::framed;
use crate::access::Permission;
use crate::fields::{Fields, link};
use crate::guard::Caller;
use crate::outbox::{Named, button, consequence, in_time};
use crate::problem::Problem;
use crate::site::Site;
use crate::text::{age, date, now, shown, span};

/// The most calls of a state that are shown.
const SHOWN: u16 = 100;

/// The calls that the URL asks for: those in the state `calls` behind the position `calls_after`, of the outbox
/// `outbox`.
struct Asked {
    state: State,
    after: Option<u64>,
    outbox: Option<usize>,
}

impl Asked {
    fn read(fields: &Fields) -> Option<Self> {
        let state = State::from_name(fields.get("calls")?)?;
        let number = |name| fields.get(name).and_then(|text| text.parse().ok());
        Some(Self {
            state,
            after: number("calls_after"),
            outbox: number("outbox").and_then(|at| usize::try_from(at).ok()),
        })
    }

    fn link(at: usize, state: State, after: Option<u64>) -> String {
        let (at, after) = (at.to_string(), after.map(|after| after.to_string()));
        let after = after.as_deref().map(|after| ("calls_after", after));
        format!("{}#outbox-{at}", link([("outbox", &*at), ("calls", state.as_str())].into_iter().chain(after)))
    }
}

/// Returns a section for each outbox.
pub(super) async fn sections<St: Store>(site: &Site<St>, caller: &Caller, fields: &Fields) -> Markup {
    let asked = Asked::read(fields);
    let sections = site.outboxes.iter().enumerate().map(async |(at, outbox)| {
        let asked = asked.as_ref().filter(|asked| asked.outbox.is_none_or(|asked| asked == at));
        let (open, listed) = join(in_time(outbox.open()), in_time(listed(outbox, asked))).await;
        let id = format!("outbox-{at}");
        html! {
            section aria-labelledby=(id) {
                h2 id=(id) { "Outbox: " (shown(&outbox.name)) }
                @match open {
                    Ok(open) => (counts(at, &open)),
                    Err(problem) => p.complaint role="alert" { (shown(&problem.detail)) },
                }
                @match listed {
                    Ok((calls, more)) => {
                        @if !calls.is_empty() { (table(&calls, caller.may(Permission::Outbox).then_some(at))) }
                        p {
                            @for (state, last) in more { a href=(Asked::link(at, state, Some(last))) { "More: " (word(state)) } " " }
                            a href=(Asked::link(at, State::Refused, None)) { "Refused calls" } ", which can be sent again"
                        }
                    }
                    Err(problem) => p.complaint role="alert" { (shown(&problem.detail)) },
                }
            }
        }
    });
    html! { @for section in join_all(sections).await { (section) } }
}

/// Returns the calls that are shown, and the states of which there are more, with the last one that is shown.
async fn listed(outbox: &Named, asked: Option<&Asked>) -> Result<(Vec<Entry>, Vec<(State, u64)>), OutboxError> {
    let (mut calls, mut more) = (Vec::new(), Vec::new());
    let asked_for = asked.map(|asked| asked.state).filter(|state| !matches!(state, State::GivenUp | State::Damaged));
    for state in [Some(State::GivenUp), Some(State::Damaged), asked_for].into_iter().flatten() {
        let after = asked.filter(|asked| asked.state == state).and_then(|asked| asked.after);
        // One more says whether there are more.
        let mut listed = outbox.list(state, after, SHOWN + 1).await?;
        if listed.len() > usize::from(SHOWN) {
            listed.truncate(usize::from(SHOWN));
            more.extend(listed.last().map(|last| (state, last.position)));
        }
        calls.extend(listed);
    }
    Ok((calls, more))
}

fn counts(at: usize, open: &[OpenCalls]) -> Markup {
    html! {
        @if open.is_empty() { p { "All calls have ended." } } @else {
            table.numbers {
                caption { "Calls that have not ended" }
                thead { tr { th scope="col" { "State" } th scope="col" { "Destination" } th scope="col" { "Calls" } th scope="col" { "Oldest" } } }
                tbody { @for of in open { tr {
                    td data-label="State" { a href=(Asked::link(at, of.state, None)) { (word(of.state)) } }
                    td data-label="Destination" { (shown(&of.destination)) }
                    td data-label="Calls" { (of.calls) }
                    td data-label="Oldest" { (span(of.oldest)) }
                } } }
            }
        }
    }
}

/// Returns a table of calls, with the buttons for those of this outbox, if there are to be any.
fn table(calls: &[Entry], changed_in: Option<usize>) -> Markup {
    html! {
        table.operations {
            caption { "Up to " (SHOWN) " in a state, the oldest first" }
            thead { tr {
                th scope="col" { "State" } th scope="col" { "Call" } th scope="col" { "For" }
                th scope="col" { "Last try" } th scope="col" { "Action" }
            } }
            tbody { @for entry in calls { tr {
                td data-label="State" { (word(entry.state)) @if entry.may_have_taken_place { ", may have taken place" } }
                td data-label="Call" { code { (entry.position) } " " (shown(destination(entry))) }
                td data-label="For" { @let stored = entry.stored.into(); span title=(date(stored)) { (age(stored, now())) } }
                td data-label="Last try" { (shown(entry.reason.as_deref().unwrap_or("–"))) }
                td data-label="Action" { @if let Some(at) = changed_in { (buttons(at, entry)) } }
            } } }
        }
    }
}

fn buttons(at: usize, entry: &Entry) -> Markup {
    html! {
        form method="post" action="?" {
            (hidden("review-call", at, entry))
            p.buttons { @for (action, words) in Action::ALL.iter().filter(|action| action.is_for(entry.state)).filter_map(|action| Some((action, button(*action)?))) {
                button name="action" value=(action.name()) { (words) "…" }
            } }
        }
    }
}

fn hidden(form: &str, at: usize, entry: &Entry) -> Markup {
    html! {
        input type="hidden" name="do" value=(form);
        input type="hidden" name="outbox" value=(at);
        input type="hidden" name="position" value=(entry.position);
        input type="hidden" name="fence" value=(entry.fence());
    }
}

/// What a form is for.
struct WantedAction<'a> {
    at: usize,
    outbox: &'a Named,
    action: Action,
    /// The words on its button.
    words: &'static str,
    /// `None`: it has changed since.
    entry: Option<Entry>,
}

impl<'a> WantedAction<'a> {
    async fn read<St: Store>(site: &'a Site<St>, caller: &Caller, fields: &Fields) -> Result<Self, Problem> {
        caller.require(Permission::Outbox)?;
        let number = |name| fields.get(name).and_then(|text| text.parse::<u64>().ok());
        let read = || {
            let at = usize::try_from(number("outbox")?).ok()?;
            let action = Action::from_name(fields.get("action")?)?;
            Some((at, site.outboxes.get(at)?, action, button(action)?, number("position")?, number("fence")?))
        };
        let Some((at, outbox, action, words, position, fence)) = read() else {
            return Err(Problem::wrong("This form is not one of this page."));
        };
        let entry = outbox.at(position).await?;
        let entry = entry.filter(|entry| entry.fence() == fence && action.is_for(entry.state));
        Ok(Self { at, outbox, action, words, entry })
    }
}

const STALE: &str = "Nothing was changed: it has changed since you looked. Look at it again.";

/// Shows what an action leads to, and asks to confirm it.
pub(super) async fn review<St: Store>(site: &Site<St>, caller: &Caller, fields: &Fields) -> Result<Markup, Problem> {
    let WantedAction { at, action, words, entry, .. } = WantedAction::read(site, caller, fields).await?;
    let main = html! {
        @if let Some(entry) = &entry {
            p.consequence { strong { (consequence(action, entry)) } }
            (table(std::slice::from_ref(entry), None))
            form method="post" action="?" {
                (hidden("change-call", at, entry))
                input type="hidden" name="action" value=(action.name());
                p.buttons {
                    button.decisive #confirm { "Yes: " (words.to_lowercase()) }
                    a href="?" { "No, go back" }
                }
            }
        } @else {
            p.complaint role="alert" { (STALE) }
            p { a href="?" { "All operations" } }
        }
    };
    Ok(framed(caller, &format!("{words}?"), main))
}

/// Makes a change, and says what has come of it.
pub(super) async fn change<St: Store>(site: &Site<St>, caller: &Caller, fields: &Fields) -> Result<Markup, Problem> {
    let WantedAction { outbox, action, entry, .. } = WantedAction::read(site, caller, fields).await?;
    let is_changed = match &entry {
        Some(entry) => outbox.change(&caller.actor.name, entry, action).await?,
        None => false,
    };
    let main = html! {
        @if is_changed { p #said { "Done." } } @else { p.complaint #said role="alert" { (STALE) } }
        p { a href="?" { "All operations" } }
    };
    Ok(framed(caller, "Result", main))
}

fn destination(entry: &Entry) -> &str {
    if entry.destination.is_empty() { "without a destination that can be read" } else { &entry.destination }
}

/// Returns the word for a state.
fn word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Sending => "being sent",
        State::Delivered => "delivered",
        State::Refused => "refused",
        State::GivenUp => "given up",
        State::Damaged => "damaged",
        _ => "in another state",
    }
}
