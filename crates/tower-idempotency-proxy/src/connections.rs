//! Connections of clients: HTTP/1.1 and HTTP/2, bounded in time and number.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tower::{Service, ServiceExt as _};

use crate::body::Whole;
use crate::places::{Place, Places};
use crate::read_on::ReadOn;

/// How long a client may take for the head of a request, and for the next request on its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a client of HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// The most requests at a time on a connection of HTTP/2.
const STREAMS: u32 = 100;
/// The bytes of a request on such a connection that wait until they are read on, and those of all: one that is not read
/// takes no room from the others. A gateway has the requests of many clients on one connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// The pause after a connection could not be accepted, because too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// The least time between two log lines about connections that are closed.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// The most bytes of a request's head, and those that wait to be written to a client.
const MAX_HEAD: u32 = 64 * 1024;

/// How many connections there are.
pub(crate) enum Room {
    /// As many as places: others wait in the listener's queue, and those of one client beyond its share are closed.
    Shares(Places),
    /// The latest ones: the others are cut. So no number of those that say nothing keeps another one out.
    Latest(usize),
}

/// Serves `app`, until `stop`. After `stop` no connection is accepted, and each finishes the
/// request under way. Connections that are open when the future is dropped are cut.
pub(crate) async fn serve<S>(listener: TcpListener, app: S, room: Room, stop: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD as usize);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_TIMEOUT);
    http.http2().max_concurrent_streams(STREAMS).max_header_list_size(MAX_HEAD).max_send_buf_size(1);
    http.http2().initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (mut open, graceful, mut refused) = (JoinSet::new(), GracefulShutdown::new(), Refused::default());
    let mut latest = VecDeque::<AbortHandle>::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if !matches!(&room, Room::Shares(places) if places.are_taken()) => match accepted {
                Ok((stream, peer)) => {
                    let place = if let Room::Shares(places) = &room { places.take(Some(peer.ip())) } else { None };
                    match (&room, place) {
                        (Room::Shares(places), None) => refused.note(peer, places),
                        (_, place) => {
                            let task = open.spawn(connection(&http, &graceful, stream, place, peer, app.clone()));
                            if let Room::Latest(most) = room {
                                latest.retain(|task| !task.is_finished());
                                latest.push_back(task);
                                latest.drain(..latest.len().saturating_sub(most)).for_each(|task| task.abort());
                            }
                        }
                    }
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

/// The connections that are closed because their client has its share, since the last log line about them.
#[derive(Default)]
struct Refused {
    count: u64,
    said: Option<Instant>,
}

impl Refused {
    /// Counts one, and logs at most once a minute.
    fn note(&mut self, peer: SocketAddr, places: &Places) {
        metrics::counter!("idempotency_proxy_refused_connections_total").increment(1);
        self.count += 1;
        if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            let (client, share, count) = (peer.ip(), places.share(), std::mem::take(&mut self.count));
            tracing::warn!(
                %client, share, count,
                "a client has its share of the connections, and those beyond it are closed; allow the process more files"
            );
            self.said = Some(Instant::now());
        }
    }
}

fn connection<S>(
    http: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    place: Option<Place>,
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
        let must_say_its_end = request.version() == Version::HTTP_2;
        request.map(|body| Body::new(Whole::new(body, must_say_its_end)))
    });
    let stream = TokioIo::new(ReadOn::new(stream, place));
    let connection = http.serve_connection(stream, TowerToHyperService::new(app)).into_owned();
    let connection = graceful.watch(connection);
    async move {
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // hyper has no timeout for the bytes by which it tells the versions of HTTP apart.
            first = tokio::time::timeout(HEAD_TIMEOUT, began.notified()) => match first {
                Ok(()) => connection.await,
                Err(_) => return,
            },
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection has ended");
        }
    }
}

#[cfg(test)]
mod tests;
