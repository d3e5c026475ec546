//! A connection to the service on which an answer is read although nothing more can be sent; and over HTTP/2, which
//! notes that a head has come.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// The bytes that are read at a time where frames are noted.
const CHUNK: usize = 8 * 1024;
/// The type of a frame that has a head.
const HEADERS: u8 = 1;

/// A connection on which an answer is read although the service takes no more of the request. A service may refuse one
/// before it has read all of it, and close: then a write fails, and hyper would give up without a look at the answer
/// that has come. Here what can't be sent any more is dropped, and the read that follows has the answer or the end.
#[derive(Debug)]
pub(crate) struct Reading<T> {
    inner: T,
    /// Whether a write has failed so.
    is_closed: bool,
    /// Over HTTP/2, the frames that come.
    frames: Option<Frames>,
}

/// The frames of a connection of HTTP/2 (RFC 9113, section 4.1), of which it is noted that one has a head. hyper says
/// nothing of an interim answer.
#[derive(Debug)]
struct Frames {
    /// What has come of a frame's own head, and how much is left of its content.
    head: Vec<u8>,
    left: usize,
    has_head: Arc<AtomicBool>,
}

impl Frames {
    fn note(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                (self.left, bytes) = (self.left - passed, &bytes[passed..]);
                continue;
            }
            bytes = rest;
            self.head.push(*first);
            if let [a, b, c, kind, _, _, _, _, _] = self.head[..] {
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.head.clear();
                if kind == HEADERS {
                    self.has_head.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

impl<T> Reading<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, is_closed: false, frames: None }
    }

    /// Notes when a head comes over HTTP/2.
    pub(crate) fn noting(inner: T, has_head: Arc<AtomicBool>) -> Self {
        Self { frames: Some(Frames { head: Vec::new(), left: 0, has_head }), ..Self::new(inner) }
    }

    /// What a write of so many bytes has come to.
    fn written(&mut self, written: io::Result<usize>, bytes: usize) -> io::Result<usize> {
        written.or_else(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                self.is_closed = true;
                Ok(bytes)
            }
            _ => Err(error),
        })
    }
}

impl<T: Read + Unpin> Read for Reading<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(frames) = &mut this.frames else { return Pin::new(&mut this.inner).poll_read(cx, buffer) };
        let (mut bytes, room) = ([0; CHUNK], buffer.remaining().min(CHUNK));
        let mut read = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut this.inner).poll_read(cx, read.unfilled()))?;
        frames.note(read.filled());
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Reading<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        Poll::Ready(self.written(written, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        if self.is_closed {
            return Poll::Ready(Ok(bytes));
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, parts));
        Poll::Ready(self.written(written, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: Connection> Connection for Reading<T> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

#[cfg(test)]
mod tests;
