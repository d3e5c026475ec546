//! Answers that operators give, and those that are recorded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tower_idempotency::operations::Answer;

/// An answer as an operator has entered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given<'a> {
    /// The HTTP status; `None` for the outcome of a consumer.
    pub(crate) status: Option<u16>,
    pub(crate) body: &'a str,
    pub(crate) is_base64: bool,
}

impl Given<'_> {
    /// Makes the answer; the error says what is wrong with it.
    pub(crate) fn answer<'a>(self, headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Answer, String> {
        let body = match self.is_base64 {
            true => STANDARD.decode(self.body.trim()).map_err(|_| "The body is not Base64.".to_owned())?,
            false => self.body.as_bytes().to_vec(),
        };
        let body = Bytes::from(body);
        let mut headers = headers.into_iter().peekable();
        let Some(status) = self.status else {
            if headers.peek().is_some() {
                return Err("An answer with headers needs a status.".to_owned());
            }
            serde_json::from_slice::<serde_json::Value>(&body)
                .map_err(|error| format!("The outcome of a message consumer is JSON, and this is not: {error}."))?;
            return Ok(Answer::Bytes(body));
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = StatusCode::from_u16(status)
            .ok()
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or_else(|| "The status must be that of a final HTTP answer, such as 200.".to_owned())?;
        for (name, value) in headers {
            let header = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
            let (name, value) =
                header.ok_or_else(|| "A header has a name or a value that HTTP does not have.".to_owned())?;
            answer.headers_mut().append(name, value);
        }
        if says_json(&answer) {
            if answer.body().is_empty() {
                return Err("The content type is JSON, and the body is empty.".to_owned());
            }
            serde_json::from_slice::<serde::de::IgnoredAny>(answer.body())
                .map_err(|error| format!("The content type is JSON, and the body is not: {error}."))?;
        }
        Ok(Answer::Http(answer))
    }
}

/// Returns whether the content type is one of JSON (RFC 6839, section 3.1).
fn says_json(answer: &Response<Bytes>) -> bool {
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

/// A recorded answer, for JSON and for the page.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// `None` for the outcome of a consumer.
    pub(crate) status: Option<u16>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) is_base64: bool,
}

impl Recorded {
    /// Returns the parts of an answer; `None` for one of a kind that this version does not know.
    pub(crate) fn of(answer: Answer) -> Option<Self> {
        let (status, headers, body) = match answer {
            Answer::Http(answer) => {
                let (parts, body) = answer.into_parts();
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
                (Some(parts.status.as_u16()), headers.collect(), body)
            }
            Answer::Bytes(body) => (None, Vec::new(), body),
            _ => return None,
        };
        let (body, is_base64) = match std::str::from_utf8(&body) {
            Ok(text) => (text.to_owned(), false),
            Err(_) => (STANDARD.encode(&body), true),
        };
        Some(Self { status, headers, body, is_base64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(status: u16, body: &str) -> Given<'_> {
        Given { status: Some(status), body, is_base64: false }
    }

    #[test]
    fn an_answer_that_says_json_and_is_none_is_refused() {
        for content_type in ["application/json", "application/problem+json; charset=utf-8"] {
            let headers = [("content-type", content_type)];
            given(200, r#"{"id":"ch_1"}"#).answer(headers).unwrap();
            given(200, "{id}").answer(headers).unwrap_err();
        }
        given(200, "{id}").answer([("content-type", "text/plain")]).unwrap();
    }

    #[test]
    fn an_answer_that_http_does_not_have_is_refused() {
        for status in [0, 100, 199, 1_000] {
            given(status, "").answer([]).unwrap_err();
        }
        for header in [("a b", "c"), ("a", "b\r\nset-cookie: c")] {
            given(200, "").answer([header]).unwrap_err();
        }
        Given { status: None, body: "no base64!", is_base64: true }.answer([]).unwrap_err();
    }

    #[test]
    fn bytes_that_are_no_text_come_back_as_they_were() {
        let bytes = Bytes::from_static(b"\xff\0a");
        let recorded = Recorded::of(Answer::Http(Response::new(bytes.clone()))).unwrap();
        let given = Given { status: recorded.status, body: &recorded.body, is_base64: recorded.is_base64 };
        assert!(matches!(given.answer([]).unwrap(), Answer::Http(again) if *again.body() == bytes));
    }

    #[test]
    fn an_outcome_of_a_consumer_is_json() {
        let given = |body| Given { status: None, body, is_base64: false }.answer([]);
        assert!(matches!(given("[\"sent\", 17]").unwrap(), Answer::Bytes(json) if json == "[\"sent\", 17]"));
        for wrong in ["sent", "", "\"\\ud800\""] {
            given(wrong).unwrap_err();
        }
    }
}
