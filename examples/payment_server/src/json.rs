//! Answers in JSON, as bytes.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

/// Returns an answer 200.
pub(crate) fn json(answer: &impl Serialize) -> Result<Response<Bytes>, serde_json::Error> {
    let mut response = Response::new(serde_json::to_vec(answer)?.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
