//! A layer that is driven into each of its rejections, and each kind of its answers.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::pending;
use http::{HeaderName, HeaderValue, Request};
use testkit::lab::charges::{Home, OWN, commit_behind, serve};
use testkit::lab::{Lab, charge_print, frames, id, insert_bytes};
use testkit::{Answer, Gate};
use tower::ServiceExt as _;
use tower_idempotency::internals::Origin;
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{
    AnyStore, FingerprintBody, IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Rejection, RejectionKind,
    SledStore,
};

/// A layer with the options under test, over a store.
pub(super) type Layer = IdempotencyLayer<AnyStore>;

/// The options under test, and how a client has to send a key.
pub(super) struct Driven {
    pub(super) layer: fn(AnyStore) -> Layer,
    pub(super) header: &'static str,
    /// Whether the key has to be quoted.
    pub(super) is_quoted: bool,
    /// The most bytes of a body.
    pub(super) limit: usize,
}

/// An answer, and the rejection that it is.
pub(super) struct Seen {
    pub(super) rejection: Option<Rejection>,
    pub(super) answer: Answer,
}

impl Driven {
    /// The layer over a new store.
    pub(super) fn over(&self, store: impl tower_idempotency::store::Store) -> Layer {
        (self.layer)(AnyStore::new(store))
    }

    pub(super) fn without_key(body: impl Into<Body>) -> Request<Body> {
        Request::post("/charges").header("host", "pay.example").body(body.into()).unwrap()
    }

    pub(super) fn post(&self, body: impl Into<Body>) -> Request<Body> {
        self.with_key(if self.is_quoted { "\"k\"" } else { "k" }, body)
    }

    /// A request that asks what a retry would get.
    fn probe(&self, method: http::Method) -> Request<Body> {
        let mut probe = self.post("a");
        *probe.method_mut() = method;
        probe.headers_mut().insert("idempotency-probe", HeaderValue::from_static("?1"));
        probe
    }

    pub(super) fn with_key(&self, value: &str, body: impl Into<Body>) -> Request<Body> {
        let mut request = Self::without_key(body);
        let name = HeaderName::from_static(self.header);
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        request
    }

    /// All answers that the layer gives, but those that pass through.
    pub(super) async fn all(&self) -> Vec<Seen> {
        let mut seen = self.before_a_run().await;
        seen.extend(self.of_the_store().await);
        seen.extend(self.of_a_known_key().await);
        seen.extend(self.of_unknown_outcomes().await);
        let kinds =
            |seen: &[Seen]| seen.iter().filter_map(|seen| Some(seen.rejection.as_ref()?.kind)).collect::<Vec<_>>();
        let kinds = kinds(&seen);
        let missing: Vec<_> = RejectionKind::ALL.iter().filter(|kind| !kinds.contains(kind)).collect();
        assert!(matches!(missing[..], [] | [RejectionKind::KeyMissing]), "{missing:?}");
        seen
    }

    /// Rejections of what a request is by itself.
    async fn before_a_run(&self) -> Vec<Seen> {
        let lab = Lab::counting(self.over(MemoryStore::new()));
        let late = Body::from_stream(pending::<Result<Bytes, std::io::Error>>());
        let requests = [
            Self::without_key("a"),
            self.with_key("", "a"),
            self.probe(http::Method::POST),
            // It is not covered.
            self.probe(http::Method::DELETE),
            self.post(vec![b'x'; self.limit + 1]),
            self.post(frames([Ok("a"), Err("it breaks off")])),
            self.post(late),
        ];
        let mut seen = Vec::new();
        for request in requests {
            let answer = see(&lab, request).await;
            // A request without a key passes, unless one is required.
            seen.extend(answer.rejection.is_some().then_some(answer));
        }
        seen
    }

    /// Rejections of a new key.
    async fn of_the_store(&self) -> Vec<Seen> {
        let failing = TestStore::new();
        failing.fail_next(StoreCall::Claim);
        let damaged = MemoryStore::new();
        plant(&damaged).await;
        let draining = self.over(MemoryStore::new());
        assert!(draining.drain(Duration::ZERO).await.is_complete());
        let layers = [
            self.over(failing),
            self.over(damaged),
            draining,
            self.over(MemoryStore::builder().max_records(0).build()),
            self.over(MemoryStore::new()).max_runs(0),
        ];
        let mut seen = Vec::new();
        for layer in layers {
            seen.push(see(&Lab::counting(layer), self.post("a")).await);
        }
        seen
    }

    /// Answers to a key that is known.
    async fn of_a_known_key(&self) -> Vec<Seen> {
        let store = AnyStore::new(MemoryStore::new());
        let lab = Lab::counting((self.layer)(store.clone()));
        let mut seen = vec![see(&lab, self.post("a")).await, see(&lab, self.post("a")).await];
        let mut stranger = self.post("a");
        stranger.headers_mut().insert("authorization", HeaderValue::from_static("Bearer stranger"));
        for other in [self.post("b"), stranger] {
            seen.push(see(&lab, other).await);
        }
        let other_rules = Lab::counting((self.layer)(store).fingerprint_body(FingerprintBody::CanonicalJson));
        seen.push(see(&other_rules, self.post("a")).await);

        let (slow, gate) = Lab::gated(self.over(MemoryStore::new()).on_in_flight(OnInFlight::Reject));
        let first = slow.spawn(self.post("a"));
        gate.arrival().await;
        seen.push(see(&slow, self.post("a")).await);
        gate.open();
        first.await.unwrap();

        let long = Lab::counting(self.over(MemoryStore::new()).max_response_body(1));
        seen.extend([see(&long, self.post("a")).await, see(&long, self.post("a")).await]);
        seen
    }

    /// Rejections of operations of which it is unknown whether they took effect.
    async fn of_unknown_outcomes(&self) -> Vec<Seen> {
        let store = AnyStore::new(MemoryStore::new());
        // Another layer over this store has named the operation.
        let named = (self.layer)(store.clone()).label(|_: &http::request::Parts| "order 17".to_owned());
        let panicking = Lab::new(named, |_| async { panic!("on purpose") as &str });
        let own = see(&panicking, self.post("a")).await;
        let retry = see(&Lab::counting((self.layer)(store)), self.post("a")).await;

        let (home, gate) = (Home::<SledStore>::new(), Gate::default());
        let (store, pass) = (home.store.clone(), gate.on_a_thread());
        // Under this policy no claim waits for the disk, for which the paused clock has no time.
        let layer = self.over(store.clone()).on_interrupted(OnInterrupted::Rerun);
        let committing = serve(layer, move |context| {
            let committed = commit_behind(&context, &store, pass.clone());
            async move { committed.await.map_err(|_| OWN) }
        });
        let in_doubt = see(&committing, self.post("a")).await;
        gate.open();
        vec![own, retry, in_doubt]
    }
}

/// Sends a request.
pub(super) async fn see(lab: &Lab, request: Request<Body>) -> Seen {
    let response = lab.app.clone().oneshot(request).await.unwrap();
    let rejection = response.extensions().get::<Rejection>().cloned();
    Seen { rejection, answer: Answer::of(response).await }
}

/// Records an outcome that this release can't read, for the request with the body `a`.
async fn plant(store: &MemoryStore) {
    let fingerprint = charge_print(&id("k")).with_credentials().finish();
    insert_bytes(store, id("k"), fingerprint, Origin::default(), b"\xff".as_slice()).await;
}
