//! How an operation is called, and its state.

use maud::{Markup, html};
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{OperationRecord, OperationState, Server};

use crate::fields::link;
use crate::text::shown;

/// Returns the link to an operation: its label, if it has one, and the digits that logs have.
pub(super) fn name(operation: &OperationRecord) -> Markup {
    let id = operation.id.to_string();
    html! {
        a href=(link([("id", id.as_str())])) {
            @if let Some(label) = operation.label() { bdi { (shown(label)) } " " }
            code { (operation.id.short()) }
        }
    }
}

/// Returns the name of an operation as a text, for what can't show markup.
pub(super) fn plain_name(operation: &OperationRecord) -> String {
    match operation.label() {
        Some(label) => format!("{} {}", shown(label), operation.id.short()),
        None => operation.id.short(),
    }
}

/// Returns the state, with the reason why it is unknown whether it took effect, and the status that the client got.
pub(super) fn state(operation: &OperationRecord) -> Markup {
    let state = &operation.state;
    html! {
        span class={ "state " (state.kind()) } { (word(state)) }
        @if let Some(cause) = state.cause().filter(|cause| *cause != Cause::Unknown) {
            " " span.cause { (cause) @if let Some(status) = state.status() { " " span.status { (status) } } }
        } @else if let Some(status) = state.status() { " " span.status { (status) } }
    }
}

/// Returns the word for a state.
pub(super) fn word(state: &OperationState) -> &'static str {
    match state {
        OperationState::Running => "in flight",
        OperationState::Interrupted { .. } => "interrupted",
        OperationState::Completed { .. } => "completed",
        OperationState::Consumed { .. } => "done, without its answer",
        OperationState::Damaged { .. } => "damaged",
        _ => "in another state",
    }
}

/// Returns what a cause means.
pub(super) fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::ProcessEnded => "the process ended while the handler ran",
        Cause::Panicked => "the handler panicked",
        Cause::MaxRun => "the handler took longer than max_run allows",
        Cause::Lease => "the lease of its process was over: the process ended, or did not reach the database",
        Cause::Shutdown => "the process shut down while the handler ran",
        Cause::Failed => "the handler or its effect failed with an error",
        Cause::Broken => "the answer broke off, or the service behind the proxy gave none",
        Cause::Unsaved => "its end could not be stored",
        Cause::Answered(_) => "the handler answered that it is unknown",
        _ => "not recorded",
    }
}

/// Returns what a state means, and for whom.
pub(super) fn meaning(operation: &OperationRecord) -> &'static str {
    match &operation.state {
        OperationState::Running if operation.server == Server::Elsewhere => {
            "Its handler is running in another process, unless that process has just died: then this shows as \
             interrupted once its lease is over. Retries wait, or are told to come again."
        }
        OperationState::Running => "Its handler is running. Retries wait, or are told to come again.",
        OperationState::Interrupted { .. } => {
            "It is unknown whether the request took effect. Retries are refused until this is settled, unless the \
             application lets them run. Look up what became of it, in the ledger or with the provider, and then settle it."
        }
        OperationState::Completed { .. } => "Retries get the recorded answer, for as long as the service replays it.",
        OperationState::Consumed { .. } => {
            "The request took effect, and its answer is not stored. Retries are refused."
        }
        OperationState::Damaged { .. } => {
            "Its record can't be read, and retries are refused. If its fence is known, it can be settled: look up what \
             became of it first. Otherwise the guide's page on the store says what to do."
        }
        _ => "This version of the page does not know what that means.",
    }
}
