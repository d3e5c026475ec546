//! One operation: what is known of it, and what can be done.

use http::StatusCode;
use maud::{Markup, html};
use tower_idempotency::engine::ClaimPolicy;
use tower_idempotency::internals::written::{BodyEncoding, WrittenAnswer};
use tower_idempotency::operations::{Filter, OperationRecord, OperationState, Server, StateKind};
use tower_idempotency::store::Store;
use tower_idempotency::{Fence, RecordId};

use super::answer_form::{self, Entered};
use super::frame::framed;
use super::operation::{meaning, reason, state};
use crate::access::Permission;
use crate::action::Kind;
use crate::fields::link;
use crate::guard::Caller;
use crate::problem::Problem;
use crate::selection::Selection;
use crate::site::Site;
use crate::text::{age, date, hex, is_known, now, shown, shown_lines};
use crate::timeout::in_time;

pub(super) async fn page<St: Store>(
    site: &Site<St>,
    caller: &Caller,
    id: &str,
    with_body: bool,
    disputed: Option<&str>,
) -> Result<Markup, Problem> {
    let id: RecordId = id.parse().map_err(|_| Problem::wrong("An id has 64 hex digits, as it is listed."))?;
    let title = format!("Operation {}", id.short());
    let inspected = in_time(site.operations.inspect(id)).await?;
    if let Some(fence) = disputed {
        return Ok(framed(caller, &title, compared(site, caller, id, inspected.as_ref(), fence).await?));
    }
    let Some(operation) = inspected else {
        let detail =
            "There is no operation of this id: it was never there, its key was freed, or its record has expired.";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let recorded = match with_body {
        false => None,
        true => {
            caller.require(Permission::Bodies)?;
            in_time(site.operations.outcome(id)).await?.map(WrittenAnswer::of)
        }
    };
    let fitting: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.fits(&operation)).collect();
    let has_outcome = operation.state.kind() == StateKind::Completed;
    let main = html! {
        p { (meaning(&operation)) }
        (facts(site, &operation))
        @if let Some(recorded) = recorded { (answer("answer", "The recorded answer", &recorded)) }
        @else if has_outcome && caller.may(Permission::Bodies) {
            p { a href=(link([("id", id.to_string().as_str()), ("body", "shown")])) { "Show the recorded answer" }
                ", which may have personal data." }
        }
        @for kind in fitting.iter().copied().filter(|kind| caller.may(kind.permission())) {
            @if kind != Kind::Reconcile || site.operations.can_reconcile() { (way(kind, &operation, site)) }
        }
        @if !fitting.is_empty() && !fitting.iter().any(|kind| caller.may(kind.permission())) {
            p { "Your access does not include what can be done with it." }
        }
        p { a href="?" { "All operations" } }
    };
    Ok(framed(caller, &title, main))
}

/// Shows the disputed answer of the run with this fence, after what is known of the operation now, with its own answer.
async fn compared<St: Store>(
    site: &Site<St>,
    caller: &Caller,
    id: RecordId,
    operation: Option<&OperationRecord>,
    fence: &str,
) -> Result<Markup, Problem> {
    let fence = fence.parse().map(Fence).map_err(|_| Problem::wrong("A fence is a number, as it is listed."))?;
    caller.require(Permission::Bodies)?;
    let Some(disputed) = in_time(site.operations.disputed_outcome(id, fence)).await?.map(WrittenAnswer::of) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "There is no disputed answer of this run, or it has expired."));
    };
    let recorded = match operation.map(|operation| operation.state.kind()) {
        Some(StateKind::Completed) => in_time(site.operations.outcome(id)).await?.map(WrittenAnswer::of),
        _ => None,
    };
    Ok(html! {
        @match operation {
            Some(operation) => { p { (meaning(operation)) } (facts(site, operation)) }
            None => p { "There is no record of the operation any more: its key was freed, or it has expired." }
        }
        @if let Some(recorded) = recorded { (answer("answer", "The recorded answer", &recorded)) }
        p { "The run with the fence " code { (fence.0) } " came too late. Its answer counts for nothing, and may be of a second effect: compare \
             it with your ledger." }
        (answer("disputed", "The disputed answer", &disputed))
        @if operation.is_some() { p { a href=(link([("id", id.to_string().as_str())])) { "The operation alone" } } }
        p { a href="?#disputed" { "All that is disputed" } }
    })
}

/// Returns a table of what is known.
pub(super) fn facts<St: Store>(site: &Site<St>, operation: &OperationRecord) -> Markup {
    let now = now();
    let time = |time| format!("{} ({} ago)", date(time), age(time, now));
    html! {
        dl.facts {
            @if let Some(label) = operation.label() { dt { "Label" } dd { bdi { (shown(label)) } } }
            dt { "State" } dd { (state(operation)) }
            @match &operation.state {
                OperationState::Completed { bytes, .. } => { dt { "Recorded answer" } dd { (bytes) " bytes" } }
                OperationState::Interrupted { policy, cause, .. } => {
                    dt { "Cause" } dd { (cause) ": " (reason(*cause)) }
                    dt { "Claimed under" } dd { (under(*policy)) }
                }
                OperationState::Damaged { reason } => { dt { "Reason" } dd { (shown(reason)) } }
                _ => {}
            }
            @if is_known(operation.began) { dt { "Began" } dd { (time(operation.began)) } }
            @if is_known(operation.since) { dt { "In this state since" } dd { (time(operation.since)) } }
            @if let Some(expires) = operation.expires { dt { "Kept until" } dd { (date(expires)) } }
            @if operation.attempt > 0 { dt { "Attempt" } dd { (operation.attempt) } }
            @match operation.server {
                Server::Here => { dt { "Server" } dd { "this process sees to it" } }
                Server::Elsewhere => { dt { "Server" } dd { "another process sees to it" } }
                _ => {}
            }
            @if let Some(session) = &operation.session { dt { "Session of the process" } dd { code { (session.short()) } } }
            @if operation.fence.0 > 0 { dt { "Fence" } dd { code { (operation.fence.0) } ", the number of its last change" } }
            dt { "Id" } dd { code { (operation.id) } }
            @if let Some(scope) = operation.scope() {
                dt { "Owner (digest of the scope)" }
                dd { a href=(Selection { filter: Filter::all().of_scope(scope), after: None }.link(None)) { code { (hex(&scope)) } } }
            }
            @if let Some(refused) = site.operations.mismatched(operation.id) {
                dt { "Other requests with its key" }
                dd { (refused.requests) " refused by this process, the last " (age(refused.last, now)) " ago: its "
                    strong { (refused.part.name()) } @if refused.part.name().ends_with('s') { " differ" } @else { " differs" } }
            }
            @for (step, key) in site.derived_keys(operation) {
                dt { "Derived key, " (shown(step)) } dd { code { (key) } }
            }
            @if let Some(trace) = operation.trace_id() { dt { "Trace of the first request" } dd { code { (hex(&trace)) } } }
        }
    }
}

/// Returns what the policy means under which an interrupted operation was claimed.
fn under(policy: ClaimPolicy) -> &'static str {
    match policy {
        ClaimPolicy::Refuse => "refuse: retries are refused until this is settled",
        ClaimPolicy::Ask => "reconcile: a retry asks the application",
        ClaimPolicy::Rerun => "rerun: a retry runs it again, if the service still has this policy",
        ClaimPolicy::Unreadable => "unknown: the record can't be read",
        _ => "a policy that this version of the page does not know",
    }
}

/// Returns a recorded answer with its body, under this heading.
fn answer(name: &str, heading: &str, recorded: &WrittenAnswer) -> Markup {
    html! {
        section aria-labelledby=(name) {
            h2 id=(name) { (heading) }
            @if let Some(status) = recorded.status { p { "Status " strong { (status) } } }
            @if !recorded.headers.is_empty() {
                dl.facts { @for (name, value) in &recorded.headers {
                    dt { code { (shown(name)) } } dd { bdi { (shown(value)) } }
                } }
            }
            @if recorded.encoding == BodyEncoding::Base64 { p { "The body is no text. In Base64:" } }
            pre tabindex="0" { "\n" (shown_lines(&recorded.body)) }
        }
    }
}

/// Returns one of the ways to settle an operation: what it leads to, and then the button.
fn way<St: Store>(kind: Kind, operation: &OperationRecord, site: &Site<St>) -> Markup {
    let row = format!("{}:{}", operation.id, operation.fence.0);
    html! {
        section.way aria-labelledby=(kind.name()) {
            h2 id=(kind.name()) { (kind.button()) }
            p { (kind.consequence()) }
            @if kind == Kind::Answer {
                (answer_form::form(site.operations.form(), &[row], None, &Entered::default(), None))
            } @else {
                form method="post" action="?settle" {
                    input type="hidden" name="do" value="review";
                    input type="hidden" name="action" value=(kind.name());
                    input type="hidden" name="row" value=(row);
                    p { button { (kind.button()) "…" } }
                }
            }
        }
    }
}
