//! A service in any language says by a header what its answer means.

use tower_idempotency::server::Profile;

use crate::service::{Service, layer, proxy, send};

#[tokio::test(flavor = "multi_thread")]
async fn each_mark_means_what_it_means_in_rust_and_no_client_sees_it() {
    // The body is the status and the mark of the answer; then what a retry gets, and how often the service has run.
    for (body, retry, runs) in [
        ("503 release", "runs", 2),
        ("502 keep", "replay", 1),
        ("200 unsure", "outcome-unknown", 1),
        ("200 a-word-that-is-not-known", "outcome-unknown", 1),
        ("503 release unsure", "outcome-unknown", 1),
        ("400 invalid", "replay", 1),
        ("400", "replay", 1),
        ("429", "runs", 2),
        ("502", "outcome-unknown", 1),
    ] {
        let service = Service::default();
        let proxy = proxy(layer(), service.start().await).await;
        let first = send(proxy, "k", body).await;
        assert!(first.status.as_str() == &body[..3] && first.header("idempotency-mark").is_none(), "{body}: {first:?}");
        let again = send(proxy, "k", body).await;
        let got = match again.problem() {
            problem if !problem.is_empty() => problem,
            _ if again.is_replay() => "replay".to_owned(),
            _ => "runs".to_owned(),
        };
        assert_eq!((got.as_str(), service.keys().len()), (retry, runs), "{body}");
        assert!(again.header("idempotency-mark").is_none(), "{body}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_decides_what_becomes_of_an_invalid_request_and_of_a_5xx() {
    for (profile, body, runs) in [
        (Profile::stripe(), "400 invalid", 2),
        (Profile::stripe(), "500", 1),
        (Profile::acp(), "500", 1),
        (Profile::acp(), "500 release", 2),
    ] {
        let service = Service::default();
        let name = profile.name;
        let proxy = proxy(layer().profile(profile), service.start().await).await;
        send(proxy, "k", body).await;
        send(proxy, "k", body).await;
        assert_eq!(service.keys().len(), runs, "{name}: {body}");
    }
}
