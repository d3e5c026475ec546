//! Finds an operation by its record id, or by the digits of it that logs have.

use tower_idempotency::operations::{Filter, OperationRecord, StateKind};
use tower_idempotency::{Fence, RecordId};

use crate::failure::Failure;
use crate::open::Opened;

/// Returns the operation with this id. `None` if there is none.
pub(super) async fn operation(opened: &Opened, id: &str) -> Result<Option<OperationRecord>, Failure> {
    let id = match id.parse::<RecordId>() {
        Ok(id) => id,
        Err(_) => match beginning_with(opened, id).await?.as_slice() {
            [] => return Ok(None),
            [id] => *id,
            several => {
                let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
                return Err(Failure::Usage(format!(
                    "several ids begin like this; give more digits: {}",
                    ids.join(" ")
                )));
            }
        },
    };
    opened.operations.inspect(id).await.map_err(Failure::of)
}

/// Returns the disputed outcome of the run with this fence, whose operation's id begins with these digits.
pub(super) async fn disputed(opened: &Opened, id: &str, fence: Fence) -> Result<Option<OperationRecord>, Failure> {
    let mut after = None;
    loop {
        let page = opened.operations.disputed(after.as_ref(), 1_000).await.map_err(Failure::of)?;
        let is_meant = |outcome: &OperationRecord| outcome.fence == fence && outcome.id.to_string().starts_with(id);
        let found = page.operations.into_iter().find(is_meant);
        after = page.next;
        if found.is_some() || after.is_none() {
            return Ok(found);
        }
    }
}

/// Returns the ids that begin with these digits: of the interrupted operations, which are found by an index, or else of
/// all.
async fn beginning_with(opened: &Opened, digits: &str) -> Result<Vec<RecordId>, Failure> {
    let mut found = Vec::new();
    for filter in [Filter::all().in_state(StateKind::Interrupted), Filter::all()] {
        let mut after = None;
        loop {
            let page = opened.operations.list(&filter, after.as_ref(), 1_000).await.map_err(Failure::of)?;
            let ids = page.operations.iter().map(|operation| operation.id);
            found.extend(ids.filter(|id| id.to_string().starts_with(digits)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}
