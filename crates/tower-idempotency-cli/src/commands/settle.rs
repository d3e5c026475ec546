//! `idem settle`.

use std::path::Path;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tower_idempotency::operations::{Action, Answer, StateKind};

use super::change::{self, Planned};
use crate::arguments::{Settle, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::input;
use crate::open::Opened;
use crate::screen::Screen;

pub(crate) async fn run(options: &StoreOptions, settle: Settle, screen: &Screen) -> Result<Ended, Failure> {
    let planned = planned(&settle)?;
    let opened = Opened::to_settle(settle.of.store.clone(), options, settle.retention).await?;
    let made = change::make(&opened, &settle.of, &settle.change, planned, *screen).await;
    opened.close().await?;
    made
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
    let (answer, consequence) = if settle.consumer {
        if let Err(error) = serde_json::from_slice::<serde_json::Value>(&body) {
            return Err(Failure::Usage(format!("the outcome of a consumer is JSON, and this is not: {error}")));
        }
        let consequence = format!("It is taken as done: redelivered messages get these {length} bytes {kept}");
        (Answer::Bytes(body), consequence)
    } else {
        let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let answer = response(settle, body, is_json)?;
        let consequence = format!(
            "It is taken as done: retries get {} with {} headers and a body of {length} bytes {kept}",
            answer.status(),
            answer.headers().len()
        );
        (Answer::Http(answer), consequence)
    };
    let takes_input = file.as_path() == Path::new(input::STANDARD);
    Ok(Planned { action: Action::Answer(answer), states, consequence, takes_input })
}

/// Returns the answer. What is read from a file of JSON says so, unless a header says what it is.
fn response(settle: &Settle, body: Bytes, is_json: bool) -> Result<Response<Bytes>, Failure> {
    let wrong = |what: &str| Failure::Usage(format!("{what} can't be a part of an answer"));
    let mut response = Response::new(body);
    // An interim answer is none, and replays have no way to switch protocols.
    let status = StatusCode::from_u16(settle.status).ok().filter(|status| status.as_u16() >= 200);
    *response.status_mut() = status.ok_or_else(|| wrong(&format!("the status {}", settle.status)))?;
    let mut headers = HeaderMap::new();
    for header in &settle.header {
        let (name, value) = header.split_once(':').ok_or_else(|| wrong("a header without a colon"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong("a header of such a name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong(&format!("such a value of {name}")))?;
        headers.append(name, value);
    }
    if is_json && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    *response.headers_mut() = headers;
    Ok(response)
}
