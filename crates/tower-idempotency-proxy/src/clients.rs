//! The connections to the service.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt as _};

use crate::places::Place;
use crate::reading::Reading;

/// How long a connection is kept for the next request. Servers close theirs after 2 seconds and more, and a request
/// that is sent at that moment is lost: the proxy can't know whether it was read.
const IDLE: Duration = Duration::from_secs(1);
/// How often a service of HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// The most connections that are kept for the next request. They are within the reserve of files.
const MAX_IDLE: usize = 64;
/// What comes from a service and is not passed on yet, of each connection: also the longest head of an answer.
const BUFFER: u32 = 64 * 1024;
/// The most headers of an answer. Each of them takes some 100 bytes while it is read.
const MAX_HEADERS: usize = 1_000;

/// Makes a connection, perhaps with TLS.
pub(crate) type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<Reading<TokioIo<TcpStream>>>, BoxError>;
type HttpClient =
    Client<BoxCloneSyncService<Uri, Reading<MaybeHttpsStream<Reading<TokioIo<TcpStream>>>>, BoxError>, Body>;

/// The connections to the service, each of which has one request at a time. Over HTTP/2, too: on a connection that all
/// requests share, a single client could take all streams, or the window, and the others would wait unsent.
///
/// What a service of HTTP/1.1 sends after the end of an answer, such as a second answer, would be read as that to the
/// next request on the connection. So a request whose answer may be recorded has a new one, and no other request
/// follows on it.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    /// Of HTTP/1.1: one that makes a new connection for each request, and one that keeps them for the next.
    of_http1: Option<(HttpClient, HttpClient)>,
    builder: Builder,
    connector: Connector,
    /// Of HTTP/2, never two connections are in a pool.
    free: Free,
}

/// The clients of HTTP/2 that have no request.
type Free = Arc<Mutex<Vec<Http2>>>;

/// A client of HTTP/2, and whether a head has come for its request.
#[derive(Debug, Clone)]
struct Http2(HttpClient, Arc<AtomicBool>);

/// What a request has until it and its answer have ended.
pub(crate) struct Taken {
    pub(crate) client: HttpClient,
    /// Over HTTP/2: whether a head has come, and where the client goes then.
    http2: Option<(Arc<AtomicBool>, Free)>,
    _place: Place,
}

impl Clients {
    pub(crate) fn new(connector: Connector, is_http2: bool) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        // What a proxy has to put up with, or to mend (RFC 9112, sections 5.1 and 5.2): an order was made all the same.
        builder.http1_allow_spaces_after_header_name_in_responses(true);
        builder.http1_allow_obsolete_multiline_headers_in_responses(true);
        builder.http1_ignore_invalid_headers_in_responses(true).http1_max_headers(MAX_HEADERS);
        builder.http2_only(is_http2).pool_timer(TokioTimer::new()).timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        builder.pool_max_idle_per_host(MAX_IDLE).http1_max_buf_size(BUFFER as usize);
        builder.http2_initial_stream_window_size(BUFFER).http2_initial_connection_window_size(BUFFER);
        builder.http2_keep_alive_interval(PING_EVERY).http2_keep_alive_timeout(PONG_TIMEOUT);
        let of_http1 = (!is_http2).then(|| {
            let plain = BoxCloneSyncService::new(connector.clone().map_response(Reading::new as fn(_) -> _));
            (builder.clone().pool_max_idle_per_host(0).build(plain.clone()), builder.build(plain))
        });
        Self { of_http1, builder, connector, free: Arc::default() }
    }

    /// `may_follow`: the request may have a connection of HTTP/1.1 that another one has had before.
    pub(crate) fn take(&self, place: Place, may_follow: bool) -> Taken {
        if let Some((fresh, kept)) = &self.of_http1 {
            let client = if may_follow { kept } else { fresh }.clone();
            return Taken { client, http2: None, _place: place };
        }
        // The one that was used last has a connection most likely.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Http2(client, has_head) = free.unwrap_or_else(|| {
            let has_head = Arc::new(AtomicBool::new(false));
            let notes = Arc::clone(&has_head);
            let noted = self.connector.clone().map_response(move |io| Reading::noting(io, Arc::clone(&notes)));
            Http2(self.builder.build(BoxCloneSyncService::new(noted)), has_head)
        });
        has_head.store(false, Ordering::Relaxed);
        Taken { client, http2: Some((has_head, Arc::clone(&self.free))), _place: place }
    }
}

impl Taken {
    /// Returns whether a head has come over HTTP/2, also an interim one.
    pub(crate) fn has_head(&self) -> bool {
        self.http2.as_ref().is_some_and(|(has_head, _)| has_head.load(Ordering::Relaxed))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some((has_head, free)) = &self.http2 else { return };
        let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MAX_IDLE {
            free.push(Http2(self.client.clone(), Arc::clone(has_head)));
        }
    }
}

#[cfg(test)]
mod tests;
