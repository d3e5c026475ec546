//! A change in JSON, as the API of the operators' page and the file of `idem settle` have it, and a recorded answer in
//! the same form, for reading: one format, by promise.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::change::{Action, Change};
use crate::key::RecordId;
use crate::record::Fence;
use crate::server::not_applied::is_of_answers;

/// A change, as it is written.
#[derive(Debug, Deserialize)]
pub struct WrittenChange {
    id: String,
    /// A damaged record may have none.
    fence: Option<String>,
    /// The name of what is to be done.
    pub action: Option<String>,
    answer: Option<WrittenAnswer>,
    /// What else is said of the operation.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// An answer, as it is written: one that is given, or one that is recorded.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenAnswer {
    /// The HTTP status; `None` for the outcome of a consumer.
    pub status: Option<u16>,
    /// The names and values of the headers.
    pub headers: Vec<(String, String)>,
    /// The body, in its encoding.
    pub body: String,
    /// How the body is written.
    pub encoding: BodyEncoding,
}

/// How a body is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyEncoding {
    /// As a text.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// In Base64.
    #[serde(rename = "base64")]
    Base64,
}

impl WrittenChange {
    /// Returns the id of the operation, and its change, if it has an action. Fields that are not `known` are refused.
    ///
    /// # Errors
    /// A text that says what is wrong, without a value, which may be a secret.
    pub fn read(self, known: &[&str]) -> Result<(RecordId, Option<Change>), String> {
        let Self { id, fence, action: name, answer, others } = self;
        if let Some(unknown) = others.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("there is no field `{unknown}`; what is to be done are `action` and `answer`"));
        }
        let id: RecordId = id.parse().map_err(|_| "`id` has 64 hex digits")?;
        let fence = fence.map(|fence| fence.parse().map(Fence)).transpose();
        let fence = fence.map_err(|_| "`fence` is a number in quotation marks")?;
        if name.is_none() && answer.is_none() {
            return Ok((id, None));
        }
        let answer = answer.map(WrittenAnswer::answer).transpose()?;
        let action = action(name.as_deref().unwrap_or_default(), answer)?;
        let fence = fence.ok_or("a change needs the `fence`")?;
        Ok((id, Some(Change::new(id, fence, action))))
    }
}

/// Returns the action of this name.
///
/// # Errors
/// There is no such action, it needs an answer, or has none.
pub fn action(name: &str, answer: Option<Answer>) -> Result<Action, &'static str> {
    match (name, answer) {
        ("answer", Some(answer)) => Ok(Action::Answer(answer)),
        ("answer", None) => Err("the action `answer` needs an `answer`"),
        (_, Some(_)) => Err("an `answer` needs the action `answer`"),
        ("release", None) => Ok(Action::Release),
        ("forget", None) => Ok(Action::Forget),
        ("reconcile", None) => Ok(Action::Reconcile),
        _ => Err("there is no such action"),
    }
}

impl WrittenAnswer {
    /// Returns a recorded answer, as it is written.
    #[must_use]
    pub fn of(answer: Answer) -> Self {
        let (status, headers, body) = match answer {
            Answer::Http(answer) => {
                let (parts, body) = answer.into_parts();
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
                (Some(parts.status.as_u16()), headers.collect(), body)
            }
            Answer::Bytes(body) => (None, Vec::new(), body),
        };
        let (body, encoding) = match std::str::from_utf8(&body) {
            Ok(text) => (text.to_owned(), BodyEncoding::Utf8),
            Err(_) => (STANDARD.encode(&body), BodyEncoding::Base64),
        };
        Self { status, headers, body, encoding }
    }

    /// Returns the answer.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn answer(self) -> Result<Answer, String> {
        let body = match self.encoding {
            BodyEncoding::Utf8 => self.body.into(),
            BodyEncoding::Base64 => STANDARD.decode(self.body.trim()).map_err(|_| "the body is not Base64")?.into(),
        };
        answer(self.status, self.headers, body)
    }
}

/// Returns the answer with these parts: without a status, the outcome of a consumer.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn answer(status: Option<u16>, headers: Vec<(String, String)>, body: Bytes) -> Result<Answer, String> {
    let Some(status) = status else {
        if !headers.is_empty() {
            let why = "an answer with headers needs a `status`; without one it is the outcome of a message consumer";
            return Err(why.to_owned());
        }
        let outcome = json::<Value>(&body);
        let not_json = |error| format!("the outcome of a message consumer is JSON, and this is not: {error}");
        return outcome.map(Answer::Bytes).map_err(not_json);
    };
    let wrong = |what: &str| format!("{what} can't be a part of an answer");
    let mut answer = Response::new(body);
    // An interim answer is none, and replays have no way to switch protocols.
    let final_status = StatusCode::from_u16(status).ok().filter(|status| is_of_answers(*status));
    *answer.status_mut() = final_status.ok_or_else(|| wrong(&format!("the status {status}")))?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong("a header of such a name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong(&format!("such a value of {name}")))?;
        answer.headers_mut().append(name, value);
    }
    if says_json(&answer) {
        if answer.body().is_empty() {
            return Err("the content type is JSON, and the body is empty".to_owned());
        }
        let body = json::<IgnoredAny>(answer.body());
        *answer.body_mut() = body.map_err(|error| format!("the content type is JSON, and the body is not: {error}"))?;
    }
    Ok(Answer::Http(answer))
}

/// Returns whether the content type is one of JSON (RFC 6839, section 3.1).
fn says_json(answer: &Response<Bytes>) -> bool {
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

/// Returns a body of JSON without the mark of its encoding, which JSON that is sent may not have (RFC 8259, section
/// 8.1).
fn json<T: DeserializeOwned>(body: &Bytes) -> serde_json::Result<Bytes> {
    let json = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    serde_json::from_slice::<T>(json).map(|_| body.slice_ref(json))
}

#[cfg(test)]
mod tests;
