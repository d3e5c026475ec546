//! CORS, by configuration.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_idempotency::{AnyStore, IdempotencyLayer};

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
    #[serde(default)]
    headers: Vec<String>,
    /// Response headers besides the layer's.
    #[serde(default)]
    expose: Vec<String>,
    #[serde(default = "usual_methods")]
    methods: Vec<String>,
}

fn usual_methods() -> Vec<String> {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(str::to_owned).to_vec()
}

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
        let wrong = |what: &str, value: &str| Failure::Usage(format!("[cors] {what}: {value:?} can't be used"));
        if self.origins.is_empty() {
            let why = "[cors] `origins` is empty, so no script may call: name origins, or leave the section out";
            return Err(Failure::Usage(why.to_owned()));
        }
        let is_any = self.origins == ["*"];
        if is_any && self.credentials {
            let why = "[cors] a browser takes no credentials where `origins` is \"*\": name the origins";
            return Err(Failure::Usage(why.to_owned()));
        }
        if self.credentials && self.methods.iter().any(|method| method == "*") {
            return Err(Failure::Usage("[cors] with credentials, name the methods".to_owned()));
        }
        let origin = |origin: &String| {
            let is_origin =
                origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains(['/', '*']));
            // Browsers send it so.
            let is_usual = origin.to_lowercase() == *origin
                && !(origin.starts_with("https://") && origin.ends_with(":443"))
                && !(origin.starts_with("http://") && origin.ends_with(":80"));
            let value = (is_origin && is_usual).then(|| HeaderValue::try_from(origin).ok()).flatten();
            value.ok_or_else(|| {
                wrong("origins (as https://shop.example: small letters, no path, and no port 443 or 80)", origin)
            })
        };
        let names = |what, names: &[String]| {
            let names = names.iter().map(|name| name.parse::<HeaderName>().map_err(|_| wrong(what, name)));
            names.collect::<Result<Vec<_>, _>>()
        };
        let methods = self.methods.iter().map(|name| name.parse::<Method>().map_err(|_| wrong("methods", name)));
        let origins = match is_any {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(self.origins.iter().map(origin).collect::<Result<Vec<_>, _>>()?),
        };
        let cors = CorsLayer::new().allow_origin(origins).allow_credentials(self.credentials).max_age(MAX_AGE);
        Ok(Answering {
            cors: cors.allow_methods(methods.collect::<Result<Vec<_>, _>>()?),
            headers: names("headers", &self.headers)?,
            expose: names("expose", &self.expose)?,
        })
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
