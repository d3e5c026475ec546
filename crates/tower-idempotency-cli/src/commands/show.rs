//! `idem show`.

use serde_json::Value;

use super::look_up;
use crate::arguments::{Options, Show};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen::{self, Screen};

pub(crate) async fn run(options: &Options, show: Show, screen: &Screen) -> Result<Ended, Failure> {
    let opened = Opened::at(show.of.store.clone(), options).await?;
    let shown = look(&opened, &show, *screen).await;
    opened.close().await?;
    shown
}

async fn look(opened: &Opened, show: &Show, screen: Screen) -> Result<Ended, Failure> {
    let Some(operation) = look_up::operation(opened, &show.of.id).await? else {
        screen.answer("no operation has this id; its record may have expired", &Value::Null)?;
        return Ok(Ended::Badly);
    };
    if let Some(remark) = opened.remark(std::slice::from_ref(&operation)) {
        screen::remark(remark)?;
    }
    let now = opened.now();
    let (mut text, mut value) = (screen::details(&operation, now), screen::operation_as_json(&operation, now));
    for step in &show.step {
        let key = operation.derived_key(step);
        text.push_str(&format!("\n{:14} {step}: {}", "derived key", key.as_deref().unwrap_or("-")));
        value["derived_keys"][step] = key.into();
    }
    if show.body {
        let outcome = opened.operations.outcome(operation.id).await.map_err(|error| Failure::of(&error))?;
        value["outcome"] = outcome.as_ref().map_or(Value::Null, screen::answer_as_json);
        text = match &outcome {
            Some(outcome) => format!("{text}\n\n{}", screen::answer(outcome)),
            None => format!("{text}\n\nno outcome is recorded"),
        };
    }
    screen.answer(text, &value)?;
    Ok(Ended::Well)
}
