//! The list of operations, its filter, and what can be done with several of them.

use std::collections::BTreeMap;

use maud::{Markup, html};
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Filter, Listing, OperationRecord, StateKind};
use tower_idempotency::store::Store;

use super::operation::{name, plain_name, state};
use crate::action::Kind;
use crate::fields::Fields;
use crate::guard::Caller;
use crate::selection::{MAX_CALLS, MAX_ROWS, Selection};
use crate::site::Site;
use crate::text::{age, date, hex, is_known, rfc3339, shown};
use crate::timeout::{Unread, in_time};

/// The most operations that are shown at once.
const SHOWN: usize = 100;
/// The number of interrupted operations from which on the page says who should settle them. The alert that pages a
/// person begins there, too.
const MANY: usize = 10;
const GUIDE: &str =
    "https://github.com/tower-idempotency/tower-idempotency/blob/main/docs/running/operators.md#settling-many";

pub(super) async fn section<St: Store>(
    site: &Site<St>,
    caller: &Caller,
    selection: &Selection,
) -> Result<Markup, Unread> {
    let (filter, mut after) = (&selection.filter, selection.after);
    let mut calls = 0;
    let listing = in_time(async {
        loop {
            let listing = site.operations.list(filter, after.as_ref(), SHOWN).await?;
            calls += 1;
            if !listing.operations.is_empty() || listing.next.is_none() || calls >= MAX_CALLS {
                return Ok(listing);
            }
            after = listing.next;
        }
    });
    let listing = listing.await?;
    let kinds: Vec<_> =
        Kind::ALL.into_iter().filter(|kind| is_offered(*kind, site, caller, &listing.operations)).collect();
    let table = html! {
        table.operations {
            caption { (listing.operations.len()) @if listing.operations.len() == 1 { " operation" } @else { " operations" } @if listing.next.is_some() { ", and there may be more" } }
            thead { tr {
                @if !kinds.is_empty() { th scope="col" { span.unseen { "Select" } } }
                th scope="col" { "State" } th scope="col" { "Operation" } th scope="col" { "For" }
                th scope="col" { "Attempt" }
            } }
            tbody { @for operation in &listing.operations { (row(operation, !kinds.is_empty(), listing.now)) } }
        }
    };
    Ok(html! {
        section aria-labelledby="list" {
            h2 id="list" { "List" }
            (filter_form(filter))
            @if listing.operations.is_empty() {
                p { @match listing.next {
                    Some(_) => "None so far: many records were looked at, and there are more.",
                    None => "There is no such operation.",
                } }
            } @else if kinds.is_empty() {
                (table)
            } @else {
                form method="post" action="?" {
                    input type="hidden" name="do" value="review";
                    @if is_long(&listing) { (hint(&listing, kinds.contains(&Kind::Reconcile))) }
                    (table)
                    p #select-all { "With those that are selected, after a page that says what it leads to:" }
                    p.buttons { @for kind in &kinds {
                        button name="action" value=(kind.name()) { (bulk(*kind)) "…" }
                    } }
                    input type="hidden" name="matching" value=(selection.link(None));
                    p { "With all that match this filter, up to " (MAX_ROWS) " at a time, after a page that counts them:" }
                    p.buttons { @for kind in &kinds {
                        button name="all" value=(kind.name()) { (bulk(*kind)) "…" }
                    } }
                }
            }
            @if let Some(next) = &listing.next { p { a href={ (selection.link(Some(next))) "#list" } { "Next page" } } }
            @if selection.after.is_some() { p { a href={ (selection.link(None)) "#list" } { "First page" } } }
        }
    })
}

/// Says what is wrong with the URL.
pub(super) fn complaint(fields: &Fields, complaint: &str) -> Markup {
    let known = Selection::read(&Fields::of([("state", fields.get("state").map(str::to_owned))]));
    html! {
        section aria-labelledby="list" {
            h2 id="list" { "List" }
            p.complaint role="alert" { (shown(complaint)) "." }
            (filter_form(&known.unwrap_or_default().filter))
        }
    }
}

fn row(operation: &OperationRecord, has_box: bool, now: tower_idempotency::clock::Timestamp) -> Markup {
    html! {
        tr {
            @if has_box {
                td { label.box {
                    input type="checkbox" name="row" value={ (operation.id) ":" (operation.fence.0) };
                    span.unseen { "Select " (plain_name(operation)) }
                } }
            }
            td data-label="State" { (state(operation)) }
            td data-label="Operation" { (name(operation)) }
            td data-label="For" { @if !is_known(operation.since) { "–" } @else {
                span title=(date(operation.since)) { (age(operation.since, now)) }
            } }
            td data-label="Attempt" { @if operation.attempt == 0 { "–" } @else { (operation.attempt) } }
        }
    }
}

fn filter_form(filter: &Filter) -> Markup {
    let scope = filter.scope.map(|scope| hex(&scope));
    let age = filter.older_than.map(|age| humantime::format_duration(age).to_string());
    html! {
        form.filter method="get" action="?" {
            p { label for="state" { "State" }
                select id="state" name="state" {
                    @for kind in StateKind::ALL {
                        option value=(kind) selected[filter.state == Some(kind)] {
                            @if kind == StateKind::Running { "in flight" } @else { (kind) }
                        }
                    }
                    option value="any" selected[filter.state.is_none()] { "any" }
                } }
            p { label for="cause" { "Cause" }
                select id="cause" name="cause" {
                    option value="any" selected[filter.cause.is_none()] { "any" }
                    @for cause in Cause::ALL { option value=(cause) selected[filter.cause == Some(cause)] { (cause) } }
                } }
            p { label for="label" { "Label begins with" }
                input id="label" name="label" value=[filter.label.as_deref()] size="16" spellcheck="false" autocomplete="off"; }
            p { label for="since" { "In its state since (UTC)" }
                input id="since" name="since" value=[filter.since.and_then(rfc3339)] placeholder="2026-11-22 10:00:00" size="20" autocomplete="off"; }
            p { label for="before" { "until before" }
                input id="before" name="before" value=[filter.before.and_then(rfc3339)] placeholder="2026-11-22 10:30:00" size="20" autocomplete="off"; }
            p { label for="older_than" { "For longer than" }
                input id="older_than" name="older_than" value=[age] placeholder="10m" size="8" autocomplete="off"; }
            p { label for="status" { "Answered with status" }
                input id="status" name="status" value=[filter.status] inputmode="numeric" placeholder="504" size="5" autocomplete="off"; }
            p { label for="scope" { "Owner (digest of the scope)" }
                input id="scope" name="scope" value=[scope] size="20" maxlength="64" spellcheck="false" autocomplete="off"; }
            p { button { "Show" } }
        }
    }
}

/// Returns whether a button is there: the caller may do it, and it is for one of the operations at least.
fn is_offered<St: Store>(kind: Kind, site: &Site<St>, caller: &Caller, operations: &[OperationRecord]) -> bool {
    caller.may(kind.permission())
        && (kind != Kind::Reconcile || site.operations.can_reconcile())
        && operations.iter().any(|operation| kind.fits(operation))
}

/// Returns whether so many operations are interrupted that a person should not settle each.
fn is_long(listing: &Listing) -> bool {
    let interrupted = listing.operations.iter().filter(|operation| Kind::Reconcile.fits(operation)).count();
    interrupted >= MANY
}

/// Says which they are, and who should settle many.
fn hint(listing: &Listing, can_reconcile: bool) -> Markup {
    let mut kinds = BTreeMap::new();
    for operation in &listing.operations {
        if let Some(cause) = operation.state.cause() {
            *kinds.entry((operation.label().unwrap_or("without a label"), cause.to_string())).or_insert(0) += 1;
        }
    }
    html! {
        p.hint #many { "Listed here: "
            @for (at, ((label, cause), count)) in kinds.iter().enumerate() {
                @if at > 0 { ", " } (count) " " (shown(label)) " (" (cause) ")"
            }
            ". These are many: "
            @if can_reconcile {
                "let your reconciler decide. It looks each one up, and settles what it knows: “" (bulk(Kind::Reconcile)) "”, below. "
            } @else {
                "let a reconciler decide, which your application sets with " code { "reconcile_with" } ", or join the list with your ledger, and settle it from a file. "
            }
            a href=(GUIDE) { "How to settle many" }
        }
    }
}

/// Returns the words on the button that is for several operations.
const fn bulk(kind: Kind) -> &'static str {
    match kind {
        Kind::Answer => "Give their retries an answer",
        Kind::Release => "Free their keys",
        Kind::Forget => "Delete their records",
        Kind::Reconcile => "Ask the application about them",
    }
}
