//! A client's stream that is read on for a while after the proxy has closed its side.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::places::Place;

/// How long a client is read on in all, and how long it may pause.
const LONGEST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(2);
/// The bytes that are read, and dropped, at a time.
const CHUNK: usize = 16 * 1024;

/// A client's stream, and the place that it takes. If a stream is closed while bytes of its client are unread, the
/// system resets it, and the client may lose an answer that it has not read yet: many read only once they have sent
/// all. So this is read on when it is dropped. One without a place is cut.
#[derive(Debug)]
pub(crate) struct ReadOn {
    /// The stream and its place, until this is dropped.
    open: Option<(TcpStream, Option<Place>)>,
    /// Whether the client has closed its side.
    has_ended: bool,
}

impl ReadOn {
    pub(crate) fn new(stream: TcpStream, place: Option<Place>) -> Self {
        Self { open: Some((stream, place)), has_ended: false }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        let (stream, _) = self.get_mut().open.as_mut().unwrap_or_else(|| unreachable!("it is not dropped"));
        Pin::new(stream)
    }
}

impl Drop for ReadOn {
    fn drop(&mut self) {
        let (Some((mut stream, Some(place))), Ok(runtime)) = (self.open.take(), Handle::try_current()) else { return };
        if self.has_ended {
            return;
        }
        runtime.spawn(async move {
            let read_on = async {
                stream.shutdown().await?;
                let mut dropped = vec![0; CHUNK];
                while let Ok(Ok(1..)) = timeout(PAUSE, stream.read(&mut dropped)).await {}
                io::Result::Ok(())
            };
            // The client is gone, or it has had its time.
            let _ = timeout(LONGEST, read_on).await;
            drop(place);
        });
    }
}

impl AsyncRead for ReadOn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, had_room) = (buffer.filled().len(), buffer.remaining() > 0);
        ready!(self.as_mut().stream().poll_read(cx, buffer))?;
        self.has_ended = had_room && buffer.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadOn {
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
        self.open.as_ref().is_some_and(|(stream, _)| stream.is_write_vectored())
    }
}

#[cfg(test)]
mod tests;
