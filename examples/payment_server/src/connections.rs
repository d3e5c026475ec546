//! Connections: they are accepted, and bounded in time and number.
//!
//! A client that stalls, in the middle of a head or between requests, holds its connection. While the server runs, such
//! a connection is closed after a while; when the server stops, [`Shutdown`](tower_idempotency::Shutdown) drops them.
//! `read_on.rs` says how a connection is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::read_on::{GivenBack, read_on};

/// The time that a connection's first request may take to come, a request's head, and the next request on an HTTP/1.1
/// connection.
const HEAD: Duration = Duration::from_secs(10);
/// The most bytes that hyper reads ahead on an HTTP/1.1 connection. The layer bounds the bytes that it has taken of
/// bodies, and not these; hyper's default is 400 KiB.
const MOST_BUFFERED: usize = 64 * 1024;
/// The most connections at a time. Others wait until one has ended.
const MOST: usize = 8_192;
/// The interval of pings to an HTTP/2 client, and the longest time until its answer.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// The open connections. They end when this is dropped.
struct Connections {
    open: JoinSet<()>,
    graceful: GracefulShutdown,
}

/// Serves `app`. After `stop`, no connection is accepted, and each finishes the request under way.
pub(crate) async fn serve(listener: TcpListener, app: Router, stop: impl Future<Output = ()>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MOST_BUFFERED);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_WITHIN);
    let mut connections = Connections { open: JoinSet::new(), graceful: GracefulShutdown::new() };
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.open.len() < MOST => accepted,
            Some(_) = connections.open.join_next() => continue,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => connections.add(&builder, stream, peer, app.clone()),
            Err(error) => refused(&error).await,
        }
    }
    drop((listener, app));
    connections.graceful.shutdown().await;
}

/// Handles a connection that could not be accepted. If the client has gone, this does nothing. If too many files are
/// open, this logs it and waits, because that takes a moment to change.
async fn refused(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::error!(%error, "accepting a connection failed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Connections {
    fn add(&mut self, builder: &Builder<TokioExecutor>, stream: TcpStream, peer: SocketAddr, app: Router) {
        // An answer is one small write, so it is sent without a delay.
        let _ = stream.set_nodelay(true);
        let begun = Arc::new(Notify::new());
        let begins = Arc::clone(&begun);
        let app = app.map_request(move |mut request: Request<hyper::body::Incoming>| {
            begins.notify_one();
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let (stream, given_back) = GivenBack::new(stream);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).into_owned();
        let connection = self.graceful.watch(connection);
        let serving = async move {
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                first = timeout(HEAD, begun.notified()) => match first {
                    Ok(()) => connection.await,
                    // hyper has no timeout for the bytes that come before it knows the version of HTTP.
                    Err(_) => return,
                },
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection ended");
            }
        };
        self.open.spawn(async move {
            serving.await;
            if let Ok(stream) = given_back.await {
                read_on(stream).await;
            }
        });
    }
}
