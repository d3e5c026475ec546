//! The rejections that a layer can give, one for each way in which they read.

use http::StatusCode;

use crate::engine::{OnInterrupted, Unanswered};
use crate::fingerprint::{Match, RequestPart};
use crate::key::RecordId;
use crate::record::Origin;
use crate::server::header::HeaderError;
use crate::server::members::BadKey;
use crate::server::options::Options;
use crate::server::reject::reasons;
use crate::server::reject::rejection::Rejection;
use crate::slots::Refusal;

/// Returns a rejection for each reason that a layer with these options has. Those of the application's `scope` function
/// are not known.
pub(super) fn rejections(options: &Options) -> Vec<Rejection> {
    let Options { header_name, max_request_body, require_key, .. } = options;
    let policy = &options.policy();
    let mut id = [0; 32];
    id[..4].copy_from_slice(&[0x3f, 0x9a, 0x1c, 0x07]);
    let id = RecordId::from_bytes(id);
    // One for each way in which they read. What was not committed reads as a store that is away.
    let refusals = [Refusal::Unavailable, Refusal::Corrupt, Refusal::Full, Refusal::Overloaded, Refusal::ShuttingDown];
    let mismatches = [Match::Other(RequestPart::Body), Match::OtherCredentials, Match::NotVerifiable];
    let ends = [Unanswered::InFlight, Unanswered::NotReplayable(StatusCode::OK.as_u16())].into_iter();
    let unknown = [Unanswered::Unknown, Unanswered::Interrupted, Unanswered::InDoubt];
    let unanswered =
        ends.chain(unknown).chain(refusals.map(Unanswered::Refused)).chain(mismatches.map(Unanswered::Mismatch));
    let mut rejections = vec![
        reasons::key_malformed(&HeaderError::Repeated(header_name.clone())),
        reasons::body_incomplete(),
        reasons::body_late(),
        reasons::body_too_large(*max_request_body),
        reasons::not_found(),
        reasons::no_record(),
    ];
    if policy.on_interrupted == OnInterrupted::Rerun {
        rejections.push(reasons::would_run_again(&id));
    }
    if *require_key {
        rejections.push(reasons::key_missing(header_name, options.profile.key_form, None));
    }
    if options.key_from.is_some() {
        rejections.extend([reasons::key_in_body_malformed(&BadKey::Repeated), reasons::keys_differ(header_name)]);
    }
    rejections.extend(unanswered.map(|why| reasons::of_unanswered(why, policy, &id, Origin::default())));
    rejections
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};
    use std::sync::Arc;

    use testkit::meanings;

    use super::*;
    use crate::engine::{Reconciled, Reconciler};
    use crate::server::effect::Effect;
    use crate::server::key_from::KeyFrom;
    use crate::server::profile::Profile;
    use crate::server::rejected;
    use crate::{Rejection, RejectionKind};

    #[test]
    fn each_kind_has_a_sample() {
        let of = |options: &Options| rejections(options).iter().map(|sample| sample.kind).collect::<HashSet<_>>();
        let requiring = of(&Options { require_key: true, ..Options::default() });
        assert_eq!(requiring, RejectionKind::ALL.iter().copied().collect());
        let not_requiring = of(&Options::default());
        assert_eq!(requiring.difference(&not_requiring).collect::<Vec<_>>(), [&RejectionKind::KeyMissing]);
    }

    /// Status, and what it says, of each rejection of a layer under this policy.
    fn said(policy: &str, profile: Profile) -> BTreeSet<(&'static str, u16, String)> {
        let key_from = Some(KeyFrom::form_field("key"));
        let mut options = Options { require_key: true, key_from, profile: Arc::new(profile), ..Options::default() };
        match policy {
            "rerun" => options.policy.set_on_interrupted(OnInterrupted::Rerun),
            "ask" => options.policy.reconcile_with(Reconciler::new(|_| async { Reconciled::StillUnknown })),
            _ => {}
        }
        let others = [0].map(reasons::not_replayable);
        let all = rejections(&options).into_iter().chain(others);
        let of = |rejection: Rejection| {
            let answer = rejected::answer(&options, rejection.clone(), false);
            let says = answer.headers()[Effect::HEADER].to_str().unwrap().to_owned();
            // As gRPC has it, too.
            assert_eq!(rejected::answer(&options, rejection.clone(), true).headers()[Effect::HEADER], says.as_str());
            assert_eq!(options.profile.envelope.render(&rejection).headers()[Effect::HEADER], says.as_str());
            (rejection.kind.slug(), answer.status().as_u16(), says)
        };
        all.map(of).collect()
    }

    #[test]
    fn each_rejection_says_what_the_page_of_meanings_has_for_it_in_each_policy_and_profile() {
        for policy in ["refuse", "ask", "rerun"] {
            let rows = meanings::rejections().into_iter().filter(|row| row.is_for(policy));
            let rows: BTreeSet<_> =
                rows.map(|row| (row.get("problem"), row.statuses()[0], row.get("says").to_owned())).collect();
            assert_eq!(said(policy, Profile::draft()), rows, "{policy}");
            for profile in [Profile::stripe(), Profile::acp(), Profile::iceberg()] {
                let without_status = |said: BTreeSet<(&'static str, u16, String)>| {
                    said.into_iter().map(|(kind, _, says)| (kind, says)).collect::<BTreeSet<_>>()
                };
                let name = profile.name;
                assert_eq!(without_status(said(policy, profile)), without_status(rows.clone()), "{policy} {name}");
            }
        }
    }

    // A client takes a 409 for a commit that has failed, and deletes its files.
    #[test]
    fn no_rejection_is_a_409_in_iceberg_s_profile_and_what_may_be_done_is_a_5xx_but_for_a_reused_key() {
        for policy in ["refuse", "ask", "rerun"] {
            for (kind, status, says) in said(policy, Profile::iceberg()) {
                assert_ne!(status, 409, "{kind} {says}");
                // Probes alone get 404.
                let may_be_done = !says.starts_with("none") && !matches!(status, 404 | 422);
                assert!(!may_be_done || status >= 500, "{kind} {status} {says}");
            }
        }
    }

    #[test]
    fn an_answer_that_was_not_kept_is_named_by_its_status() {
        for status in [201, 402, 500] {
            let answer = rejected::answer(&Options::default(), reasons::not_replayable(status), false);
            assert_eq!(answer.headers()[Effect::HEADER], format!("done;status={status};retry=?0"));
        }
    }
}
