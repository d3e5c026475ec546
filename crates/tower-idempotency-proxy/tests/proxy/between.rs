//! The shipped client and the shipped outbox behind the shipped proxy and its layer: what they say of an operation is
//! what the service has done.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use retry_policies::policies::ExponentialBackoff;
use testkit::meanings::statuses;
use testkit::process::until;
use testkit::proxy::Way;
use tokio::sync::Mutex;
use tower_idempotency_client::{Key, KeyedRetryLayer};
use tower_idempotency_outbox::{Call, Outbox as _, Relay, SledOutbox, State};

use crate::ends::{Case, Ground, HALF, LOST, Leg, PLACES, Policy, answers, called, hyper};

/// The cases that are under way at once. Many of them wait.
const AT_ONCE: usize = 512;

/// Sends each case on each ground, and returns what the client says.
async fn say<'a>(grounds: &'a [Ground], cases: &'a [Case]) -> Vec<(&'a Ground, &'a Case, Option<bool>)> {
    let all = grounds.iter().flat_map(|ground| cases.iter().map(move |case| (ground, case)));
    let said = Mutex::new(Vec::new());
    iter(all)
        .for_each_concurrent(AT_ONCE, async |(ground, case)| {
            let (name, order) = ground.order(case);
            let says = called(order).await;
            agree(ground, &name, says, 3);
            // Some answers have no body.
            assert!(!ground.has_not_broken(&name) || ["204", "205", "304"].contains(&&*case.1), "{name}");
            said.lock().await.push((ground, case, says));
        })
        .await;
    said.into_inner()
}

/// What was said after so many attempts, and what was done, are one.
fn agree(ground: &Ground, case: &str, said: Option<bool>, attempts: usize) {
    let (effects, place) = (ground.effects(case), format!("{} {:?}: {case}", ground.profile, ground.policy));
    match said {
        Some(false) => assert_eq!(effects, 0, "{place}: refused"),
        Some(true) => assert!(effects >= 1, "{place}: done"),
        None => {}
    }
    let most = if ground.policy == Policy::Rerun { attempts } else { 1 };
    assert!(effects <= most, "{place}: {effects} effects");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_is_what_the_service_has_done_wherever_a_connection_breaks() {
    let grounds = Ground::all(|layer| layer).await;
    let of_answer = |answer: String| PLACES.map(|place| (Some(place), answer.clone(), None));
    let cases: Vec<Case> = answers().into_iter().flat_map(of_answer).collect();
    for (ground, case, said) in say(&grounds, &cases).await {
        let (Some((leg, way, ..)), answer) = (case.0, &case.1) else { unreachable!() };
        // A retry gets the record, runs again, or gets what the reconciler has found.
        if answer == "201" && (leg == Leg::Client || matches!(ground.policy, Policy::Rerun | Policy::Ask)) {
            assert_eq!(said, Some(true), "{} {:?}: {case:?}", ground.profile, ground.policy);
        }
        if answer == "402" && (leg, way) == (Leg::Client, Way::Response) {
            assert_eq!(said, Some(false), "{} {:?}: {case:?}", ground.profile, ground.policy);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_that_is_refused_does_not_say_that_the_first_one_was() {
    let grounds = Ground::all(|layer| layer).await;
    let of_answer = |then: String| {
        let first = [(Some(LOST), "201"), (None, "502"), (None, "503")];
        first.map(|(place, answer)| (place, answer.to_owned(), Some(then.clone())))
    };
    let cases: Vec<Case> = answers().into_iter().flat_map(of_answer).collect();
    let said = say(&grounds, &cases).await;
    assert!(said.iter().any(|(ground, _, said)| ground.policy == Policy::Rerun && *said == Some(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_of_each_status_is_what_the_proxy_has_made_of_it() {
    let grounds = Ground::all(|layer| layer).await;
    let cases: Vec<Case> = answers().into_iter().map(|answer| (None, answer, None)).collect();
    for (ground, (_, answer, _), said) in say(&grounds, &cases).await {
        let asked = (ground.policy == Policy::Ask).then_some(true);
        let row = statuses().into_iter().find(|(status, _)| status.to_string() == *answer);
        let expected = match (&**answer, row) {
            (_, Some((status, row))) => {
                let meaning = row.get(if ground.policy == Policy::Rerun { "Rerun" } else { "Refuse" });
                match meaning {
                    // The service may have been asked before.
                    _ if status == 409 && ground.policy == Policy::Rerun => None,
                    "final" if (200..300).contains(&status) => Some(true),
                    "final" if (400..500).contains(&status) => Some(false),
                    "not started" => Some(false),
                    "unknown" => asked,
                    _ if status >= 500 && ground.profile == "acp" => asked,
                    _ => None,
                }
            }
            ("503 release" | "500 release" | "409 release" | "402 keep" | "400 invalid", _) => Some(false),
            ("201 keep", _) => Some(true),
            // They were recorded because the service has had an effect before.
            ("401 keep" | "429 keep" | "307 keep" | "500 keep" | "502 keep", _) => None,
            ("200 unsure" | "402 unsure" | "200 a-word-that-is-not-known" | "503 release unsure", _) => asked,
            // It is not registered, and says nothing.
            ("499", _) => None,
            // It contradicts itself.
            ("201 release", _) => said,
            other => panic!("{other:?}"),
        };
        assert_eq!(said, expected, "{} {:?} {answer}", ground.profile, ground.policy);
    }
}

/// Puts each case of each ground into one outbox, and carries them until each has an end. Returns that, and whether
/// the operation may have taken place.
async fn carry<'a>(grounds: &'a [Ground], cases: &'a [Case]) -> Vec<(&'a Ground, &'a Case, State, bool)> {
    let directory = tempfile::tempdir().unwrap();
    let outbox = SledOutbox::open(directory.path()).await.unwrap();
    let all = grounds.iter().flat_map(|ground| cases.iter().map(move |case| (ground, case)));
    let keys: Mutex<Vec<(&Ground, &Case, String, Key)>> = Mutex::default();
    iter(all.enumerate())
        .for_each_concurrent(AT_ONCE, async |(number, (ground, case))| {
            let (name, mut order) = ground.order(case);
            order.headers_mut().insert("idempotency-key", format!("order-{number}").parse().unwrap());
            let call = Call::new(order).unwrap();
            outbox.put(&call).await.unwrap();
            keys.lock().await.push((ground, case, name, call.key().clone()));
        })
        .await;
    // Each is looked at until it has an end, which is for good. A call that is sent may wait again.
    let mut left = keys.lock().await.iter().map(|(.., key)| key.clone()).collect::<Vec<_>>();
    let ended = async || {
        while let Some(key) = left.last() {
            let entry = outbox.get(key).await.unwrap().unwrap();
            if matches!(entry.state, State::Waiting | State::Sending) {
                return false;
            }
            left.pop();
        }
        true
    };
    let bounds = (Duration::from_millis(1), Duration::from_millis(5));
    let backoff = ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1).build_with_max_retries(2);
    let once = ExponentialBackoff::builder().build_with_max_retries(0);
    Relay::new(outbox.clone(), hyper())
        .layer(KeyedRetryLayer::new().backoff(once))
        .poll_every(bounds.1)
        .backoff(backoff)
        .concurrency(64)
        .run(until("an end", ended))
        .await;
    let mut found = Vec::new();
    for (ground, case, name, key) in keys.into_inner() {
        let entry = outbox.get(&key).await.unwrap().unwrap();
        let said = match (entry.state, entry.may_have_taken_place) {
            (State::Delivered, _) => Some(true),
            (State::Refused, _) | (_, false) => Some(false),
            _ => None,
        };
        agree(ground, &name, said, 3);
        found.push((ground, case, entry.state, entry.may_have_taken_place));
    }
    found
}

/// What a call of the outbox becomes without a break, and whether it may have taken place.
const CARRIED: [(&str, State, bool); 12] = [
    ("201", State::Delivered, true),
    ("402", State::Refused, false),
    ("402 keep", State::Refused, false),
    ("400 release", State::Refused, false),
    ("307", State::Refused, false),
    ("401", State::GivenUp, false),
    ("429", State::GivenUp, false),
    ("503 release", State::GivenUp, false),
    ("500 release", State::GivenUp, false),
    ("429 keep", State::GivenUp, true),
    ("200 unsure", State::GivenUp, true),
    ("502", State::GivenUp, true),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_outbox_is_refused_only_if_the_service_has_done_nothing() {
    let grounds = Ground::all(|layer| layer).await;
    let mut cases: Vec<Case> = Vec::new();
    for (answer, ..) in CARRIED {
        let places = [None, Some(PLACES[1]), Some(PLACES[3]), Some(PLACES[5]), Some(LOST), Some(HALF)];
        cases.extend(places.map(|place| (place, answer.to_owned(), None)));
        // Where a run may be repeated, a service that has acted does not then decline for good: that would be recorded.
        if !answer.starts_with("402") {
            cases.extend([LOST, HALF].map(|place| (Some(place), "201".to_owned(), Some(answer.to_owned()))));
        }
    }
    // A service that is still at it when it is asked again.
    cases.extend([LOST, HALF].map(|place| (Some(place), "201".to_owned(), Some("409".to_owned()))));
    let mut states = BTreeSet::new();
    for (ground, case, state, may_have_taken_place) in carry(&grounds, &cases).await {
        let (place, answer, then) = case;
        let name = format!("{} {:?} {case:?}", ground.profile, ground.policy);
        let asks = matches!(ground.policy, Policy::Ask | Policy::Rerun);
        match (place, then) {
            (None, _) if ground.policy != Policy::Ask => {
                let (_, expected, may_have) = CARRIED.into_iter().find(|(of, ..)| of == answer).unwrap();
                assert_eq!((state, may_have_taken_place), (expected, may_have), "{name}");
            }
            (Some(_), None) if answer == "201" && asks => assert_eq!(state, State::Delivered, "{name}"),
            _ => {}
        }
        states.insert(state.as_str());
    }
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["delivered", "given_up", "refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_not_kept_is_read_by_its_original_status() {
    // The first answer is lost on its way to the client.
    let lost = PLACES[1];
    let answers = [("201", Some(true)), ("402", Some(false)), ("500 keep", None), ("429 keep", None)];
    let cases: Vec<Case> = answers.iter().map(|(answer, _)| (Some(lost), (*answer).to_owned(), None)).collect();
    let known = |case: &Case| answers.iter().find(|(answer, _)| *answer == case.1).unwrap().1;
    let grounds = Ground::all(|layer| layer.max_response_body(1)).await;
    for (ground, case, said) in say(&grounds, &cases).await {
        assert_eq!(said, known(case), "{} {:?} {case:?}", ground.profile, ground.policy);
    }
    let grounds = Ground::all(|layer| layer.max_response_body(1)).await;
    for (ground, case, state, may_have_taken_place) in carry(&grounds, &cases).await {
        let expected = match known(case) {
            Some(true) => (State::Delivered, true),
            Some(false) => (State::Refused, false),
            None => (State::GivenUp, true),
        };
        assert_eq!((state, may_have_taken_place), expected, "{} {:?} {case:?}", ground.profile, ground.policy);
    }
    assert!(grounds.iter().all(|ground| ground.service.noted().len() == answers.len()), "each has run once");
}
