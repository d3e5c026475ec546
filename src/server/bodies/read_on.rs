//! Reads the body of a request that is refused, so that its connection stays usable. [`Connection`] is what an answer
//! of the layer's own needs of the request's head, so that each exchange makes one first.
//!
//! An HTTP/1.1 server that answers before it has read a request's body has to close the connection. If the answer does
//! not say so, the client loses its next request on that connection. So these rules apply:
//! 1. The rest of the body is read, up to 8 MiB and for at most one second, and the connection stays usable. The bytes
//!    are dropped as they come. Many clients read only once they have sent all, and lose an answer that comes before if
//!    the server closes meanwhile.
//! 2. If that is not enough, or the body declares more, the answer says `Connection: close` (RFC 9112, section 9.6).
//! 3. A client that sent `Expect: 100-continue` waits before it sends its body (RFC 9110, section 10.1.1). Unless it
//!    was asked for the body already, the body is not polled, and the connection is closed.
//! 4. HTTP/2 and later close a stream instead of a connection, and have no such field (RFC 9113, section 8.2.2). The
//!    body is still read on, so that the stream ends without a reset.

use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::request::Parts;
use http::{Response, Version};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;
use tower_idempotency_meaning::is_of_grpc;

use crate::server::header::lines;
use crate::timeouts::within;

/// The most bytes that are read on.
const MAX_READ_ON: usize = 8 * 1024 * 1024;
/// The longest time for which a body is read on.
const READ_ON_FOR: Duration = Duration::from_secs(1);

/// The facts that decide how a rejection reaches the client of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    /// `true` if the request is a gRPC call.
    pub(crate) is_grpc: bool,
    /// `true` if the request is a probe.
    pub(crate) is_probe: bool,
    // `true` if the connection closes after an answer that came before its request was read.
    closes: bool,
    // `true` if the client waits until it is asked for the body.
    waits: bool,
}

impl Connection {
    pub(crate) fn of(parts: &Parts, is_probe: bool) -> Self {
        let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        // HTTP/1.0 has no such expectation.
        let waits = parts.version > Version::HTTP_10 && lines(&parts.headers, EXPECT).any(expects);
        let is_grpc = is_of_grpc(&parts.headers);
        Self { is_grpc, is_probe, closes: parts.version <= Version::HTTP_11, waits }
    }

    /// Returns the same facts, after the client was asked for its body.
    pub(crate) fn after_body_was_asked_for(self) -> Self {
        Self { waits: false, ..self }
    }

    /// Makes `rejection` say that the connection is closed after it.
    pub(crate) fn close<R>(self, mut rejection: Response<R>) -> Response<R> {
        if self.closes {
            rejection.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        rejection
    }

    /// Reads the rest of `body`, so that the connection stays usable. If that fails, makes `rejection` say that it is
    /// closed.
    pub(crate) async fn read_on<B: Body + Unpin, R>(self, body: B, rejection: Response<R>) -> Response<R> {
        if self.is_read(body).await { rejection } else { self.close(rejection) }
    }

    /// Reads the rest of `body`, and returns whether its end was reached.
    async fn is_read<B: Body + Unpin>(self, body: B) -> bool {
        if body.is_end_stream() {
            return true;
        }
        // Rule 3; and rule 2, for a body that declares more.
        if self.waits || body.size_hint().lower() > MAX_READ_ON as u64 {
            return false;
        }
        // Only that the body failed counts. `Limited` needs an error that can be boxed.
        let mut rest = Limited::new(body.map_err(|_| "it failed"), MAX_READ_ON);
        let reading = async {
            while let Some(frame) = rest.frame().await {
                // The body has failed, or is longer than `MAX_READ_ON`.
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        // After `READ_ON_FOR` the body counts as not read.
        within(Some(Instant::now() + READ_ON_FOR), reading).await.unwrap_or(false)
    }
}
