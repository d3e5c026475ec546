//! A client's stream that is read on for a while after the server has closed its side.
//!
//! If a stream is closed while bytes of its client are unread, the system resets it, and a client that sends all of its
//! request before it reads loses an answer that came before, such as a 413.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The longest time that a client is read on, and that it may pause.
const LONGEST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(2);
/// The most bytes that are read on.
const MOST: u64 = 256 * 1024 * 1024;
/// The bytes that are read, and dropped, at a time.
const CHUNK: usize = 16 * 1024;

/// A stream that is given back when it is dropped.
pub(crate) struct GivenBack(Option<(TcpStream, oneshot::Sender<TcpStream>)>);

impl GivenBack {
    pub(crate) fn new(stream: TcpStream) -> (Self, oneshot::Receiver<TcpStream>) {
        let (give, given) = oneshot::channel();
        (Self(Some((stream, give))), given)
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        let (stream, _) = self.get_mut().0.as_mut().unwrap_or_else(|| unreachable!("it is not dropped"));
        Pin::new(stream)
    }
}

impl Drop for GivenBack {
    fn drop(&mut self) {
        if let Some((stream, give)) = self.0.take() {
            // Nothing waits for it where the whole connection is dropped.
            let _ = give.send(stream);
        }
    }
}

/// Ends a connection: closes this side, and reads until the client has closed its own.
pub(crate) async fn read_on(mut stream: TcpStream) {
    let reading = async {
        stream.shutdown().await?;
        let (mut rest, mut dropped) = (stream.take(MOST), vec![0; CHUNK]);
        while let Ok(Ok(1..)) = timeout(PAUSE, rest.read(&mut dropped)).await {}
        io::Result::Ok(())
    };
    // The client is gone, or it has had its time.
    let _ = timeout(LONGEST, reading).await;
}

impl AsyncRead for GivenBack {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for GivenBack {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(|(stream, _)| stream.is_write_vectored())
    }
}
