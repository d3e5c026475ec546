//! CORS, by configuration.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_idempotency::config::setting;
use tower_idempotency::{AnyStore, IdempotencyLayer};

use super::whose::require_passed_on;
use crate::failure::Failure;

/// The section `[cors]`. The layer's own headers are allowed and exposed in any case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cors {
    /// Such as `https://shop.example`; or `*` alone.
    origins: Vec<String>,
    #[serde(default)]
    credentials: bool,
    /// Request headers besides the key's, such as `content-type`.
    #[serde(default, deserialize_with = "setting")]
    headers: Option<Vec<HeaderName>>,
    /// Response headers besides the layer's.
    #[serde(default, deserialize_with = "setting")]
    expose: Option<Vec<HeaderName>>,
    #[serde(default, deserialize_with = "setting")]
    methods: Option<Vec<Method>>,
}

const USUAL_METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// How long a browser may remember a preflight: Chromium's most.
const MAX_AGE: Duration = Duration::from_secs(7_200);

/// What the section says, once it is known to be right.
#[derive(Debug)]
pub(super) struct Answering {
    /// Of the application's own: the layer's headers are missing.
    cors: CorsLayer,
    headers: Vec<HeaderName>,
    expose: Vec<HeaderName>,
}

impl Cors {
    pub(super) fn checked(self) -> Result<Answering, Failure> {
        if self.origins.is_empty() {
            return Err(Failure::usage("[cors] `origins` is empty: name some, or leave the section out"));
        }
        let is_any = self.origins == ["*"];
        if is_any && self.credentials {
            return Err(Failure::usage("[cors] a browser takes no credentials where any may call: name the origins"));
        }
        let (headers, expose) = (self.headers.unwrap_or_default(), self.expose.unwrap_or_default());
        let methods = self.methods.unwrap_or(USUAL_METHODS.to_vec());
        let has_any = methods.iter().any(|name| name == "*") || headers.iter().chain(&expose).any(|name| name == "*");
        if self.credentials && has_any {
            return Err(Failure::usage("[cors] with credentials, name the methods and headers: `*` is none"));
        }
        require_passed_on("[cors] headers:", &headers)?;
        let origin = |origin: &String| {
            let is_origin =
                origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains(['/', '*', '@']));
            // Browsers send it so.
            let is_usual = origin.to_lowercase() == *origin
                && !(origin.starts_with("https://") && origin.ends_with(":443"))
                && !(origin.starts_with("http://") && origin.ends_with(":80"));
            let value = (is_origin && is_usual).then(|| HeaderValue::try_from(origin).ok()).flatten();
            let form = "as https://shop.example: small letters, no path, and no port 443 or 80";
            value.ok_or_else(|| Failure::usage(format!("[cors] origins: write each {form}")))
        };
        let origins = match is_any {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(self.origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?),
        };
        let cors = CorsLayer::new().allow_origin(origins).allow_credentials(self.credentials).max_age(MAX_AGE);
        Ok(Answering { cors: cors.allow_methods(methods), headers, expose })
    }
}

impl Answering {
    /// Returns the layer that answers so, with what `layer` needs.
    pub(super) fn with(self, layer: &IdempotencyLayer<AnyStore>) -> CorsLayer {
        let own = layer.cors_headers();
        let (mut headers, mut expose) = (own.allow, own.expose);
        headers.extend(self.headers);
        expose.extend(self.expose);
        self.cors.allow_headers(headers).expose_headers(expose)
    }
}

#[cfg(test)]
mod tests;
