//! `idem ls`.

use std::collections::HashSet;

use serde_json::{Value, json};
use tower_idempotency::RecordId;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::operations::{Cursor, Filter, OperationRecord, StateKind};

use crate::arguments::{Ls, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen::{self, Screen};

pub(crate) async fn run(options: &StoreOptions, ls: Ls, screen: Screen) -> Result<Ended, Failure> {
    let opened = Opened::at(ls.of.store.clone(), options).await?;
    opened.closed_after(async |opened| list(opened, &ls, screen).await).await?;
    Ok(Ended::Well)
}

async fn list(opened: &Opened, ls: &Ls, screen: Screen) -> Result<(), Failure> {
    let filter = ls.selected.filter();
    let (operations, next, now) = match &filter {
        _ if ls.disputed => pages(opened, None, ls.after, ls.limit).await?,
        Filter { state: None, cause: None, .. } => urgent_first(opened, filter, ls.after, ls.limit).await?,
        // No other operation has a cause.
        _ => pages(opened, Some(&filter), ls.after, ls.limit).await?,
    };
    opened.say_remark(&operations)?;
    let mut text = screen::list(&operations, ls.full_ids, now);
    if let Some(next) = &next {
        text.push_str(&format!("\nthere may be more: --after {next}"));
    }
    let values: Vec<Value> = operations.iter().map(|operation| screen::operation_as_json(operation, now)).collect();
    screen.answer(text, &json!({ "operations": values, "next": next.map(|next| next.to_string()) }))
}

/// Reads the interrupted operations, and then the others.
async fn urgent_first(
    opened: &Opened,
    filter: Filter,
    mut after: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<OperationRecord>, Option<Cursor>, Timestamp), Failure> {
    let (mut operations, mut first) = (Vec::new(), HashSet::new());
    // A place in the list of the others is that of an id.
    if after.is_none_or(|after| after.id().is_none()) {
        let interrupted = filter.clone().in_state(StateKind::Interrupted);
        let (found, next, now) = pages(opened, Some(&interrupted), after, limit).await?;
        if next.is_some() || found.len() >= limit {
            let others = Cursor::of_id(RecordId::from_bytes([0; 32]));
            return Ok((found, next.or(Some(others)), now));
        }
        first.extend(found.iter().map(|operation| operation.id));
        (operations, after) = (found, None);
    }
    loop {
        let (others, next, now) = pages(opened, Some(&filter), after, limit - operations.len()).await?;
        // PostgreSQL lists a damaged record that is open both as interrupted and, here, as damaged.
        let is_listed = |other: &OperationRecord| first.contains(&other.id);
        operations.extend(
            others.into_iter().filter(|other| other.state.kind() != StateKind::Interrupted && !is_listed(other)),
        );
        if next.is_none() || operations.len() >= limit {
            return Ok((operations, next, now));
        }
        after = next;
    }
}

/// Reads pages until there are as many operations, or no more; of the disputed outcomes, if there is no filter.
async fn pages(
    opened: &Opened,
    filter: Option<&Filter>,
    mut after: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<OperationRecord>, Option<Cursor>, Timestamp), Failure> {
    let mut operations = Vec::new();
    loop {
        let left = limit.saturating_sub(operations.len());
        let page = match filter {
            Some(filter) => opened.operations.list(filter, after.as_ref(), left).await,
            None => opened.operations.disputed(after.as_ref(), left).await,
        };
        let page = page.map_err(Failure::of)?;
        operations.extend(page.operations);
        if page.next.is_none() || operations.len() >= limit {
            return Ok((operations, page.next, page.now));
        }
        after = page.next;
    }
}
