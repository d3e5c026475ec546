//! An answer.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Reads an answer to its end.
    pub async fn read<B: Body>(response: Response<B>) -> Result<Self, B::Error> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Self { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
    }

    /// The same; a body that fails is a panic.
    pub async fn of<B: Body<Error: fmt::Debug>>(response: Response<B>) -> Self {
        Self::read(response).await.expect("the answer's body failed")
    }

    pub fn is_replay(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    /// The end of the problem's type, such as `in-flight`; empty for what is no problem.
    pub fn problem(&self) -> String {
        let is_problem = self.headers.get("content-type").is_some_and(|value| value == "application/problem+json");
        if !is_problem {
            return String::new();
        }
        let json = self.json();
        // RFC 9457, section 3.1.1.
        let uri = json["type"].as_str().unwrap_or("about:blank");
        uri.rsplit_once('#').map_or(uri, |(_, slug)| slug).to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("the header is text"))
    }

    /// Asserts that this is the refusal `slug`, in all its parts: status, media type, members, `Link`, `Retry-After`.
    #[track_caller]
    pub fn assert_refusal(&self, status: u16, slug: &str, same_key: bool, retry_after: Option<&str>) {
        assert_eq!(self.refusal(), (status, slug.to_owned()), "{}", String::from_utf8_lossy(&self.body));
        let problem = self.json();
        assert_eq!(problem["status"], status, "{slug}: member status");
        assert_eq!(problem["retry_with_same_key"], same_key, "{slug}: member retry_with_same_key");
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{slug}: member {member}");
        }
        let link = format!("<{}>; rel=\"describedby\"", problem["type"].as_str().expect("a problem has a type"));
        assert_eq!(self.header("link"), Some(link.as_str()), "{slug}: Link");
        assert_eq!(self.header("retry-after"), retry_after, "{slug}: Retry-After");
        assert!(!self.is_replay(), "{slug}: a refusal is no replay");
        // What only an operator can settle, a damaged record included, for which waiting does not help.
        let can_be_settled = matches!(slug, "outcome-unknown" | "not-verifiable")
            || (slug == "store-unavailable" && retry_after.is_none());
        let named = problem.get("record_id").map(|id| id.as_str().expect("record_id is a text"));
        assert_eq!(named.is_some(), can_be_settled, "{slug}: member record_id");
        let is_short = |id: &str| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(named.is_none_or(is_short), "{slug}: {named:?}");
    }

    /// Status and problem, to compare in one line.
    pub fn refusal(&self) -> (u16, String) {
        (self.status.as_u16(), self.problem())
    }
}
