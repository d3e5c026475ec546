//! The alien: a client service that sends each request over a connection of its own, and does to it what is decided.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

use crate::counts::{Payment, Side, Story};
use crate::fate::{Fate, Mischief};

/// Sits between customers and the servers of one side.
#[derive(Debug, Clone)]
pub(crate) struct Alien {
    pub(crate) seed: u64,
    /// How many of a hundred attempts meet mischief.
    pub(crate) evil: u64,
    /// Set at the end: it lets all pass.
    pub(crate) rests: Arc<AtomicBool>,
    pub(crate) servers: Arc<[SocketAddr]>,
    pub(crate) side: Side,
    pub(crate) story: Story,
}

impl Alien {
    fn fate(&self, payment: &Payment, attempt: u32) -> Fate {
        if self.rests.load(Ordering::SeqCst) {
            return Fate::PASS;
        }
        Fate::of(self.seed, payment.customer, payment.order, attempt, self.evil)
    }

    async fn carry(self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
        let payment = request.extensions().get::<Payment>().cloned().ok_or("no payment")?;
        let attempt = payment.attempts.fetch_add(1, Ordering::SeqCst);
        let fate = self.fate(&payment, attempt);
        // Another server each time.
        let at = (payment.customer + payment.order + attempt) as usize % self.servers.len();
        let server = self.servers[at];
        let tell = |what: String| self.story.tell(self.side, &payment, what);
        self.story.count(self.side, attempt, fate.mischief);
        tell(format!("customer {} sends attempt {} to server {}", payment.customer, attempt + 1, at + 1));
        if fate.mischief != Mischief::None {
            let bytes = if fate.bytes < usize::MAX { format!(" after {} bytes", fate.bytes) } else { String::new() };
            tell(format!("the alien {}{bytes}", fate.mischief.text()));
        }
        tokio::time::sleep(fate.delay).await;
        match fate.mischief {
            Mischief::RequestSwallowed => std::future::pending().await,
            Mischief::AnswerSwallowed => {
                let _ = send(server, request).await;
                std::future::pending().await
            }
            Mischief::Duplicated => {
                let again = request.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    // What comes back is no customer's.
                    let _ = send(server, again).await;
                });
                send(server, request).await
            }
            Mischief::RequestCut => send_cut(server, request, fate.bytes, usize::MAX).await,
            Mischief::AnswerCut => send_cut(server, request, usize::MAX, fate.bytes).await,
            Mischief::None | Mischief::Reordered => send(server, request).await,
        }
    }
}

impl Service<Request<Full<Bytes>>> for Alien {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().carry(request))
    }
}

/// Sends a request over a connection of its own.
pub(crate) async fn send(server: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    send_cut(server, request, usize::MAX, usize::MAX).await
}

/// The same, over one that breaks after so many bytes in either direction.
async fn send_cut(
    server: SocketAddr,
    request: Request<Full<Bytes>>,
    out: usize,
    back: usize,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let stream = Cut { stream: TcpStream::connect(server).await?, out, back };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, or breaks, which the sender learns.
    let connection = tokio::spawn(async move { _ = connection.await });
    let answer = sender.send_request(request).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Response::from_parts(head, Full::new(body)))
}

/// A connection, and how many bytes may still pass.
struct Cut {
    stream: TcpStream,
    out: usize,
    back: usize,
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the alien has cut it")
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.back == 0 {
            return Poll::Ready(Err(cut()));
        }
        let mut bytes = [0; 4096];
        let most = self.back.min(buffer.remaining()).min(bytes.len());
        let mut part = ReadBuf::new(&mut bytes[..most]);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled();
        buffer.put_slice(read);
        self.back -= read.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.out == 0 {
            return Poll::Ready(Err(cut()));
        }
        let most = bytes.len().min(self.out);
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..most]))?;
        self.out -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
