//! The service behind the proxy.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::header::TRANSFER_ENCODING;
use http::uri::{Authority, Scheme};
use http::{Extensions, HeaderName, HeaderValue, Request, StatusCode, Uri};
use hyper::body::Body as _;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};
use tower_idempotency::IdempotencyContext;
use tower_idempotency::server::Envelope;

use crate::{answer, head};

/// The longest time until a connection is there.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next request. Servers close theirs after 2 seconds and more, and a request
/// that is sent at that moment is lost: the proxy can't know whether it was read.
const IDLE: Duration = Duration::from_secs(1);
/// How often a service of HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// The step from which the service's key is derived.
pub(crate) const STEP: &str = "upstream";

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// The service behind the proxy: passes requests on. Its answers have the [marks](tower_idempotency::Release) by which
/// the layer knows what they mean, so put an [`IdempotencyLayer`](tower_idempotency::IdempotencyLayer) around it.
///
/// A request within an exchange gets the key that is derived for the step `upstream`, in place of the client's: the
/// same one in every attempt, another one for every client. A request that could not be sent is answered with 503 and
/// frees its key; a connection that breaks later is answered with 502, and it is unknown whether the operation took
/// place.
#[derive(Debug, Clone)]
pub struct Upstream {
    client: Client<Connector, Body>,
    target: Arc<Target>,
}

#[derive(Debug, Clone)]
struct Target {
    origin: (Scheme, Authority),
    key_header: HeaderName,
    is_http2: bool,
    envelope: Envelope,
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

    /// As [`new`](Self::new), and speaks HTTP/2 only: without TLS by prior knowledge (RFC 9113, section 3.3).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn http2(origin: Uri) -> Result<Self, UpstreamError> {
        Self::with(origin, true)
    }

    fn with(origin: Uri, is_http2: bool) -> Result<Self, UpstreamError> {
        let scheme = origin.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme)).cloned();
        let authority = origin.authority().filter(|authority| !authority.as_str().contains('@')).cloned();
        let is_origin = origin.path_and_query().is_none_or(|path| path.as_str() == "/");
        let (Some(scheme), Some(authority), true) = (scheme, authority, is_origin) else {
            return Err(UpstreamError::Origin);
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls(scheme == Scheme::HTTPS)?).https_or_http();
        let connector = match is_http2 {
            true => tls.enable_http2().wrap_connector(connector),
            false => tls.enable_http1().wrap_connector(connector),
        };
        // Name, TCP and TLS together.
        let connector = BoxCloneSyncService::new(Timeout::new(connector, CONNECTED_WITHIN));
        let mut client = Client::builder(TokioExecutor::new());
        client.http2_only(is_http2).pool_timer(TokioTimer::new()).timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        client.http2_keep_alive_interval(PING_EVERY).http2_keep_alive_timeout(PONG_WITHIN);
        let key_header = HeaderName::from_static("idempotency-key");
        let (origin, envelope) = ((scheme, authority), Envelope::Problem);
        let target = Arc::new(Target { origin, key_header, is_http2, envelope });
        Ok(Self { client: client.build(connector), target })
    }

    /// Sets the header that has the key, as the layer's
    /// [`header_name`](tower_idempotency::IdempotencyLayer::header_name). Default: `Idempotency-Key`.
    #[must_use]
    pub fn key_header(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.target).key_header = name;
        self
    }

    /// Sets the form of the answers that are the proxy's own, as the layer's
    /// [`Profile::envelope`](tower_idempotency::server::Profile::envelope). Default: problems (RFC 9457).
    #[must_use]
    pub fn envelope(mut self, envelope: Envelope) -> Self {
        Arc::make_mut(&mut self.target).envelope = envelope;
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
    /// Makes a request one for the service.
    /// A request that is not within an exchange has no key there: what comes in this header is the proxy's.
    fn request(&self, request: Request<Body>) -> Result<Request<Body>, head::NotForwarded> {
        let (mut parts, body) = request.into_parts();
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
        let key = parts.extensions.get::<IdempotencyContext>().map(|context| context.derived_key(STEP));
        head::forward(&mut parts, &self.origin, peer, self.is_http2)?;
        parts.headers.remove(&self.key_header);
        if !self.is_http2 && !body.is_end_stream() && body.size_hint().exact().is_none() {
            // hyper sends no body with a GET unless the head has one.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(key) = key.and_then(|key| HeaderValue::from_str(&key).ok()) {
            parts.headers.insert(&self.key_header, key);
        }
        parts.extensions = Extensions::new();
        Ok(Request::from_parts(parts, body))
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
        let envelope = self.target.envelope;
        let context = request.extensions().get::<IdempotencyContext>();
        let is_answered = context.is_some_and(IdempotencyContext::answers_retries);
        let request = match self.target.request(request) {
            Ok(request) => request,
            Err(why) => return Box::pin(std::future::ready(Ok(answer::not_forwarded(envelope, why)))),
        };
        let answering = self.client.request(request);
        Box::pin(async move {
            Ok(match answering.await {
                // No upgrade was asked for.
                Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    answer::broken(envelope, is_answered)
                }
                Ok(answer) => answer::of_service(answer),
                Err(error) if error.is_connect() => {
                    failed("not-reached", &error);
                    answer::not_reached(envelope)
                }
                Err(error) => {
                    failed("broken", &error);
                    answer::broken(envelope, is_answered)
                }
            })
        })
    }
}

/// Counts a request that the service has not answered.
fn failed(kind: &'static str, error: &hyper_util::client::legacy::Error) {
    metrics::counter!("idempotency_proxy_unanswered_total", "kind" => kind).increment(1);
    tracing::debug!(kind, error = error as &dyn std::error::Error, "the service has not answered");
}
