//! `idem settle`, of one operation: plans the change, and makes it once the store is open.

use std::path::Path;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use tower_idempotency::internals::written;
use tower_idempotency::operations::{Action, Answer, StateKind};

use super::change::{self, Planned};
use super::settle_all;
use crate::arguments::{self, Settle, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::input;
use crate::open::Opened;
use crate::screen::Screen;
use crate::text::unmarked;

pub(crate) async fn run(options: &StoreOptions, settle: Settle, screen: Screen) -> Result<Ended, Failure> {
    if let Some(file) = &settle.from {
        return settle_all::run(options, &settle, file, screen).await;
    }
    let (Some(id), Some(fence)) = (&settle.id, settle.fence) else {
        return Err(Failure::usage("name the operation by its record id, and its --fence"));
    };
    let id = arguments::id(id).map_err(Failure::usage)?;
    let planned = planned(&settle)?;
    let opened = Opened::to_settle(settle.store.clone(), options, settle.retention).await?;
    let change = async |opened: &Opened| change::make(opened, &id, fence, &settle.consent, planned, screen).await;
    opened.closed_after(change).await
}

fn planned(settle: &Settle) -> Result<Planned, Failure> {
    let states: &[_] = &[StateKind::Interrupted];
    let Some(file) = &settle.answer else {
        let consequence = "It is taken as not done: the key is free, and the next retry RUNS the handler. If the effect took \
                           place after all, it takes place a second time.";
        return Ok(Planned {
            action: Action::Release,
            states,
            consequence: consequence.to_owned(),
            takes_input: false,
        });
    };
    let body = input::body(file)?;
    let kept =
        format!("for {}. The handler does not run again meanwhile.", humantime::format_duration(settle.retention));
    let length = body.len();
    let answer = answer(settle, file, body)?;
    let consequence = match &answer {
        Answer::Http(answer) => format!(
            "It is taken as done: retries get {} with {} headers and a body of {length} bytes {kept}",
            answer.status(),
            answer.headers().len()
        ),
        _ => format!("It is taken as done: redelivered messages get these {length} bytes {kept}"),
    };
    let takes_input = file.as_path() == Path::new(input::STANDARD);
    Ok(Planned { action: Action::Answer(answer), states, consequence, takes_input })
}

/// Returns the answer. What is read from a file of JSON says so, unless a header says what it is.
fn answer(settle: &Settle, file: &Path, body: Bytes) -> Result<Answer, Failure> {
    let split =
        |header: &String| Some(header.split_once(':')?).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers: Option<Vec<_>> = settle.header.iter().map(split).collect();
    let mut headers = headers.ok_or_else(|| Failure::usage("a header without a colon can't be a part of an answer"))?;
    let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let is_typed = |(name, _): &(String, String)| name.trim().eq_ignore_ascii_case(CONTENT_TYPE.as_str());
    if is_json && !settle.consumer && !headers.iter().any(is_typed) {
        headers.push((CONTENT_TYPE.to_string(), "application/json".to_owned()));
    }
    let status = (!settle.consumer).then_some(settle.status);
    // What is UTF-16 is no JSON, and that is the better reason.
    let marked = unmarked(&body).err().filter(|_| is_json || settle.consumer);
    written::answer(status, headers, body).map_err(|error| Failure::Usage(marked.map_or(error, str::to_owned)))
}
