//! `idem verify`.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use serde_json::json;
use tower_idempotency::RecordId;
use tower_idempotency::operations::{Filter, OperationState, StateKind};
use tower_idempotency::store::StoreError;

use crate::arguments::{OfStore, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen::Screen;

/// The number of outcomes that are read at a time.
const MAX_AT_ONCE: usize = 16;

/// What was read.
#[derive(Default)]
struct Read {
    /// How many operations there are in each state.
    states: BTreeMap<&'static str, u64>,
    damaged: Vec<(RecordId, String)>,
}

pub(crate) async fn run(options: &StoreOptions, of: OfStore, screen: Screen) -> Result<Ended, Failure> {
    let opened = Opened::at(of.store, options).await?;
    let read = read(&opened).await;
    opened.close().await?;
    let Read { states, damaged } = read?;
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

async fn read(opened: &Opened) -> Result<Read, Failure> {
    let (mut read, mut after) = (Read::default(), None);
    loop {
        let page = opened.operations.list(&Filter::all(), after.as_ref(), 1_000).await.map_err(Failure::of)?;
        let mut completed = Vec::new();
        for operation in page.operations {
            *read.states.entry(operation.state.kind().name()).or_default() += 1;
            match operation.state {
                OperationState::Damaged { reason } => read.damaged.push((operation.id, reason)),
                OperationState::Completed { .. } => completed.push(operation.id),
                _ => {}
            }
        }
        // A list has only the beginning of an outcome.
        let outcomes = completed.into_iter().map(|id| async move { (id, opened.operations.outcome(id).await) });
        let mut outcomes = futures_util::stream::iter(outcomes).buffered(MAX_AT_ONCE);
        while let Some((id, outcome)) = outcomes.next().await {
            match outcome {
                Ok(_) => {}
                Err(StoreError::Corrupt { reason, .. }) => {
                    read.damaged.push((id, reason));
                    *read.states.entry(StateKind::Completed.name()).or_default() -= 1;
                    *read.states.entry(StateKind::Damaged.name()).or_default() += 1;
                }
                Err(error) => return Err(Failure::of(error)),
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(read);
        }
    }
}
