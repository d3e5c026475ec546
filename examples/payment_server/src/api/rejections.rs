//! What this API's clients expect of its keys: problems that are errors in the style of Stripe's API, too.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use tower_idempotency::server::{Envelope, Profile};
use tower_idempotency::{Meaning, Rejection};

/// The profile, unless the settings name one: `PAYMENTS_LAYER__PROFILE=stripe`, `acp` or `iceberg`.
pub(crate) fn profile() -> Profile {
    let mut profile = Profile::draft();
    profile.name = "payments";
    profile.envelope = Envelope::Stripe;
    profile.echo_key = true;
    profile.invalid = Some(Meaning::NotStarted);
    // Stripe's clients retry every 409 and 5xx without this header.
    profile.retry_header = Some(HeaderName::from_static("stripe-should-retry"));
    profile
}

pub(crate) fn render(envelope: Envelope, rejection: &Rejection) -> Response<Bytes> {
    let mut response = envelope.render(rejection);
    if rejection.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
