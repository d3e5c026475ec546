//! Connections of clients: HTTP/1.1 and HTTP/2, bounded in time and number.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt as _};

/// How long a client may take for the head of a request, and for the next request on its connection.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How often a client of HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// The most connections at a time. Others wait in the listener's queue.
const MOST: usize = 8_192;
/// The pause after a connection could not be accepted, because too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `app`, until `stop`: then no connection is accepted, and each finishes the request under way. Connections
/// that are open when the future is dropped are cut.
pub(crate) async fn serve<S>(listener: TcpListener, app: S, stop: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_WITHIN);
    let (mut open, graceful) = (JoinSet::new(), GracefulShutdown::new());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < MOST => match accepted {
                Ok((stream, peer)) => {
                    open.spawn(connection(&http, &graceful, stream, peer, app.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop((listener, app));
    graceful.shutdown().await;
}

fn connection<S>(
    http: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    peer: SocketAddr,
    app: S,
) -> impl Future<Output = ()> + use<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    // What is sent is sent at once.
    let _ = stream.set_nodelay(true);
    let began = Arc::new(Notify::new());
    let begins = Arc::clone(&began);
    let app = app.map_request(move |mut request: Request<Incoming>| {
        begins.notify_one();
        request.extensions_mut().insert(ConnectInfo(peer));
        request.map(Body::new)
    });
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).into_owned();
    let connection = graceful.watch(connection);
    async move {
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // hyper has no timeout for the bytes by which it tells the versions of HTTP apart.
            first = tokio::time::timeout(HEAD_WITHIN, began.notified()) => match first {
                Ok(()) => connection.await,
                Err(_) => return,
            },
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection has ended");
        }
    }
}
