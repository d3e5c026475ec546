//! The service behind the proxy.

use std::convert::Infallible;
use std::iter::successors;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use futures_util::future::BoxFuture;
use h2::Reason;
use http::header::{ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{Extensions, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::Body as _;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connected, HttpConnector, capture_connection};
use rustls::{ClientConfig, RootCertStore};
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};
use tower_idempotency::IdempotencyContext;
use tower_idempotency::server::Envelope;

use crate::answer::Unanswered;
use crate::body::Held;
use crate::clients::Clients;
use crate::places::Places;
use crate::reading::Reading;
use crate::{answer, head};

/// The longest time until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request without a key may wait, unless that is set.
const PASS_TIMEOUT: Duration = Duration::from_secs(600);
/// The step from which the service's key is derived.
pub(crate) const STEP: &str = "upstream";

/// The service behind the proxy: passes requests on. Its answers have the [marks](tower_idempotency::Release) by which
/// the layer knows what they mean, so put an [`IdempotencyLayer`](tower_idempotency::IdempotencyLayer) around it.
///
/// A request within an exchange gets the key that is derived for the step `upstream`, in place of the client's: the
/// same one in every attempt, and another one for every scope. Without a
/// [`scope`](tower_idempotency::IdempotencyLayer::scope), two clients that choose one key for equal requests get one
/// derived key. Such a request goes out with `Accept-Encoding: identity`: its retry may not understand what the first
/// one's client does.
///
/// A request that could not be sent, or that a service of HTTP/2 has refused unprocessed, is answered with 503 and its
/// key is free; a connection that breaks later is answered with 502, and it is unknown whether the operation took
/// place.
///
/// At most half of the files that the process may open, less a reserve of 448, are connections to the service, and at
/// most half of those for the requests of one client's address. A request beyond that is answered with 503. The process
/// raises its soft limit of open files to the hard one.
#[derive(Debug, Clone)]
pub struct Upstream {
    clients: Clients,
    target: Arc<Target>,
    places: Places,
}

/// Marks an answer that is passed on as it comes, and is not in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed;

#[derive(Debug, Clone)]
struct Target {
    origin: (Scheme, Authority),
    key_header: HeaderName,
    is_http2: bool,
    envelope: Envelope,
    /// How long a request without a key may wait for its answer, and for each part of it.
    passed_within: Duration,
    /// Whether the proxy answers CORS, so that what the service says of it is left out.
    answers_cors: bool,
}

/// The URL of a service is not one of an origin, or its certificates can't be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// It is not `http://` or `https://`, a host, and perhaps a port.
    #[error("that is no origin of a service: write it as http://127.0.0.1:3000, without a path or a password")]
    Origin,
    /// The machine trusts no certificate, so that no `https://` service can be believed.
    #[error("this machine has no certificates that it trusts: install those of its system, such as ca-certificates")]
    Certificates,
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[source] rustls::Error),
}

impl Upstream {
    /// Returns the service at `http://HOST:PORT`, or `https://` with the certificates that the machine trusts. It is
    /// not connected to yet. It speaks HTTP/1.1.
    ///
    /// # Errors
    /// [`UpstreamError`] names what is wrong.
    pub fn new(origin: Uri) -> Result<Self, UpstreamError> {
        Self::with(origin, false)
    }

    /// As [`new`](Self::new), and speaks HTTP/2 only: without TLS by prior knowledge (RFC 9113, section 3.3). Each
    /// connection has one request at a time.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn http2(origin: Uri) -> Result<Self, UpstreamError> {
        Self::with(origin, true)
    }

    fn with(origin: Uri, is_http2: bool) -> Result<Self, UpstreamError> {
        let scheme = origin.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme)).cloned();
        // A password with `#` in it ends the URL, and looks like a port.
        let has_port = |authority: &Authority| authority.port_u16().is_some_and(|port| port > 0);
        let is_place = |authority: &&Authority| {
            !authority.as_str().contains('@') && (authority.as_str() == authority.host() || has_port(authority))
        };
        let authority = origin.authority().filter(is_place).cloned();
        let is_origin = origin.path_and_query().is_none_or(|path| path.as_str() == "/");
        let (Some(scheme), Some(authority), true) = (scheme, authority, is_origin) else {
            return Err(UpstreamError::Origin);
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = connector.map_response(Reading::new as fn(_) -> _);
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls(scheme == Scheme::HTTPS)?).https_or_http();
        let connector = match is_http2 {
            true => tls.enable_http2().wrap_connector(connector),
            false => tls.enable_http1().wrap_connector(connector),
        };
        // Name, TCP and TLS together.
        let connector = BoxCloneSyncService::new(Timeout::new(connector, CONNECT_TIMEOUT));
        let key_header = HeaderName::from_static("idempotency-key");
        let (origin, envelope) = ((scheme, authority), Envelope::Problem);
        let (passed_within, answers_cors) = (PASS_TIMEOUT, false);
        let target = Arc::new(Target { origin, key_header, is_http2, envelope, passed_within, answers_cors });
        let clients = Clients::new(connector, is_http2);
        Ok(Self { clients, target, places: Places::of_process() })
    }

    /// Sets the header that has the key, as the layer's
    /// [`header_name`](tower_idempotency::IdempotencyLayer::header_name). Default: `Idempotency-Key`.
    #[must_use]
    pub fn key_header(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.target).key_header = name;
        self
    }

    /// Sets the form of the answers that are the proxy's own, as the layer's
    /// [`Profile::envelope`](tower_idempotency::server::Profile::envelope). By it, the proxy also knows what the
    /// service's answers mean in that dialect. Default: problems (RFC 9457).
    #[must_use]
    pub fn envelope(mut self, envelope: Envelope) -> Self {
        Arc::make_mut(&mut self.target).envelope = envelope;
        self
    }

    /// Sets how long a request without a key waits for the head of its answer, its own body included; after that it is
    /// answered with 504. A request with a key has the layer's
    /// [`max_run`](tower_idempotency::IdempotencyLayer::max_run). It is also how long any body may pause while the
    /// proxy waits for its next part; after that it is cut. Default: 10 minutes.
    #[must_use]
    pub fn passed_within(mut self, time: Duration) -> Self {
        Arc::make_mut(&mut self.target).passed_within = time;
        self
    }

    /// The answer to a request for which there is no place, or none for its recorded answer.
    pub(crate) fn overloaded(&self, is_answered: bool) -> Response {
        count("overloaded");
        answer::busy(self.target.envelope, is_answered)
    }

    /// Leaves out what the service says of CORS, because the proxy does so.
    pub(crate) fn without_cors(mut self) -> Self {
        Arc::make_mut(&mut self.target).answers_cors = true;
        self
    }
}

/// Returns the settings of TLS: without it, no certificate is needed.
fn tls(is_used: bool) -> Result<ClientConfig, UpstreamError> {
    let mut roots = RootCertStore::empty();
    if is_used {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(UpstreamError::Certificates);
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(UpstreamError::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl Target {
    /// Makes a request one for the service. A request that is not within an exchange has no key there: what comes in
    /// this header is the proxy's.
    fn request(&self, request: Request<Body>, client: Option<IpAddr>) -> Result<Request<Body>, head::NotForwarded> {
        let (mut parts, body) = request.into_parts();
        let key = parts.extensions.get::<IdempotencyContext>().map(|context| context.derived_key(STEP));
        head::forward(&mut parts, &self.origin, client, self.is_http2)?;
        let own = parts.headers.remove(&self.key_header);
        if own.is_some() && key.is_none() && !parts.method.is_safe() {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                let method = &parts.method;
                tracing::warn!(
                    %method,
                    "a request that is not covered has a key, which the service does not get; name its method in `methods`"
                );
            });
        }
        if !self.is_http2 && !body.is_end_stream() && body.size_hint().exact().is_none() {
            // hyper sends no body with a GET unless the head has one.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(key) = key.and_then(|key| HeaderValue::from_str(&key).ok()) {
            parts.headers.insert(&self.key_header, key);
            parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        parts.extensions = Extensions::new();
        Ok(Request::from_parts(parts, body))
    }

    /// Leaves out what the service says of CORS, if the proxy says it. Otherwise warns once: no replay has it.
    fn cors(&self, headers: &mut HeaderMap, is_covered: bool) {
        static WARNED: Once = Once::new();
        if self.answers_cors {
            head::remove(headers, |name| name.as_str().starts_with("access-control-"));
        } else if is_covered && headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            WARNED.call_once(|| {
                tracing::warn!(
                    "the service answers CORS by itself: replays and refusals lack its headers, so that scripts of other \
                     origins can't read them; let the proxy answer CORS"
                );
            });
        }
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Target { envelope, passed_within, .. } = *self.target;
        let context = request.extensions().get::<IdempotencyContext>();
        let is_answered = context.map(IdempotencyContext::answers_retries);
        let run = context.map(|context| context.rerun());
        // One with a key has the layer's limit.
        let passed = context.is_none().then_some(passed_within);
        let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let Some(place) = self.places.take(client) else {
            return Box::pin(std::future::ready(Ok(self.overloaded(false))));
        };
        // The two sides may see the end of a body, or of the answer to a HEAD, in different places.
        let may_follow = context.is_none() && request.body().is_end_stream() && request.method() != Method::HEAD;
        let mut request = match self.target.request(request, client) {
            Ok(request) => request,
            Err(why) => return Box::pin(std::future::ready(Ok(answer::not_forwarded(envelope, why)))),
        };
        // A service may answer before it has read the request: the connection is taken until both have ended.
        let taken = Arc::new(self.clients.take(place, may_follow));
        let connection = capture_connection(&mut request);
        let sent = Arc::clone(&taken);
        let request = request.map(|body| Held::new(body, false, passed_within, sent).without_trailers());
        let is_begun = request.body().is_begun();
        let request = request.map(Body::new);
        let (answering, target) = (taken.client.request(request), Arc::clone(&self.target));
        Box::pin(async move {
            let answered = match passed {
                Some(within) => tokio::time::timeout(within, answering).await,
                None => Ok(answering.await),
            };
            Ok(match answered {
                // No upgrade was asked for.
                Ok(Ok(answer)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    count("unreadable");
                    tracing::warn!("the service has switched protocols unasked, so that its outcome is unknown");
                    answer::unanswered(envelope, Unanswered::Unreadable, is_answered)
                }
                Ok(Ok(mut answer)) => {
                    if !target.is_http2 && matches!(answer.status().as_u16(), 204 | 205 | 304) {
                        // What comes after such a head would be the answer to the next request.
                        connection.connection_metadata().iter().for_each(Connected::poison);
                    }
                    head::with_one_length(answer.headers_mut());
                    let held = |body, must_say_its_end| Held::new(body, must_say_its_end, passed_within, taken);
                    let mut answer = answer::of_service(answer, held, run, envelope);
                    target.cors(answer.headers_mut(), passed.is_none());
                    if passed.is_some() {
                        answer.extensions_mut().insert(Passed);
                    } else {
                        // It is the service's, and not the client's: a profile that repeats the key adds that one.
                        answer.headers_mut().remove(&target.key_header);
                    }
                    answer
                }
                Ok(Err(error)) if error.is_connect() => {
                    failed("not-reached", &error);
                    answer::not_reached(envelope)
                }
                Ok(Err(error)) if !taken.has_head() && is_refused(&error, is_begun.load(Ordering::Relaxed)) => {
                    failed("refused", &error);
                    answer::refused(envelope)
                }
                Ok(Err(error)) => {
                    let is_parse = std::error::Error::source(&error)
                        .and_then(|error| error.downcast_ref::<hyper::Error>())
                        .is_some_and(hyper::Error::is_parse);
                    let (kind, why) = match is_parse {
                        true => ("unreadable", Unanswered::Unreadable),
                        false => ("broken", Unanswered::Broken),
                    };
                    failed(kind, &error);
                    answer::unanswered(envelope, why, is_answered)
                }
                Err(_) => {
                    count("late");
                    answer::unanswered(envelope, Unanswered::Late, is_answered)
                }
            })
        })
    }
}

/// Whether a service of HTTP/2 has said that it did not process the request (RFC 9113, section 8.7): by a reset that
/// says so, or by a GOAWAY that names an earlier stream as its last, unless an interim answer has come. h2 fails no
/// other stream with the remote's GOAWAY: those that it includes go on, and fail by an error of the connection if that
/// ends. But hyper takes any GOAWAY for the stream's, if it comes before hyper has asked for the request's body. So
/// does it if there is none.
fn is_refused(error: &hyper_util::client::legacy::Error, is_body_begun: bool) -> bool {
    let causes = successors(std::error::Error::source(error), |error| error.source());
    causes.filter_map(|error| error.downcast_ref::<h2::Error>()).any(|error| {
        let is_reset = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        error.is_remote() && (is_reset || error.is_go_away() && is_body_begun)
    })
}

/// Counts a request that got no answer of the service: it has not answered, or there was no place for its answer.
fn count(kind: &'static str) {
    metrics::counter!("idempotency_proxy_unanswered_total", "kind" => kind).increment(1);
}

/// Counts and logs a request that the service has not answered. What it has answered and can't be read is for its
/// developers.
fn failed(kind: &'static str, error: &hyper_util::client::legacy::Error) {
    count(kind);
    let error = error as &dyn std::error::Error;
    if kind == "unreadable" {
        let why = error.source().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(why, "the service's answer can't be read, so that its outcome is unknown");
    } else {
        tracing::debug!(kind, error, "the service has not answered");
    }
}

#[cfg(test)]
mod tests;
