//! Two proxies behind each other: both record, and mean the same.

use std::net::SocketAddr;

use tower_idempotency::OnInterrupted::{Refuse, Rerun};

use crate::service::{Service, layer, proxy, send};

/// What a retry gets through a proxy, and how often the service has run.
async fn retry(body: &str, service: &Service, proxy: SocketAddr) -> String {
    let again = send(proxy, "k", body).await;
    let got = match again.problem() {
        problem if !problem.is_empty() => problem,
        _ if again.is_replay() => "replay".to_owned(),
        _ => "runs".to_owned(),
    };
    format!("{got} {}", service.keys().len())
}

/// Each mark, alone and with another one, with each kind of status.
fn bodies() -> Vec<String> {
    let marks = ["", "release", "keep", "secret", "unsure", "invalid", "a-word", "secret unsure", "release keep"];
    let statuses = ["200", "201", "303", "400", "401", "409", "422", "429", "500", "502", "503"];
    statuses.iter().flat_map(|status| marks.map(|mark| format!("{status} {mark}").trim().to_owned())).collect()
}

// Before marks went on, `201 secret` was a replay, and `502 keep` was unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_means_the_same_through_two_proxies_as_through_one() {
    for policy in [Refuse, Rerun] {
        for body in bodies() {
            let (alone, behind) = (Service::default(), Service::default());
            let one = proxy(layer().on_interrupted(policy), alone.start().await).await;
            let inner = proxy(layer().on_interrupted(policy), behind.start().await).await;
            let outer = proxy(layer().on_interrupted(policy), inner).await;
            for proxy in [one, outer] {
                let first = send(proxy, "k", &body).await;
                assert_eq!(first.status.as_str(), &body[..3], "{body}: {first:?}");
            }
            let expected = retry(&body, &alone, one).await;
            assert_eq!(retry(&body, &behind, outer).await, expected, "{policy:?} {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_inner_one_replays_means_the_same_to_an_outer_one_that_has_lost_its_record() {
    for (body, expected) in [
        ("201", "replay 1"),
        ("502 keep", "replay 1"),
        ("409 keep", "replay 1"),
        ("400 invalid", "replay 1"),
        ("503 release", "runs 3"),
        ("201 secret", "outcome-unknown 1"),
        ("200 unsure", "outcome-unknown 1"),
    ] {
        let service = Service::default();
        let inner = proxy(layer(), service.start().await).await;
        let (lost, found) = (proxy(layer(), inner).await, proxy(layer(), inner).await);
        send(lost, "k", body).await;
        // What it means to the outer one is what its own retry gets.
        send(found, "k", body).await;
        assert_eq!(retry(body, &service, found).await, expected, "{body}");
    }
}
