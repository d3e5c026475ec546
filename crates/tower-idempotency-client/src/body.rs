//! The bodies of requests, which an attempt may have to send again, and of answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty, Full};

/// A request's body, which a retry has to send again.
///
/// `Full` and `Empty` of http-body-util can be sent again. Wrap any other body in [`SentOnce`], or collect it into a
/// `Full` before the call.
pub trait RetryBody: Body + Sized {
    /// Returns a body that sends the same bytes from the beginning, or `None` if there can be none. It is called before
    /// each attempt, on a body of which nothing has been read.
    ///
    /// The bytes may differ where the server does not compare them, such as the `id` of a JSON-RPC call, which is new
    /// for each attempt. Then [`compared`](Self::compared) has to be the same each time.
    fn try_clone(&self) -> Option<Self>;

    /// Returns the body by which calls with the same key are compared; `None` if they are not. Default: a clone.
    fn compared(&self) -> Option<Self> {
        self.try_clone()
    }
}

impl<D: Buf + Clone> RetryBody for Full<D> {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D: Buf> RetryBody for Empty<D> {
    fn try_clone(&self) -> Option<Self> {
        Some(Self::new())
    }
}

impl<L, R> RetryBody for Either<L, R>
where
    L: RetryBody,
    R: RetryBody<Data = L::Data>,
    L::Error: Into<crate::BoxError>,
    R::Error: Into<crate::BoxError>,
{
    fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Left(body) => body.try_clone().map(Self::Left),
            Self::Right(body) => body.try_clone().map(Self::Right),
        }
    }

    fn compared(&self) -> Option<Self> {
        match self {
            Self::Left(body) => body.compared().map(Self::Left),
            Self::Right(body) => body.compared().map(Self::Right),
        }
    }
}

pin_project_lite::pin_project! {
    /// A body that can't be sent again, such as a stream. The call has one attempt, and its error is
    /// [`Reason::SentOnce`](crate::Reason::SentOnce) if that was not enough.
    #[derive(Debug, Clone, Default)]
    pub struct SentOnce<B> {
        #[pin]
        body: B,
    }
}

impl<B> SentOnce<B> {
    /// Wraps a body.
    pub fn new(body: B) -> Self {
        Self { body }
    }
}

impl<B: Body> Body for SentOnce<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> RetryBody for SentOnce<B> {
    fn try_clone(&self) -> Option<Self> {
        None
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer: what the layer has read of it, and then the rest.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // Most bodies have one frame, of data.
        first: Option<Bytes>,
        read: VecDeque<Frame<Bytes>>,
        // How many bytes the layer has read.
        length: usize,
        #[pin]
        rest: Option<B>,
    }
}

impl<B> ResponseBody<B> {
    /// A body of which nothing was read.
    pub(crate) fn untouched(body: B) -> Self {
        Self { first: None, read: VecDeque::new(), length: 0, rest: Some(body) }
    }

    /// The bytes that were read.
    pub(crate) fn bytes_read(&self) -> Bytes {
        let mut data = self.data();
        match (data.next(), data.next()) {
            (Some(only), None) => only.clone(),
            _ => self.data().flatten().copied().collect(),
        }
    }

    /// Whether all of it was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// The trailers that were read.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.read.iter().find_map(Frame::trailers_ref)
    }

    fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(self.read.iter().filter_map(Frame::data_ref))
    }
}

impl<B: Body + Unpin> ResponseBody<B> {
    /// Reads a body to its end, or until more than `limit` bytes have come; nothing if `limit` is 0.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Result<(), B::Error>> {
        while let Some(rest) = &mut self.rest
            && limit > 0
            && self.length <= limit
        {
            // Most bodies know that they have ended, and need not be asked again.
            let frame = if rest.is_end_stream() { None } else { ready!(Pin::new(rest).poll_frame(cx)) };
            let Some(frame) = frame else {
                self.rest = None;
                break;
            };
            let frame = in_bytes(frame?);
            self.length += frame.data_ref().map_or(0, Bytes::len);
            match frame.into_data() {
                Ok(data) if self.first.is_none() && self.read.is_empty() => self.first = Some(data),
                Ok(data) => self.read.push_back(Frame::data(data)),
                Err(trailers) => self.read.push_back(trailers),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(frame) = this.first.take().map(Frame::data).or_else(|| this.read.pop_front()) {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = this.rest.as_pin_mut() else { return Poll::Ready(None) };
        rest.poll_frame(cx).map_ok(in_bytes)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.read.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.data().map(Bytes::len).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read as u64);
        }
        hint
    }
}

fn in_bytes(frame: Frame<impl Buf>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}
