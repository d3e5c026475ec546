//! Answers that operators give, as in the API of the operators' page.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tower_idempotency::operations::Answer;

use crate::text::unmarked;

/// Returns the answer of a layer's operation.
pub(super) fn http<'a>(
    status: u16,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: Bytes,
) -> Result<Response<Bytes>, String> {
    let wrong = |what: &str| format!("{what} can't be a part of an answer");
    let mut answer = Response::new(body);
    // An interim answer is none, and replays have no way to switch protocols.
    let is_final = |status: &StatusCode| (200..600).contains(&status.as_u16());
    *answer.status_mut() =
        StatusCode::from_u16(status).ok().filter(is_final).ok_or_else(|| wrong(&format!("the status {status}")))?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong("a header of such a name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong(&format!("such a value of {name}")))?;
        answer.headers_mut().append(name, value);
    }
    if says_json(&answer) {
        *answer.body_mut() = json(answer.body())?;
        serde_json::from_slice::<serde::de::IgnoredAny>(answer.body())
            .map_err(|error| format!("the content type is JSON, and the body is not: {error}"))?;
    }
    Ok(answer)
}

/// Returns whether the content type is one of JSON (RFC 6839, section 3.1).
fn says_json(answer: &Response<Bytes>) -> bool {
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

/// Returns a body of JSON without the mark of its encoding, which JSON that is sent may not have (RFC 8259, section
/// 8.1).
fn json(body: &Bytes) -> Result<Bytes, &'static str> {
    unmarked(body).map(|json| body.slice_ref(json))
}

/// Returns the outcome of a consumer's operation.
pub(super) fn outcome(body: Bytes) -> Result<Answer, String> {
    let body = json(&body)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&body)
        .map_err(|error| format!("the outcome of a consumer is JSON, and this is not: {error}"))?;
    Ok(Answer::Bytes(body))
}
