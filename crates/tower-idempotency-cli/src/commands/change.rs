//! What settling and forgetting share: the operation is looked up, the change is said and confirmed, and made.

use serde_json::json;
use tower_idempotency::operations::{Action, Applied, Change, OperationRecord, StateKind};

use super::look_up;
use crate::arguments::Consent;
use crate::consent;
use crate::failure::{Ended, Failure, with_causes};
use crate::open::Opened;
use crate::screen::{Screen, ago};

/// A change that is about to be made.
pub(super) struct Planned {
    pub(super) action: Action,
    /// The states of operations for which it is.
    pub(super) states: &'static [StateKind],
    /// What it does, in words.
    pub(super) consequence: String,
    /// Whether a part of it comes from standard input, so that no answer can.
    pub(super) takes_input: bool,
}

/// Says what the change does, asks, and makes it.
pub(super) async fn make(
    opened: &Opened,
    id: &str,
    fence: u64,
    consent: &Consent,
    planned: Planned,
    screen: Screen,
) -> Result<Ended, Failure> {
    let Some(operation) = look_up::operation(opened, id).await? else {
        return unchanged(screen, "no operation has this id");
    };
    if operation.fence.0 != fence {
        let now = format!("its fence is {} now: it has changed since. Look at it again", operation.fence);
        return unchanged(screen, &now);
    }
    let state = operation.state.kind();
    if !planned.states.contains(&state) {
        opened.say_remark(std::slice::from_ref(&operation))?;
        return unchanged(screen, &format!("it is {state}, which this change is not for"));
    }
    let said = format!("{}\n{}", named(&operation, opened), planned.consequence);
    let actor = consent::confirm(consent, &said, planned.takes_input)?;
    let change = Change::new(operation.id, operation.fence, planned.action);
    match opened.operations.by(actor).apply(change).await {
        Ok(Applied::Done) => {
            screen.answer("done", &json!({ "result": "done" }))?;
            Ok(Ended::Well)
        }
        Ok(_) => unchanged(screen, "it has changed meanwhile. Look at it again"),
        Err(error) => Err(Failure::Store(with_causes(&error))),
    }
}

fn named(operation: &OperationRecord, opened: &Opened) -> String {
    format!(
        "{} ({}), {} for {}, attempt {}, fence {}.",
        operation.id,
        operation.label().unwrap_or("without a label"),
        operation.state.kind(),
        ago(operation.since, opened.now()),
        operation.attempt,
        operation.fence
    )
}

pub(super) fn unchanged(screen: Screen, why: &str) -> Result<Ended, Failure> {
    screen.answer(format!("nothing was changed: {why}"), &json!({ "result": "stale", "reason": why }))?;
    Ok(Ended::Badly)
}
