//! What an observer learns, what is counted, and what the log has of an operator.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::poll;
use retry_policies::policies::ExponentialBackoff;
use testkit::log::Log as Lines;
use testkit::process::until;
use tokio::sync::Notify;
use tower::util::BoxCloneService;
use tower::{BoxError, service_fn};
use tower_idempotency_outbox::{Action, Call, Observer, OpenCalls, Outbox, State};

use crate::home::{Home, call, call_to, over_both};
use crate::server::{answer, entry, relay, run_until, server, server_of};

over_both!(logged:
    calls_that_have_not_ended_are_counted_by_state_and_destination,
    an_observer_learns_of_each_try_and_of_what_is_open,
    neither_a_reason_nor_the_log_has_the_path_that_a_client_s_error_names,
    each_change_of_an_operator_is_in_the_log_without_a_key,
    a_change_whose_caller_goes_away_is_made_and_in_the_log,
);

const HOUR: i64 = 60 * 60;

async fn calls_that_have_not_ended_are_counted_by_state_and_destination(home: impl Home) {
    let outbox = home.outbox();
    assert_eq!(outbox.open_calls().await.unwrap(), []);
    let before = SystemTime::now();
    for (number, destination, state) in [
        (1, "http://a.example", State::Waiting),
        (2, "http://a.example:80", State::Waiting),
        (3, "http://a.example", State::GivenUp),
        (4, "http://b.example", State::Sending),
        (5, "http://b.example", State::Damaged),
        (6, "http://a.example", State::Delivered),
        (7, "http://b.example", State::Refused),
    ] {
        let call = call_to(destination, number);
        outbox.put(&call).await.unwrap();
        home.set(&entry(outbox, call.key()).await, state, HOUR).await;
        let stored = entry(outbox, call.key()).await.stored;
        // The database's clock is this machine's.
        let near = Duration::from_secs(60);
        assert!(before - near <= stored && stored <= SystemTime::now() + near, "{stored:?}");
    }
    let open = outbox.open_calls().await.unwrap();
    let counted: Vec<_> = open.iter().map(|open| (open.state, &*open.destination, open.calls)).collect();
    assert_eq!(
        counted,
        [
            (State::Damaged, "http://b.example", 1),
            (State::GivenUp, "http://a.example", 1),
            (State::Sending, "http://b.example", 1),
            (State::Waiting, "http://a.example", 2),
        ]
    );
    let longest = before.elapsed().unwrap() + Duration::from_secs(60);
    assert!(open.iter().all(|open| open.oldest <= longest), "{open:?}");
}

/// An observer that notes its events.
#[derive(Clone, Default)]
struct Noted {
    has_counted: Arc<Notify>,
    tried: Arc<Mutex<Vec<(String, State)>>>,
    counted: Arc<Mutex<Vec<Vec<OpenCalls>>>>,
}

impl Observer for Noted {
    fn tried(&self, destination: &str, state: State) {
        self.tried.lock().unwrap().push((destination.to_owned(), state));
    }

    fn counted(&self, open: &[OpenCalls]) {
        self.counted.lock().unwrap().push(open.to_vec());
        self.has_counted.notify_one();
    }
}

async fn an_observer_learns_of_each_try_and_of_what_is_open(home: impl Home) {
    let (outbox, noted) = (home.outbox(), Noted::default());
    for (number, ends) in
        [(1, vec![State::Waiting, State::Delivered]), (2, vec![State::Refused]), (3, vec![State::GivenUp])]
    {
        outbox.put(&call(number)).await.unwrap();
        let has_counted = Arc::clone(&noted.has_counted);
        let (client, _) = server(move |body, attempt| {
            let has_counted = Arc::clone(&has_counted);
            async move {
                if attempt == 1 {
                    has_counted.notified().await;
                }
                let status = match &*body {
                    // The layer itself does not ask again after a 401.
                    "charge 1" if attempt == 1 => 401,
                    "charge 1" => 200,
                    "charge 2" => 400,
                    _ => 303,
                };
                answer(status, &[], "")
            }
        });
        let relay = relay(outbox, &client).observe(noted.clone());
        run_until(relay, outbox, call(number).key(), *ends.last().unwrap()).await;
        let expected: Vec<_> = ends.into_iter().map(|state| ("http://api.example".to_owned(), state)).collect();
        assert_eq!(std::mem::take(&mut *noted.tried.lock().unwrap()), expected);
        // It is counted when the relay begins.
        let counted = std::mem::take(&mut *noted.counted.lock().unwrap());
        let open: u64 = counted[0].iter().filter(|open| open.state != State::GivenUp).map(|open| open.calls).sum();
        assert_eq!((counted.len(), open), (1, 1), "{counted:?}");
    }
    // A call whose time is over is given up without a try.
    outbox.put(&call(4)).await.unwrap();
    home.set(&entry(outbox, call(4).key()).await, State::Waiting, -HOUR).await;
    home.damage(&entry(outbox, call(4).key()).await, false).await;
    let (client, _) = server_of(200, &[], "");
    run_until(relay(outbox, &client).observe(noted.clone()), outbox, call(4).key(), State::Damaged).await;
    assert_eq!(noted.tried.lock().unwrap().iter().map(|(_, state)| *state).collect::<Vec<_>>(), [State::Damaged]);
}

async fn neither_a_reason_nor_the_log_has_the_path_that_a_client_s_error_names(home: impl Home) {
    let (outbox, log) = (home.outbox(), Lines::begin(tracing::Level::TRACE));
    // A reason has 500 characters at most: what is cut off may be a half of the path.
    let path = "canary/".repeat(100);
    let request = http::Request::post(format!("http://api.example/{path}7?token=canary"));
    let request = request.header("idempotency-key", "order-7");
    let call = Call::new(request.body("").unwrap()).unwrap();
    outbox.put(&call).await.unwrap();
    let client = BoxCloneService::new(service_fn(async |request: http::Request<_>| {
        Err::<http::Response<_>, BoxError>(format!("no connection for url ({})", request.uri()).into())
    }));
    let once = ExponentialBackoff::builder().build_with_max_retries(0);
    run_until(relay(outbox, &client).backoff(once), outbox, call.key(), State::GivenUp).await;
    let reason = entry(outbox, call.key()).await.reason.unwrap();
    assert!(reason.contains("no connection for url (http://api.example/…"), "{reason}");
    assert!(!log.lines().concat().contains("canary"), "{:?}", log.lines());
}

async fn each_change_of_an_operator_is_in_the_log_without_a_key(home: impl Home) {
    let (outbox, log) = (home.outbox(), Lines::begin(tracing::Level::INFO));
    let alice = outbox.by("alice");
    outbox.put(&call(1)).await.unwrap();
    let waiting = entry(outbox, call(1).key()).await;
    assert!(alice.apply(&waiting, Action::GiveUp).await.unwrap());
    let given_up = entry(outbox, call(1).key()).await;
    assert_ne!(waiting.fence(), given_up.fence());
    assert_eq!(given_up.reason.as_deref(), Some("given up by alice"));
    assert!(
        alice.apply(&given_up, Action::Retry).await.unwrap()
            && !alice.apply(&given_up, Action::SettleAsDone).await.unwrap()
    );
    // One that is not for its state is none, and is in the log all the same.
    assert!(!alice.apply(&waiting, Action::Retry).await.unwrap());
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains("tower_idempotency::audit")).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (line, (action, entry, result)) in lines.iter().zip([
        ("give-up", &waiting, "done"),
        ("retry", &given_up, "done"),
        ("settle-done", &given_up, "stale"),
        ("retry", &waiting, "stale"),
    ]) {
        let (position, fence) = (entry.position, entry.fence());
        let said = format!("actor=\"alice\" action=\"{action}\" position={position} fence={fence} result=\"{result}\"");
        assert!(line.contains(&said), "{line}: {said}");
        assert!(!line.contains("order-1") && !line.contains("charge 1"), "{line}");
    }
}

// Seeded fault: the change was one with the future of the page's answer, which a browser that leaves has dropped.
async fn a_change_whose_caller_goes_away_is_made_and_in_the_log(home: impl Home) {
    let (outbox, log) = (home.outbox(), Lines::begin(tracing::Level::INFO));
    outbox.put(&call(1)).await.unwrap();
    let waiting = entry(outbox, call(1).key()).await;
    let alice = outbox.by("alice");
    {
        let mut change = pin!(alice.apply(&waiting, Action::GiveUp));
        assert!(poll!(&mut change).is_pending());
    }
    let said = format!("actor=\"alice\" action=\"give-up\" position={}", waiting.position);
    until("the change is in the log", async || log.lines().iter().any(|line| line.contains(&said))).await;
    assert_eq!(entry(outbox, call(1).key()).await.state, State::GivenUp);
}
