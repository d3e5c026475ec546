//! `idem show`.

use serde_json::Value;
use tower_idempotency::Fence;

use super::look_up;
use crate::arguments::{Show, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen::{self, Screen};

pub(crate) async fn run(options: &StoreOptions, show: Show, screen: Screen) -> Result<Ended, Failure> {
    let opened = Opened::at(show.of.store.clone(), options).await?;
    opened.closed_after(async |opened| look(opened, &show, screen).await).await
}

async fn look(opened: &Opened, show: &Show, screen: Screen) -> Result<Ended, Failure> {
    let fence = show.disputed.map(Fence);
    let found = match fence {
        None => look_up::operation(opened, &show.of.id).await?,
        Some(fence) => look_up::disputed(opened, &show.of.id, fence).await?,
    };
    let Some(operation) = found else {
        screen.answer(
            "nothing is there for this id, or for this fence if one is given; it may have expired",
            &Value::Null,
        )?;
        return Ok(Ended::Badly);
    };
    opened.say_remark(std::slice::from_ref(&operation))?;
    let now = opened.now();
    let (mut text, mut value) = (screen::details(&operation, now), screen::operation_as_json(&operation, now));
    for step in &show.step {
        let key = operation.derived_key(step);
        text.push_str(&format!("\n{:14} {step}: {}", "derived key", key.as_deref().unwrap_or("-")));
        value["derived_keys"][step] = key.into();
    }
    if show.body {
        let outcome = match fence {
            None => opened.operations.outcome(operation.id).await,
            Some(fence) => opened.operations.disputed_outcome(operation.id, fence).await,
        };
        let outcome = outcome.map_err(Failure::of)?;
        value["outcome"] = outcome.as_ref().map_or(Value::Null, screen::answer_as_json);
        text = match &outcome {
            Some(outcome) => format!("{text}\n\n{}", screen::answer(outcome)),
            None => format!("{text}\n\nno outcome is recorded"),
        };
    }
    screen.answer(text, &value)?;
    Ok(Ended::Well)
}
