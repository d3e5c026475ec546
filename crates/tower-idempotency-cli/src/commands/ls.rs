//! `idem ls`.

use serde_json::{Value, json};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::operations::{Cursor, Filter, OperationRecord};

use crate::arguments::{Ls, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen::{self, Screen};

pub(crate) async fn run(options: &StoreOptions, ls: Ls, screen: &Screen) -> Result<Ended, Failure> {
    let opened = Opened::at(ls.of.store.clone(), options).await?;
    let listed = list(&opened, &ls, *screen).await;
    opened.close().await?;
    listed.map(|()| Ended::Well)
}

async fn list(opened: &Opened, ls: &Ls, screen: Screen) -> Result<(), Failure> {
    let mut filter = Filter::all();
    if let Some(state) = ls.state {
        filter = filter.in_state(state);
    }
    if let Some(age) = ls.older_than {
        filter = filter.older_than(age);
    }
    if let Some(status) = ls.status {
        filter = filter.answered_with(status);
    }
    if let Some(digest) = ls.scope {
        filter = filter.of_scope(digest);
    }
    let filter = Some(filter).filter(|_| !ls.disputed);
    let (operations, next, now) = pages(opened, filter.as_ref(), ls.after, ls.limit).await?;
    if let Some(remark) = opened.remark(&operations) {
        screen::remark(remark)?;
    }
    let mut text = screen::list(&operations, now);
    if let Some(next) = &next {
        text.push_str(&format!("\nthere may be more: --after {next}"));
    }
    let values: Vec<Value> = operations.iter().map(|operation| screen::operation_as_json(operation, now)).collect();
    screen.answer(text, &json!({ "operations": values, "next": next.map(|next| next.to_string()) }))
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
        let page = page.map_err(|error| Failure::of(&error))?;
        operations.extend(page.operations);
        if page.next.is_none() || operations.len() >= limit {
            return Ok((operations, page.next, page.now));
        }
        after = page.next;
    }
}
