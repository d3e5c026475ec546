//! `idem verify`.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::TryStreamExt as _;
use serde_json::json;
use tower_idempotency::RecordId;
use tower_idempotency::operations::{Filter, OperationRecord, OperationState, StateKind};
use tower_idempotency::store::StoreError;

use crate::arguments::{OfStore, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen::Screen;

/// The number of outcomes that are read at a time.
const MAX_AT_ONCE: usize = 16;

/// What was read.
#[derive(Default)]
struct Verified {
    /// How many operations there are in each state.
    states: BTreeMap<&'static str, u64>,
    damaged: Vec<(RecordId, String)>,
}

pub(crate) async fn run(options: &StoreOptions, of: OfStore, screen: Screen) -> Result<Ended, Failure> {
    let opened = Opened::at(of.store, options).await?;
    let Verified { states, damaged } = opened.closed_after(read).await?;
    let mut text = String::new();
    for (id, reason) in &damaged {
        text.push_str(&format!("{id}  {reason}\n"));
    }
    let count: u64 = states.values().sum();
    text.push_str(&format!("{count} records were read, {} are damaged", damaged.len()));
    let listed: Vec<_> = damaged.iter().map(|(id, reason)| json!({ "id": id.to_string(), "reason": reason })).collect();
    screen.answer(text, &json!({ "records": count, "states": states, "damaged": listed }))?;
    Ok(if damaged.is_empty() { Ended::Well } else { Ended::Badly })
}

async fn read(opened: &Opened) -> Result<Verified, Failure> {
    let (mut read, all) = (Verified::default(), Filter::all());
    let states = opened.each(Some(&all)).map_ok(|operation| state(opened, operation));
    let mut states = pin!(states.try_buffered(MAX_AT_ONCE));
    while let Some((id, state)) = states.try_next().await? {
        *read.states.entry(state.kind().name()).or_default() += 1;
        if let OperationState::Damaged { reason } = state {
            read.damaged.push((id, reason));
        }
    }
    Ok(read)
}

/// Returns the state of an operation, whose outcome is read whole: a list has only its beginning.
async fn state(opened: &Opened, operation: OperationRecord) -> Result<(RecordId, OperationState), Failure> {
    let OperationRecord { id, state, .. } = operation;
    if state.kind() != StateKind::Completed {
        return Ok((id, state));
    }
    match opened.operations.outcome(id).await {
        Ok(_) => Ok((id, state)),
        Err(StoreError::Corrupt { reason, .. }) => Ok((id, OperationState::Damaged { reason })),
        Err(error) => Err(Failure::of(error)),
    }
}
