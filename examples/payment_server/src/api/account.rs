//! The account of a request.

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tower_idempotency::server::Envelope;
use tower_idempotency::{EmptyScope, Rejection, Scope};

use super::rejections;

/// An account: a digest of its credentials, which are a secret and stay out of the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account([u8; 16]);

impl Account {
    /// Returns the account that a request names. Requests without credentials share one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Rejection> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (credentials, more) = (lines.next(), lines.next());
        let Some(credentials) = credentials else { return Ok(Self::digest("demo", "")) };
        let text = credentials.to_str().ok().filter(|_| more.is_none());
        let (scheme, value) = text.and_then(|text| text.split_once(' ')).ok_or_else(refusal)?;
        let scheme = scheme.to_ascii_lowercase();
        let value = value.trim();
        if !matches!(scheme.as_str(), "bearer" | "basic") || value.is_empty() {
            return Err(refusal());
        }
        Ok(Self::digest(&scheme, value))
    }

    /// Digests credentials. A real server would use the account's id, which stays the same when its tokens are renewed.
    fn digest(scheme: &str, value: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tower-idempotency payment server account");
        hasher.update(scheme.as_bytes()).update(b" ").update(value.as_bytes());
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Self(digest)
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns its first eight hex digits, which are enough to tell accounts apart.
    pub(crate) fn short(self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn scope(self) -> Result<Scope, EmptyScope> {
        Scope::new(self.0)
    }
}

fn refusal() -> Rejection {
    let detail = "Send one Authorization header, Bearer or Basic, with any value; or none, for the demo account.";
    Rejection::custom(StatusCode::UNAUTHORIZED, "The credentials are not understood", detail)
}

impl<S: Send + Sync> FromRequestParts<S> for Account {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        Self::of(&parts.headers).map_err(|rejection| rejections::render(Envelope::Stripe, &rejection).map(Into::into))
    }
}
