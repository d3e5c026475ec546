//! The layer's headers that scripts of other origins need to be allowed.

use http::HeaderName;
use http::header::{LINK, RETRY_AFTER};

use super::effect::Effect;
use super::layer::IdempotencyLayer;
use super::options::Options;
use super::probe;

/// The headers of a layer, as its options name them, for a CORS layer outside (Fetch standard, section "CORS
/// protocol").
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CorsHeaders {
    /// The request headers that a script has to be allowed to send (`Access-Control-Allow-Headers`): the key's, and
    /// `Idempotency-Probe`.
    pub allow: Vec<HeaderName>,
    /// The response headers that a script has to be allowed to read (`Access-Control-Expose-Headers`): the marker of a
    /// replay, `Idempotency-Effect`, `Retry-After` and `Link`, the one that `outcome_header_name` names, and those of
    /// the profile.
    pub expose: Vec<HeaderName>,
}

impl<St, M> IdempotencyLayer<St, M> {
    /// Returns the headers of this layer that scripts of other origins need, for a CORS layer outside. Add those of
    /// your API, such as `Content-Type`.
    ///
    /// ```
    /// # use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// let headers = IdempotencyLayer::new(MemoryStore::new()).cors_headers();
    /// assert_eq!(headers.allow, ["idempotency-key", "idempotency-probe"]);
    /// assert_eq!(headers.expose, ["idempotent-replayed", "idempotency-effect", "retry-after", "link"]);
    /// ```
    #[must_use]
    pub fn cors_headers(&self) -> CorsHeaders {
        let Options { header_name, recorder, outcome_header_name, profile, .. } = &*self.state().options;
        let mut expose = vec![recorder.replay_header_name.clone(), Effect::HEADER, RETRY_AFTER, LINK];
        expose.extend(outcome_header_name.clone());
        expose.extend(profile.retry_header.clone());
        expose.extend(profile.echo_key.then(|| header_name.clone()));
        CorsHeaders { allow: vec![header_name.clone(), probe::HEADER], expose }
    }
}
