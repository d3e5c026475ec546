//! The fields of a request: form-encoded, as Stripe's clients send them, or JSON.

use std::ops::RangeInclusive;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::errors::ApiError;

#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a form-encoded body or query.
    pub(crate) fn form(bytes: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(bytes);
        Self(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect())
    }

    fn json(bytes: &[u8]) -> Result<Self, ApiError> {
        let fields = serde_json::from_slice(bytes);
        fields.map(Self).map_err(|error| ApiError::invalid(None, format!("This is not a JSON object: {error}")))
    }

    /// Returns a text that must be there.
    pub(crate) fn text(&self, name: &'static str) -> Result<&str, ApiError> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    pub(crate) fn optional_text(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(ApiError::invalid(name, format!("{name} must be a text that is not empty"))),
        }
    }

    /// Returns a whole number within `range` that must be there.
    pub(crate) fn number(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<u64, ApiError> {
        self.optional_number(name, range)?.ok_or_else(|| missing(name))
    }

    pub(crate) fn optional_number(
        &self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        let number = number.filter(|number| range.contains(number));
        let wrong =
            || ApiError::invalid(name, format!("{name} must be an integer from {} to {}", range.start(), range.end()));
        number.map(Some).ok_or_else(wrong)
    }
}

fn missing(name: &'static str) -> ApiError {
    ApiError::invalid(name, format!("Missing required param: {name}."))
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_json = content_type.trim_start().to_ascii_lowercase().starts_with("application/json");
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| ApiError::invalid(None, error.body_text()).status(error.status()))?;
        if is_json { Self::json(&bytes) } else { Ok(Self::form(&bytes)) }
    }
}
