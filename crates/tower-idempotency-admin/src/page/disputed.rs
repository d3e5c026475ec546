//! Outcomes that came too late.

use maud::{Markup, html};
use tower_idempotency::operations::{Cursor, OperationRecord, OperationState, StateKind};
use tower_idempotency::store::Store;

use super::operation::{name, state};
use crate::access::Permission;
use crate::fields::link;
use crate::guard::Caller;
use crate::site::Site;
use crate::text::{age, date, is_known, shown};
use crate::timeout::{Unread, in_time};

/// The most that are shown.
const SHOWN: usize = 100;

/// Returns the outcomes after `after`, which is a field of the URL; from the first one on, if it is wrong.
pub(super) async fn section<St: Store>(
    site: &Site<St>,
    caller: &Caller,
    after: Option<&str>,
) -> Result<Markup, Unread> {
    let after: Option<Cursor> = after.and_then(|after| after.parse().ok());
    let listing = in_time(site.operations.disputed(after.as_ref(), SHOWN)).await?;
    let (outcomes, next) = (&listing.operations, listing.next.map(|next| next.to_string()));
    Ok(html! {
        section aria-labelledby="disputed" {
            h2 id="disputed" { "Disputed" }
            p { "Outcomes that came after their operation had been taken over or settled. They count for nothing, and each may \
                 be a second effect: compare it with your ledger." }
            @if outcomes.is_empty() {
                p { "There are none." }
            } @else {
                table.operations {
                    caption { (outcomes.len()) @if outcomes.len() == 1 { " outcome" } @else { " outcomes" } @if next.is_some() { ", and there are more" } }
                    thead { tr {
                        th scope="col" { "Operation" } th scope="col" { "Outcome" } th scope="col" { "Came" }
                        th scope="col" { "Attempt" } th scope="col" { "Kept until" }
                    } }
                    tbody { @for outcome in outcomes { tr {
                        td data-label="Operation" { (name(outcome)) }
                        td data-label="Outcome" { (what(outcome, caller)) }
                        td data-label="Came" { @if !is_known(outcome.since) { "–" } @else {
                            span title=(date(outcome.since)) { (age(outcome.since, listing.now)) " ago" }
                        } }
                        td data-label="Attempt" { @if outcome.attempt == 0 { "–" } @else { (outcome.attempt) } }
                        td data-label="Kept until" { @if let Some(expires) = outcome.expires { (date(expires)) } @else { "–" } }
                    } } }
                }
            }
            @if let Some(next) = &next { p { a href={ (link([("disputed_after", next.as_str())])) "#disputed" } { "Next page" } } }
            @if after.is_some() { p { a href="?#disputed" { "First page" } } }
        }
    })
}

/// Returns the status and the size of an outcome, or what is wrong with it, and the link that shows it.
fn what(outcome: &OperationRecord, caller: &Caller) -> Markup {
    let (id, fence) = (outcome.id.to_string(), outcome.fence.0.to_string());
    html! {
        (state(outcome))
        @match &outcome.state {
            OperationState::Completed { bytes, .. } => { ", " (bytes) " bytes" }
            OperationState::Damaged { reason } => { ": " (shown(reason)) }
            _ => {}
        }
        @if outcome.state.kind() == StateKind::Completed && caller.may(Permission::Bodies) {
            " " a href=(link([("id", id.as_str()), ("disputed", fence.as_str())])) { "Show the answer" }
        }
    }
}
