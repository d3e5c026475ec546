//! The rejections that a layer can give, one for each way in which they read.

use http::StatusCode;

use crate::fingerprint::Match;
use crate::header::HeaderError;
use crate::key::RecordId;
use crate::server::options::Options;
use crate::server::reject::reasons;
use crate::server::reject::rejection::Rejection;
use crate::slots::Refusal;

/// Returns a rejection for each reason that a layer with these options has. Those of the application's `scope` function
/// are not known.
pub(super) fn rejections(options: &Options) -> Vec<Rejection> {
    let Options { header_name, policy, max_request_body, require_key, .. } = options;
    let mut id = [0; 32];
    id[..4].copy_from_slice(&[0x3f, 0x9a, 0x1c, 0x07]);
    let id = RecordId::from_bytes(id);
    let refusals = [Refusal::Unavailable, Refusal::Corrupt, Refusal::Full, Refusal::Overloaded, Refusal::ShuttingDown];
    let mismatches = [Match::Other, Match::OtherCredentials, Match::NotVerifiable];
    let mut rejections = vec![
        reasons::key_malformed(&HeaderError::Repeated(header_name.clone())),
        reasons::body_incomplete(),
        reasons::body_late(),
        reasons::body_too_large(*max_request_body),
        reasons::in_flight(),
        reasons::not_replayable(StatusCode::OK.as_u16()),
        reasons::outcome_unknown(policy, &id),
        reasons::interrupted_run(policy, &id),
        reasons::in_doubt(&id),
    ];
    if *require_key {
        rejections.push(reasons::key_missing(header_name));
    }
    rejections.extend(refusals.map(|refusal| reasons::of_refusal(refusal, &id)));
    rejections.extend(mismatches.map(|found| reasons::of_mismatch(found, &id)));
    rejections
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::RejectionKind;

    #[test]
    fn each_kind_has_a_sample() {
        let of = |options: &Options| rejections(options).iter().map(|sample| sample.kind).collect::<HashSet<_>>();
        let requiring = of(&Options { require_key: true, ..Options::default() });
        assert_eq!(requiring, RejectionKind::ALL.iter().copied().collect());
        let not_requiring = of(&Options::default());
        assert_eq!(requiring.difference(&not_requiring).collect::<Vec<_>>(), [&RejectionKind::KeyMissing]);
    }
}
