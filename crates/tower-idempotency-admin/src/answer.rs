//! Answers that are recorded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tower_idempotency::operations::Answer;

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
    use bytes::Bytes;
    use http::Response;
    use tower_idempotency::internals::written::{BodyEncoding, WrittenAnswer};

    use super::*;

    #[test]
    fn bytes_that_are_no_text_come_back_as_they_were() {
        let bytes = Bytes::from_static(b"\xff\0a");
        let recorded = Recorded::of(Answer::Http(Response::new(bytes.clone()))).unwrap();
        assert!(recorded.is_base64);
        let Recorded { status, headers, body, .. } = recorded;
        let given = WrittenAnswer { status, headers, body, encoding: BodyEncoding::Base64 };
        assert!(matches!(given.answer().unwrap(), Answer::Http(again) if *again.body() == bytes));
    }
}
