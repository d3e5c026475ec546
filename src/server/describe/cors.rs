//! The layer's headers that scripts of other origins need to be allowed.

use http::HeaderName;
use http::header::{LINK, RETRY_AFTER};

use crate::server::effect::Effect;
use crate::server::gate::probe;
use crate::server::options::Options;

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

impl CorsHeaders {
    pub(in crate::server) fn of(options: &Options) -> Self {
        let Options { header_name, recorder, outcome_header_name, profile, .. } = options;
        let mut expose = vec![recorder.replay_header_name.clone(), Effect::HEADER, RETRY_AFTER, LINK];
        expose.extend(outcome_header_name.clone());
        expose.extend(profile.retry_header.clone());
        expose.extend(profile.echo_key.then(|| header_name.clone()));
        Self { allow: vec![header_name.clone(), probe::HEADER], expose }
    }
}
