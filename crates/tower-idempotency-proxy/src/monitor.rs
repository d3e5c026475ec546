//! The second port: metrics, health, and the operators' page.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST, HeaderMap, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::Authority;
use http::{StatusCode, Uri};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tower_idempotency::metrics::{BUCKETS, Metrics, update};
use tower_idempotency::server::health;
use tower_idempotency::store::Store;
use tower_idempotency::{AnyStore, IdempotencyLayer};
use tower_idempotency_admin::{Access, Actor, AdminPage, Latencies};

use crate::upstream::STEP;

/// How often the recorder takes in what it has noted.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the process's recorder of metrics, which `/metrics` shows.
///
/// # Errors
/// [`BuildError`] if the process has one already.
pub fn recorder() -> Result<PrometheusHandle, BuildError> {
    let buckets = Matcher::Suffix("_seconds".to_owned());
    PrometheusBuilder::new().set_buckets_for_metric(buckets, &BUCKETS)?.install_recorder()
}

/// Takes in what the recorder has noted, again and again.
pub(crate) async fn upkeep(recorder: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        recorder.run_upkeep();
    }
}

/// What the second port answers to.
#[derive(Clone, Default)]
pub(crate) struct Monitor {
    /// Names of hosts, besides `localhost` and addresses.
    pub(crate) hosts: Vec<String>,
    /// Without it there is no operators' page.
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Monitor {
    /// Leaves out the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// The routes of the second port. The layer's store is observed from here on.
pub(crate) fn routes(layer: &IdempotencyLayer<AnyStore>, recorder: PrometheusHandle, monitor: Monitor) -> Router {
    let (store, latencies) = (layer.store().clone(), Latencies::new());
    // Only one observer is set, and this is the first.
    let _first = store.observe((Metrics::new(), latencies.clone()));
    let Monitor { hosts, token } = monitor;
    let page = token.filter(|token| !token.is_empty()).map(|token| {
        let token: Arc<str> = token.into();
        let authorize = move |parts: Parts| authorize(parts, Arc::clone(&token));
        AdminPage::new(layer.operations(), authorize).steps([STEP]).latencies(latencies).router()
    });
    let scraped = store.clone();
    let scrape = async move || {
        if let Err(error) = update(&scraped).await {
            tracing::warn!("interrupted operations can't be counted: {error}");
        }
        recorder.render()
    };
    let mut routes = Router::new().route("/metrics", get(scrape)).merge(health::routes([store]));
    if let Some(page) = page {
        routes = routes.nest("/admin", page);
    }
    // A page of another host could lead a browser here (DNS rebinding).
    routes.layer(from_fn(move |request: Request, next: Next| {
        let is_known = host_of(request.headers(), request.uri()).is_some_and(|host| is_known(&host, &hosts));
        async move {
            match is_known {
                true => next.run(request).await,
                false => (StatusCode::MISDIRECTED_REQUEST, OTHER_HOST).into_response(),
            }
        }
    }))
}

const OTHER_HOST: &str = "This port answers to localhost, to addresses, and to the names of --monitor-host. The request names another host.\n";

/// The host that a request names, without its port.
fn host_of(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.or_else(|| uri.authority().cloned()).map(|host| host.host().trim_matches(['[', ']']).to_lowercase())
}

fn is_known(host: &str, names: &[String]) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok() || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// Whether a host is this machine, by its name or its address.
fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// What a proxy adds. Behind one, each caller comes from this machine.
const OF_PROXIES: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Lets in a caller on this machine that names it so, and has the token: as the password of HTTP's basic
/// authentication, which browsers ask for, or as a bearer token.
async fn authorize(parts: Parts, token: Arc<str>) -> Result<Actor, Response> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let is_from_here = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    let is_named = host_of(&parts.headers, &parts.uri).is_some_and(|host| is_this_machine(&host));
    let is_direct = !OF_PROXIES.iter().any(|name| parts.headers.contains_key(*name));
    if !(is_from_here && is_named && is_direct) {
        return Err(StatusCode::NOT_FOUND.into_response());
    }
    match given(&parts.headers) {
        Some(given) if is_equal(given.as_bytes(), token.as_bytes()) => Ok(Actor::new("this machine", Access::ALL)),
        _ => {
            let asks = [(WWW_AUTHENTICATE, "Basic realm=\"idem proxy: the token is the password\"")];
            Err((StatusCode::UNAUTHORIZED, asks).into_response())
        }
    }
}

/// The token that a request brings.
fn given(headers: &HeaderMap) -> Option<String> {
    let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(given.trim().to_owned());
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(given.trim()).ok()).flatten()?;
    Some(String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned())
}

/// Compares without saying by its time where two texts differ.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;
    use tower_idempotency::MemoryStore;

    use super::*;

    const HERE: [&str; 4] = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"];
    const ELSEWHERE: [&str; 3] = ["192.0.2.7:1", "[2001:db8::1]:1", "[::ffff:192.0.2.7]:1"];
    const NAMED: [&str; 5] = ["localhost", "LOCALHOST:9090", "127.0.0.1", "[::1]:9090", "[::ffff:127.0.0.1]"];
    const NAMED_ELSE: [&str; 4] = ["pay.example", "metrics.internal", "192.0.2.7", "localhost.evil.example"];
    const THROUGH: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];
    const RIGHT: [&str; 3] = ["Bearer s3cret", "bearer  s3cret", "basic YW55b25lOnMzY3JldA=="];
    const WRONG: [&str; 5] = ["Bearer s3cre", "Bearer ", "Bearer s3crets", "Basic czNjcmV0", "Digest s3cret"];

    /// The status of the refusal; 200 where the caller is let in.
    async fn status(peer: Option<&str>, host: &str, through: Option<&str>, token: Option<&str>) -> u16 {
        let mut request = Request::get("/admin").header("host", host);
        for (name, value) in [(through, "192.0.2.1"), (token.map(|_| "authorization"), token.unwrap_or_default())] {
            request = name.into_iter().fold(request, |request, name| request.header(name, value));
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let peer = peer.map(|peer| ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        peer.into_iter().for_each(|peer| _ = parts.extensions.insert(peer));
        match authorize(parts, "s3cret".into()).await {
            Ok(_) => 200,
            Err(refused) => refused.status().as_u16(),
        }
    }

    #[tokio::test]
    async fn the_page_is_for_a_caller_that_is_here_and_says_so_and_comes_directly_and_has_the_token() {
        let peers = HERE.map(|peer| (Some(peer), true)).into_iter();
        let peers: Vec<_> = peers.chain(ELSEWHERE.map(|peer| (Some(peer), false))).chain([(None, false)]).collect();
        let hosts: Vec<_> =
            NAMED.map(|host| (host, true)).into_iter().chain(NAMED_ELSE.map(|host| (host, false))).collect();
        let ways: Vec<_> = THROUGH.map(|name| (Some(name), false)).into_iter().chain([(None, true)]).collect();
        let tokens = RIGHT.map(|token| (Some(token), true)).into_iter();
        let tokens: Vec<_> = tokens.chain(WRONG.map(|token| (Some(token), false))).chain([(None, false)]).collect();
        for (peer, is_here) in &peers {
            for (host, is_named) in &hosts {
                for (way, is_direct) in &ways {
                    for (token, is_right) in &tokens {
                        let expected = match (*is_here && *is_named && *is_direct, is_right) {
                            (false, _) => 404,
                            (true, false) => 401,
                            (true, true) => 200,
                        };
                        let found = status(*peer, host, *way, *token).await;
                        assert_eq!(found, expected, "{peer:?} {host} {way:?} {token:?}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn there_is_no_page_without_a_token_or_with_an_empty_one() {
        for (token, given, expected) in [
            (None, "Bearer ", 404),
            (Some(""), "Bearer ", 404),
            // `:`, as a browser sends it where nothing was entered.
            (Some(""), "Basic Og==", 404),
            (Some("s3cret"), "Bearer ", 401),
            (Some("s3cret"), "Basic Og==", 401),
            (Some("s3cret"), "Bearer s3cret", 200),
        ] {
            let layer = IdempotencyLayer::new(AnyStore::new(MemoryStore::new()));
            let recorder = PrometheusBuilder::new().build_recorder().handle();
            let routes = routes(&layer, recorder, Monitor { token: token.map(str::to_owned), ..Monitor::default() });
            let request = Request::get("/admin").header("host", "localhost").header("authorization", given);
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
            let answer = routes.oneshot(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), expected, "{token:?} {given}");
        }
    }

    #[test]
    fn the_host_is_that_of_the_head_and_else_that_of_the_target() {
        let names = ["Metrics.internal".to_owned()];
        for (host, uri, expected) in [
            (Some("localhost:9090"), "/", true),
            (Some("localhost"), "http://evil.example/", true),
            (Some("evil.example"), "http://localhost/", false),
            (Some("metrics.INTERNAL:1"), "/", true),
            (Some("metrics.internal.evil.example"), "/", false),
            (Some("[2001:db8::1]:9090"), "/", true),
            // HTTP/2 has it in the target.
            (None, "http://localhost:9090/", true),
            (None, "http://evil.example/", false),
            (None, "/", false),
        ] {
            let headers = host.into_iter().map(|host| (HOST, host.parse().unwrap())).collect();
            let found = host_of(&headers, &uri.parse().unwrap()).is_some_and(|host| is_known(&host, &names));
            assert_eq!(found, expected, "{host:?} {uri}");
        }
    }
}
