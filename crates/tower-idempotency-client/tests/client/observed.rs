//! What an observer learns of calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_idempotency_client::{CallEnd, KeyedRetryLayer, Observer};

use crate::script::{Script, post};

#[derive(Clone, Default)]
struct Seen {
    attempts: Arc<Mutex<Vec<u32>>>,
    ends: Arc<Mutex<Vec<(CallEnd, u32)>>>,
}

impl Observer for Seen {
    fn attempt(&self, number: u32) {
        self.attempts.lock().unwrap().push(number);
    }

    fn ended(&self, end: CallEnd, attempts: u32, took: Duration) {
        // The clock is paused: a retry waits, and one attempt takes no time.
        assert_eq!(took > Duration::ZERO, attempts > 1, "{end:?}");
        self.ends.lock().unwrap().push((end, attempts));
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_and_each_end_is_observed() {
    let replayed = [("idempotent-replayed", "true")];
    let known = |effect: &'static str| [("idempotency-effect", effect)];
    for (script, end, attempts) in [
        (Script::default().answers(200, &[], ""), CallEnd::Answered, 1),
        (Script::default().answers(402, &[], ""), CallEnd::Answered, 1),
        (Script::default().fails("reset").answers(503, &[], "").answers(200, &replayed, ""), CallEnd::Replayed, 3),
        (Script::default().answers(503, &known("none;retry=?0"), ""), CallEnd::Refused, 1),
        (Script::default().problem(409, "outcome-unknown", false), CallEnd::Unknown, 1),
        // An answer, and not an error: it may have come after the effect.
        (Script::default().answers(500, &[], ""), CallEnd::Unknown, 1),
        (Script::default().answers(500, &replayed, ""), CallEnd::Unknown, 1),
        (Script::default().answers(409, &known("done;status=200;retry=?0"), ""), CallEnd::NotKept, 1),
    ] {
        let seen = Seen::default();
        let _ = script.post(&KeyedRetryLayer::new().observe(seen.clone())).await;
        let (numbers, ends) = (seen.attempts.lock().unwrap().clone(), seen.ends.lock().unwrap().clone());
        assert_eq!((ends, numbers), (vec![(end, attempts)], (1..=attempts).collect()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_used_for_another_request_is_an_end_without_an_attempt() {
    let (script, seen) = (Script::default().answers(200, &[], ""), Seen::default());
    let layer = KeyedRetryLayer::new().observe(seen.clone());
    for body in ["amount=5", "amount=6"] {
        let mut request = post(body);
        request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        let _ = script.call(&layer, request).await;
    }
    assert_eq!(seen.ends.lock().unwrap()[1..], [(CallEnd::NotSent, 0)]);
}

#[test]
fn each_end_has_a_name_of_its_own() {
    let names: std::collections::HashSet<_> = CallEnd::ALL.iter().map(|end| end.name()).collect();
    assert_eq!(names.len(), CallEnd::ALL.len());
}
