use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::log::Log;
use tower::service_fn;
use tower_idempotency_client::Key;

use super::*;
use crate::entry::tests::entry;
use crate::lease::{Age, Update};
use crate::{Call, Entry, OpenCalls, OutboxError, State};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// Seeded fault: a call that has panicked keeps its place.
#[tokio::test]
async fn each_call_has_its_place_until_it_has_ended() {
    let _log = Log::begin(tracing::Level::ERROR);
    let (mut tries, mut calls) = (Tries::default(), JoinSet::new());
    for how in 0..3 {
        let call = async move {
            assert!(how > 0, "as planned");
            (how > 1).then(|| "no connection".to_owned())
        };
        tries.destinations.insert(calls.spawn(call).id(), "http://api.example".to_owned());
    }
    for taken in [3, 2, 1] {
        assert_eq!(tries.taken(), HashMap::from([("http://api.example".to_owned(), taken)]));
        tries.end(calls.join_next_with_id().await.unwrap());
    }
    assert!(tries.taken().is_empty());
}

#[tokio::test]
async fn tries_are_in_vain_while_none_of_them_ends_a_call() {
    let mut tries = Tries::default();
    let id = JoinSet::new().spawn(async {}).id();
    let in_vain = |reason: &str| Ok((id, Some(reason.to_owned())));
    assert_eq!(tries.all_in_vain(), None);
    tries.end(in_vain("no connection"));
    tries.end(in_vain("too many open files"));
    assert_eq!(tries.all_in_vain(), Some((2, "too many open files".to_owned())));
    // Each look begins anew.
    assert_eq!(tries.all_in_vain(), None);
    tries.end(in_vain("no connection"));
    tries.end(Ok((id, None)));
    assert_eq!(tries.all_in_vain(), None);
}

/// An outbox that always has a call, or always fails. It counts what it is asked for.
#[derive(Debug, Clone, Default)]
struct Counted {
    fails: bool,
    leases: Arc<AtomicUsize>,
    sweeps: Arc<AtomicUsize>,
}

impl Outbox for Counted {
    async fn put(&self, _: &Call) -> Result<(), OutboxError> {
        Ok(())
    }

    async fn get(&self, _: &Key) -> Result<Option<Entry>, OutboxError> {
        Ok(None)
    }

    async fn at(&self, _: u64) -> Result<Option<Entry>, OutboxError> {
        Ok(None)
    }

    async fn list(&self, _: State, _: Option<u64>, _: u16) -> Result<Vec<Entry>, OutboxError> {
        Ok(Vec::new())
    }

    async fn open_calls(&self) -> Result<Vec<OpenCalls>, OutboxError> {
        if self.fails { Err(OutboxError::database("as planned")) } else { Ok(Vec::new()) }
    }

    async fn lease(&self, _: Duration, _: Room) -> Result<Vec<Leased>, OutboxError> {
        self.leases.fetch_add(1, Ordering::SeqCst);
        if self.fails {
            return Err(OutboxError::database("as planned"));
        }
        let call = Call::new(Request::post("http://api.example/").body("").unwrap()).unwrap();
        Ok(vec![Leased { entry: Entry { call: Some(call), ..entry(1, true) }, tried_for: Age::default() }])
    }

    async fn update(&self, _: &Entry, _: Update) -> Result<bool, OutboxError> {
        Ok(true)
    }

    async fn sweep(&self, _: Duration) -> Result<bool, OutboxError> {
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        if self.fails { Err(OutboxError::database("as planned")) } else { Ok(false) }
    }
}

/// Runs a relay for so long whose client loses each request after a second, and returns what it has logged.
async fn logged(outbox: &Counted, time: Duration) -> Vec<String> {
    let log = Log::begin(tracing::Level::WARN);
    let client = service_fn(async |_: Request<Full<Bytes>>| {
        sleep(secs(1)).await;
        Err::<Response<Full<Bytes>>, BoxError>("the connection broke".into())
    });
    let once = ExponentialBackoff::builder().build_with_max_retries(0);
    let relay = Relay::new(outbox.clone(), client).layer(KeyedRetryLayer::new().backoff(once));
    relay.concurrency(1).poll_every(Duration::from_millis(1)).run(sleep(time)).await;
    log.lines()
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_fails_is_asked_each_second_and_swept_each_minute_and_that_is_logged() {
    let outbox = Counted { fails: true, ..Counted::default() };
    let lines = logged(&outbox, secs(90)).await;
    let count = |what: &str| lines.iter().filter(|line| line.contains(what) && line.contains("error=")).count();
    let (leases, sweeps) = (outbox.leases.load(Ordering::SeqCst), outbox.sweeps.load(Ordering::SeqCst));
    assert!((85..=91).contains(&leases), "{leases}");
    assert_eq!((sweeps, count("no calls can be taken"), count("the outbox can't be swept")), (2, leases, 2));
    assert_eq!(lines.len(), leases + sweeps, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn once_a_minute_a_relay_says_that_all_tries_were_in_vain_and_sweeps() {
    let outbox = Counted::default();
    let lines = logged(&outbox, secs(200)).await;
    let is_said = |line: &String| line.contains(" no call that was tried has come to an end tries=");
    assert_eq!((lines.iter().filter(|line| is_said(line)).count(), lines.len()), (3, 3), "{lines:?}");
    assert!(lines.iter().all(|line| line.ends_with("the connection broke\"")), "{lines:?}");
    assert_eq!(outbox.sweeps.load(Ordering::SeqCst), 4);
}

/// An observer that counts its events, and panics at each.
#[derive(Clone, Default)]
struct Panicking {
    tried: Arc<AtomicUsize>,
    counted: Arc<AtomicUsize>,
}

impl Observer for Panicking {
    fn tried(&self, destination: &str, state: State) {
        self.tried.fetch_add(1, Ordering::SeqCst);
        panic!("{destination} {state}");
    }

    fn counted(&self, open: &[OpenCalls]) {
        self.counted.fetch_add(1, Ordering::SeqCst);
        panic!("{open:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_is_logged_and_the_relay_goes_on() {
    let (observer, log) = (Panicking::default(), Log::begin(tracing::Level::ERROR));
    let client = service_fn(async |_: Request<Full<Bytes>>| {
        sleep(secs(1)).await;
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    });
    let relay = Relay::new(Counted::default(), client).observe(observer.clone());
    relay.concurrency(1).poll_every(Duration::from_millis(1)).run(sleep(secs(130))).await;
    let (tried, counted) = (observer.tried.load(Ordering::SeqCst), observer.counted.load(Ordering::SeqCst));
    assert!(tried > 100 && counted == 3, "{tried}, {counted}");
    assert_eq!(log.lines().len(), tried + counted);
}

#[test]
fn a_try_has_its_bounds_and_a_relay_has_room_for_a_call() {
    let client = service_fn(async |_: Request<Full<Bytes>>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    let relay = || Relay::new(Counted::default(), client);
    for (time, expected) in [
        (Duration::ZERO, MIN_TRY),
        (MIN_TRY - Duration::from_nanos(1), MIN_TRY),
        (MIN_TRY + Duration::from_nanos(1), MIN_TRY + Duration::from_nanos(1)),
        (MAX_TRY, MAX_TRY),
        (MAX_TRY + Duration::from_nanos(1), MAX_TRY),
        (Duration::MAX, MAX_TRY),
    ] {
        let relay = relay().try_for(time);
        assert_eq!((relay.terms.try_for, relay.terms.lease()), (expected, 3 * expected), "{time:?}");
    }
    assert_eq!([0, 1, 2].map(|calls| relay().concurrency(calls).concurrency), [1, 1, 2]);
}
