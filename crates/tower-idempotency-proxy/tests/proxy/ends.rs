//! What the tests between a client and a service share: policies and profiles, ways that break where a case asks for
//! it, and what a client and an outbox say afterwards.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use retry_policies::policies::ExponentialBackoff;
use testkit::meanings::statuses;
use testkit::proxy::{End, Fate, Pass, Proxy as Link, Way};
use tower::{Layer as _, ServiceExt as _};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::server::Profile;
use tower_idempotency::{AnyStore, IdempotencyLayer, OnInterrupted};
use tower_idempotency_client::{Delivery, KeyedRetry, KeyedRetryLayer, Known};
use tower_idempotency_proxy::Upstream;

use crate::service::{Service, layer, proxied};

pub(crate) type HyperClient = Client<HttpConnector, Full<Bytes>>;

/// Over a connection for each attempt.
pub(crate) fn hyper() -> HyperClient {
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http()
}

/// A client that tries three times: what the second attempt has recorded is met by the third.
fn client() -> KeyedRetry<HyperClient> {
    let bounds = (Duration::from_millis(1), Duration::from_millis(2));
    let backoff = ExponentialBackoff::builder().retry_bounds(bounds.0, bounds.1).build_with_max_retries(2);
    KeyedRetryLayer::new().backoff(backoff).layer(hyper())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Refuse,
    Rerun,
    /// The reconciler finds the effect, or that there is none.
    Ask,
    /// The reconciler does not know.
    AskInVain,
}

impl Policy {
    pub(crate) const ALL: [Self; 4] = [Self::Refuse, Self::Rerun, Self::Ask, Self::AskInVain];

    fn of(self, layer: IdempotencyLayer<AnyStore>, service: &Service) -> IdempotencyLayer<AnyStore> {
        let service = service.clone();
        match self {
            Self::Refuse => layer.on_interrupted(OnInterrupted::Refuse),
            Self::Rerun => layer.on_interrupted(OnInterrupted::Rerun),
            Self::Ask => layer.reconcile_with(Reconciler::<Response>::new(move |run| {
                let key = run.derived_key("upstream").unwrap();
                let has_acted = service.noted().iter().any(|(head, body)| head["idempotency-key"] == key && acts(body));
                // Each run has ended: a connection breaks before the service has the request, or after it.
                std::future::ready(match has_acted {
                    true => Reconciled::Outcome((StatusCode::CREATED, "found").into_response()),
                    false => Reconciled::RunAgain,
                })
            })),
            Self::AskInVain => {
                layer.reconcile_with(Reconciler::<Response>::new(move |_| std::future::ready(Reconciled::StillUnknown)))
            }
        }
    }
}

/// Each status of the page, and marked answers: the body of an order that is answered so.
pub(crate) fn answers() -> Vec<String> {
    let marked = [
        "503 release", "500 release", "409 release", "201 release", "200 unsure", "402 unsure", "402 keep", "201 keep",
        "401 keep", "429 keep", "307 keep", "500 keep", "502 keep", "400 invalid", "200 a-word-that-is-not-known",
        "503 release unsure", "499",
    ];
    statuses().into_iter().map(|(status, _)| status.to_string()).chain(marked.map(str::to_owned)).collect()
}

/// Whether a service that answers so has done something. What does not say is the worse of both.
pub(crate) fn acts(answer: &str) -> bool {
    let mut words = answer.split(' ');
    let status: u16 = words.next().and_then(|word| word.parse().ok()).unwrap_or(201);
    let of_status = statuses().into_iter().find(|(known, _)| *known == status).map(|(_, row)| row.get("Refuse"));
    let is_refusal = (400..500).contains(&status) && of_status == Some("final");
    match words.collect::<Vec<_>>()[..] {
        [] => !is_refusal && of_status != Some("not started"),
        ["release" | "invalid"] => false,
        // A refusal that was recorded although its status frees the key came after an effect.
        ["keep"] => !is_refusal,
        _ => true,
    }
}

/// A leg of the way: to the proxy, or from there to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    Client,
    Service,
}

/// A place within a message: after so many bytes of it, or of its body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Head(usize),
    Body(usize),
}

pub(crate) type Place = (Leg, Way, At, End);

/// Where the connection breaks, if it does; what the service answers; and what it answers to later attempts, if that is
/// something else.
pub(crate) type Case = (Option<Place>, String, Option<String>);

/// The places where connections break, each of them once: at each step of a request and of its answer.
pub(crate) const PLACES: [Place; 10] = [
    (Leg::Client, Way::Request, At::Head(60), End::Fin),
    (Leg::Client, Way::Response, At::Head(0), End::Rst),
    (Leg::Client, Way::Response, At::Head(30), End::Fin),
    (Leg::Client, Way::Response, At::Body(3), End::Rst),
    (Leg::Service, Way::Request, At::Head(60), End::Rst),
    (Leg::Service, Way::Request, At::Body(0), End::Fin),
    LOST,
    (Leg::Service, Way::Response, At::Head(30), End::Fin),
    (Leg::Service, Way::Response, At::Body(0), End::Fin),
    HALF,
];
/// The service has answered, and nothing of it arrives.
pub(crate) const LOST: Place = (Leg::Service, Way::Response, At::Head(0), End::Rst);
/// A part of its answer's body arrives.
pub(crate) const HALF: Place = (Leg::Service, Way::Response, At::Body(3), End::Rst);

/// The places that wait for the requests of their cases.
#[derive(Debug, Clone, Default)]
struct Breaks(Arc<Mutex<HashMap<String, Place>>>);

/// A connection of a leg, which breaks where the case of its request has its place.
struct Break {
    leg: Leg,
    breaks: Breaks,
    now: Mutex<Message>,
}

/// The message that is passed on: a request and its answer come after each other.
struct Message {
    way: Way,
    read: Vec<u8>,
    case: Option<(String, Place)>,
}

impl Break {
    fn new(leg: Leg, breaks: &Breaks) -> Self {
        let now = Message { way: Way::Response, read: Vec::new(), case: None };
        Self { leg, breaks: breaks.clone(), now: Mutex::new(now) }
    }

    /// The case that a request names, if it breaks on this leg.
    fn case(&self, request: &[u8]) -> Option<(String, Place)> {
        let head = String::from_utf8_lossy(request);
        let case = head.split_once("x-case: ").expect("each request is a case's").1.lines().next()?.to_owned();
        let place = *self.breaks.0.lock().unwrap().get(&case)?;
        (place.0 == self.leg).then_some((case, place))
    }
}

impl Fate for Break {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let mut now = self.now.lock().unwrap();
        if bytes.is_empty() {
            return Pass::On;
        }
        if way != now.way {
            (now.way, now.read) = (way, Vec::new());
            if way == Way::Request {
                now.case = self.case(bytes);
            }
        }
        let before = now.read.len();
        now.read.extend_from_slice(bytes);
        let Some((case, (_, _, at, end))) = now.case.clone().filter(|(_, place)| place.1 == way) else {
            return Pass::On;
        };
        let at = match at {
            At::Head(at) => at,
            At::Body(at) => match now.read.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(head) => head + 4 + at,
                None => return Pass::On,
            },
        };
        if at >= now.read.len() {
            return Pass::On;
        }
        self.breaks.0.lock().unwrap().remove(&case);
        Pass::Cut(at.saturating_sub(before), end)
    }
}

/// A service behind a proxy, with ways that break.
pub(crate) struct Ground {
    pub(crate) policy: Policy,
    pub(crate) profile: &'static str,
    pub(crate) service: Service,
    pub(crate) proxy: SocketAddr,
    breaks: Breaks,
    _legs: [Link; 2],
}

impl Ground {
    async fn new(
        policy: Policy,
        profile: Profile,
        with: fn(IdempotencyLayer<AnyStore>) -> IdempotencyLayer<AnyStore>,
    ) -> Self {
        let (service, breaks) = (Service::default(), Breaks::default());
        let leg = async |leg, to| {
            let breaks = breaks.clone();
            Link::to(to, move |_| Some(Break::new(leg, &breaks))).await
        };
        let behind = leg(Leg::Service, service.start().await).await;
        let upstream = Upstream::new(format!("http://{}", behind.address()).parse().unwrap()).unwrap();
        let upstream = upstream.envelope(profile.envelope);
        let name = profile.name;
        let proxy = proxied(with(policy.of(layer().profile(profile), &service)), upstream).await;
        let before = leg(Leg::Client, proxy).await;
        Self { policy, profile: name, service, proxy: before.address(), breaks, _legs: [before, behind] }
    }

    /// Each policy in each profile; that of ACP first, whose `Retry-After` is five seconds.
    pub(crate) async fn all(with: fn(IdempotencyLayer<AnyStore>) -> IdempotencyLayer<AnyStore>) -> Vec<Self> {
        let mut all = Vec::new();
        for profile in [Profile::acp(), Profile::draft(), Profile::stripe()] {
            for policy in Policy::ALL {
                // It says the same in each profile, and is the longest to wait for in the first.
                if policy == Policy::AskInVain && profile.name != "draft" {
                    continue;
                }
                all.push(Self::new(policy, profile.clone(), with).await);
            }
        }
        all
    }

    /// The request of a case, and its name.
    pub(crate) fn order(&self, case: &Case) -> (String, Request<Bytes>) {
        let ((place, answer, then), case) = (case, format!("{case:?}"));
        if let Some(place) = place {
            self.breaks.0.lock().unwrap().insert(case.clone(), *place);
        }
        let mut order = Request::post(format!("http://{}/orders", self.proxy)).header("x-case", &case);
        if let Some(then) = then {
            order = order.header("x-then", then);
        }
        (case, order.body(Bytes::from(answer.clone())).unwrap())
    }

    /// Whether the connection of this case has not broken.
    pub(crate) fn has_not_broken(&self, case: &str) -> bool {
        self.breaks.0.lock().unwrap().contains_key(case)
    }

    /// How often the service has done what this case asks for.
    pub(crate) fn effects(&self, case: &str) -> usize {
        let of_case = |(head, body): &(http::HeaderMap, String)| head["x-case"] == case && acts(body);
        self.service.noted().iter().filter(|noted| of_case(noted)).count()
    }
}

/// What a call says of its operation: that it has taken place, or has not; `None`: that it is unknown.
pub(crate) async fn called(order: Request<Bytes>) -> Option<bool> {
    match client().oneshot(order.map(Full::new)).await {
        Ok(answer) if Delivery::of(&answer).unwrap().is_unknown() => None,
        Ok(answer) => Some(answer.status().is_success()),
        Err(error) => match error.known() {
            Known::Done => Some(true),
            Known::NotSent | Known::Refused => Some(false),
            _ => None,
        },
    }
}
