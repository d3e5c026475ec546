//! Finds an operation by its record id, or by the digits of it that logs have.

use std::future::ready;
use std::pin::pin;

use futures_util::TryStreamExt as _;
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
    let is_meant = |outcome: &OperationRecord| outcome.fence == fence && outcome.id.to_string().starts_with(id);
    pin!(opened.each(None).try_filter(|outcome| ready(is_meant(outcome)))).try_next().await
}

/// Returns the ids that begin with these digits: of the interrupted operations, which are found by an index, or else of
/// all.
async fn beginning_with(opened: &Opened, digits: &str) -> Result<Vec<RecordId>, Failure> {
    let mut found = Vec::new();
    for filter in [Filter::all().in_state(StateKind::Interrupted), Filter::all()] {
        let ids = opened.each(Some(&filter)).map_ok(|operation| operation.id);
        found = ids.try_filter(|id| ready(id.to_string().starts_with(digits))).try_collect().await?;
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}
