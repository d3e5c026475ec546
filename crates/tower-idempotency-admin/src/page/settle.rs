//! From a button to a change: what it leads to in words, the confirmation, and the result of each.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use maud::{Markup, html};
use tower_idempotency::internals::written;
use tower_idempotency::operations::{Change, Form, OperationRecord};
use tower_idempotency::store::{Store, StoreError};
use tower_idempotency::{Fence, RecordId};

use super::answer_form::{self, Entered};
use super::detail::facts;
use super::frame::framed;
use super::operation::{name, state, word};
use crate::action::Kind;
use crate::fields::{Fields, link};
use crate::guard::Caller;
use crate::problem::Problem;
use crate::selection::{MAX_CALLS, MAX_ROWS, Selection};
use crate::site::Site;
use crate::text::{age, now, sentence, shown, shown_lines};
use crate::timeout::in_time;

/// The most of them that the confirmation shows.
const SHOWN_ROWS: usize = 100;
/// How many operations are looked at at a time.
const MAX_AT_ONCE: usize = 64;
/// The most characters of an answer that the confirmation shows.
const SHOWN: usize = 10_000;

/// What a form wants to be done.
struct WantedChanges {
    kind: Kind,
    rows: Vec<(RecordId, Fence)>,
    entered: Option<Entered>,
    /// The filter that its list had, as a link.
    matching: Option<String>,
    /// Whether there may be more that match the filter.
    has_more: bool,
}

impl WantedChanges {
    /// Reads a form, which names its operations, or wants `all` that match a filter.
    async fn read<St: Store>(
        site: &Site<St>,
        caller: &Caller,
        fields: &Fields,
        all: Option<&str>,
    ) -> Result<Self, Problem> {
        let kind: Kind = all.or_else(|| fields.get("action")).unwrap_or_default().parse()?;
        caller.require(kind.permission())?;
        let matching = fields.get("matching").map(selection).transpose()?;
        let (rows, has_more) = match (&matching, all) {
            (Some(selection), Some(_)) => in_time(all_rows(site, kind, selection)).await?,
            _ => (named_rows(fields)?, false),
        };
        match rows.len() {
            0 if all.is_some() => Err(Problem::wrong("None of those that were looked at is for this action.")),
            0 => Err(Problem::wrong("No operation is selected. Go back, and select those that are meant.")),
            1..=MAX_ROWS => Ok(Self {
                kind,
                rows,
                entered: Entered::read(fields).filter(|_| kind == Kind::Answer),
                matching: matching.map(|selection| selection.link(None)),
                has_more,
            }),
            _ => Err(Problem::wrong(format!("One form settles at most {MAX_ROWS} operations."))),
        }
    }

    /// The rows as they are in a form.
    fn named(&self) -> Vec<String> {
        self.rows.iter().map(|(id, fence)| format!("{id}:{}", fence.0)).collect()
    }
}

/// Reads the filter in a form.
fn selection(link: &str) -> Result<Selection, Problem> {
    Selection::read(&Fields::parse(link.trim_start_matches('?').as_bytes())).map_err(Problem::wrong)
}

/// Returns the operations that a form names.
fn named_rows(fields: &Fields) -> Result<Vec<(RecordId, Fence)>, Problem> {
    let rows = fields.all("row").map(|row| {
        let (id, fence) = row.split_once(':')?;
        Some((id.parse().ok()?, Fence(fence.parse().ok()?)))
    });
    rows.collect::<Option<_>>().ok_or_else(|| Problem::wrong("This form is not one of this page."))
}

/// Returns the first operations that match a filter, and that the action is for; and whether there may be more.
async fn all_rows<St: Store>(
    site: &Site<St>,
    kind: Kind,
    selection: &Selection,
) -> Result<(Vec<(RecordId, Fence)>, bool), StoreError> {
    let (filter, mut after, mut rows) = (&selection.filter, None, Vec::new());
    for _ in 0..MAX_CALLS {
        let listing = site.operations.list(filter, after.as_ref(), MAX_ROWS - rows.len()).await?;
        let fitting = listing.operations.iter().filter(|operation| kind.fits(operation));
        rows.extend(fitting.map(|operation| (operation.id, operation.fence)));
        after = listing.next;
        if after.is_none() || rows.len() >= MAX_ROWS {
            break;
        }
    }
    Ok((rows, after.is_some()))
}

/// Shows what an action leads to, and asks to confirm it.
pub(super) async fn review<St: Store>(site: &Site<St>, caller: &Caller, fields: &Fields) -> Result<Markup, Problem> {
    let wanted = WantedChanges::read(site, caller, fields, fields.get("all")).await?;
    let form = site.operations.form();
    if wanted.kind == Kind::Answer {
        let complaint = match &wanted.entered {
            None => Some(None),
            Some(entered) => entered.answer(form).err().map(Some),
        };
        if let Some(complaint) = complaint {
            return Ok(enter(caller, form, &wanted, complaint.as_deref()));
        }
    }
    let shown = wanted.rows.iter().take(SHOWN_ROWS).map(|(id, _)| *id).collect();
    let seen = in_time(inspected(site, shown)).await?;
    let operations: Vec<_> = wanted.rows.iter().zip(seen).map(|((id, fence), seen)| (*id, *fence, seen)).collect();
    let kind = wanted.kind;
    let main = html! {
        p.consequence { strong { (kind.consequence()) } }
        @match operations.as_slice() {
            [(_, fence, Some(operation))] => {
                (facts(site, operation))
                @if let Some(doubt) = doubt(kind, operation, *fence) { p.complaint role="alert" { (doubt) } }
            }
            operations => (those(kind, operations, wanted.rows.len())),
        }
        @if wanted.has_more { p #more { "There may be more that match: these come first, and the others after them." } }
        @if let Some(entered) = &wanted.entered { (preview(entered, form)) }
        form method="post" action="?settle" {
            input type="hidden" name="do" value="apply";
            input type="hidden" name="action" value=(kind.name());
            @for row in wanted.named() { input type="hidden" name="row" value=(row); }
            @if let Some(matching) = &wanted.matching { input type="hidden" name="matching" value=(matching); }
            @if let Some(entered) = &wanted.entered {
                input type="hidden" name="status" value=(entered.status);
                input type="hidden" name="content_type" value=(entered.content_type);
                input type="hidden" name="encoding" value=(if entered.is_base64 { "base64" } else { "text" });
                textarea name="body" hidden { "\n" (entered.body) }
            }
            p.buttons {
                button.decisive #confirm { "Yes: " (kind.button().to_lowercase()) @if wanted.rows.len() > 1 { ", " (wanted.rows.len()) " times" } }
                @match wanted.rows.as_slice() {
                    [(id, _)] => a href=(link([("id", id.to_string().as_str())])) { "No, go back" },
                    _ => a href=(wanted.matching.as_deref().unwrap_or("?")) { "No, go back" },
                }
            }
        }
    };
    Ok(framed(caller, &format!("{}?", kind.button()), main))
}

/// Asks for the answer.
fn enter(caller: &Caller, form: Form, wanted: &WantedChanges, complaint: Option<&str>) -> Markup {
    let entered = wanted.entered.clone().unwrap_or_default();
    let main = html! {
        p { (wanted.kind.consequence()) }
        p { "This is for " (wanted.rows.len()) @if wanted.rows.len() == 1 { " operation." } @else { " operations." } }
        (answer_form::form(form, &wanted.named(), wanted.matching.as_deref(), &entered, complaint))
        p { a href="?" { "All operations" } }
    };
    framed(caller, wanted.kind.button(), main)
}

/// Returns why an action will change nothing, as far as can be seen now.
fn doubt(kind: Kind, operation: &OperationRecord, fence: Fence) -> Option<String> {
    let state = word(&operation.state);
    if !kind.fits(operation) {
        return Some(format!("It is {state} now: this will change nothing."));
    }
    let has_changed = operation.fence != fence;
    has_changed.then(|| "It has changed since you looked: this will change nothing. Look at it again.".to_owned())
}

type Seen = (RecordId, Fence, Option<OperationRecord>);

/// Returns the first of the operations that are meant, and how many they are in all.
fn those(kind: Kind, operations: &[Seen], all: usize) -> Markup {
    let now = now();
    html! {
        table.operations {
            caption { (all) @if all == 1 { " operation is meant" } @else { " operations are meant" }
                @if operations.len() < all { "; these are the first " (operations.len()) } }
            thead { tr { th scope="col" { "State" } th scope="col" { "Operation" } th scope="col" { "For" } th scope="col" { "Note" } } }
            tbody { @for (id, fence, operation) in operations {
                tr { @match operation {
                    Some(operation) => {
                        td data-label="State" { (state(operation)) }
                        td data-label="Operation" { (name(operation)) }
                        td data-label="For" { (age(operation.since, now)) }
                        td data-label="Note" { (doubt(kind, operation, *fence).unwrap_or_default()) }
                    }
                    None => {
                        td data-label="State" { "gone" }
                        td data-label="Operation" { code { (id.short()) } }
                        td data-label="For" { "–" }
                        td data-label="Note" { "It is no longer there: this will change nothing." }
                    }
                } }
            } }
        }
    }
}

/// Shows the answer that retries will get.
fn preview(entered: &Entered, form: Form) -> Markup {
    let body: String = entered.body.chars().take(SHOWN).collect();
    html! {
        section aria-labelledby="preview" {
            h2 id="preview" { "The answer" }
            @if form != Form::Bytes && !entered.status.is_empty() {
                p { "Status " strong { (shown(&entered.status)) } ", content type " strong { (shown(&entered.content_type)) } ". "
                    @if entered.is_base64 { "The body in Base64:" } @else { "The body:" } }
            }
            @if body.is_empty() { p { "It has no body." } } @else { pre tabindex="0" { "\n" (shown_lines(&body)) } }
            @if body.len() < entered.body.len() { p { "… and more: " (entered.body.len()) " bytes." } }
        }
    }
}

/// Returns what is known of these operations.
async fn inspected<St: Store>(site: &Site<St>, ids: Vec<RecordId>) -> Result<Vec<Option<OperationRecord>>, StoreError> {
    stream::iter(ids).map(|id| site.operations.inspect(id)).buffered(MAX_AT_ONCE).try_collect().await
}

/// Makes the changes, and shows the result of each.
pub(super) async fn apply<St: Store>(site: &Site<St>, caller: &Caller, fields: &Fields) -> Result<Markup, Problem> {
    let wanted = WantedChanges::read(site, caller, fields, None).await?;
    let form = site.operations.form();
    let answer = wanted.entered.as_ref().map(|entered| entered.answer(form));
    let answer = answer.transpose().map_err(Problem::wrong)?;
    let change = |(id, fence): &(RecordId, Fence)| {
        let action = written::action(wanted.kind.name(), answer.clone());
        Ok(Change::new(*id, *fence, action.map_err(|why| Problem::wrong(sentence(why)))?))
    };
    let changes = wanted.rows.iter().map(change).collect::<Result<_, Problem>>()?;
    let results = site.operations.by(caller.actor.name.clone()).apply_all(changes).await;
    site.look_again().await;
    let seen = in_time(inspected(site, results.iter().map(|(id, _)| *id).collect())).await.ok();
    let rows = results.iter().enumerate().map(|(row, (id, result))| {
        let operation = seen.as_ref().map(|seen| seen.get(row).and_then(Option::as_ref));
        (id, wanted.kind.said(result), operation)
    });
    let mut sums: BTreeMap<String, usize> = BTreeMap::new();
    for (_, result) in &results {
        *sums.entry(wanted.kind.said(result)).or_default() += 1;
    }
    let main = html! {
        @if results.len() > 1 { ul #sums { @for (said, sum) in &sums { li { strong { (sum) } " – " (shown(said)) } } } }
        table.operations #results {
            caption { "What has become of each" }
            thead { tr { th scope="col" { "Operation" } th scope="col" { "Result" } th scope="col" { "State now" } } }
            tbody { @for (id, said, operation) in rows {
                tr {
                    td data-label="Operation" { @match operation.flatten() {
                        Some(operation) => (name(operation)),
                        None => code { (id.short()) },
                    } }
                    td data-label="Result" { (shown(&said)) }
                    td data-label="State now" { @match operation {
                        Some(Some(operation)) => (state(operation)),
                        Some(None) => "no record",
                        None => "not known",
                    } }
                }
            } }
        }
        p {
            @if let Some(matching) = &wanted.matching { a href=(matching) { "What matches the filter now" } " · " }
            a href="?" { "All operations" }
        }
    };
    Ok(framed(caller, "Result", main))
}
