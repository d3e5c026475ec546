//! Requests and answers as they are on the wire.

use testkit::Call;
use testkit::client::answers;

/// The encoding of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/1.1 with a body of undeclared length.
    Chunked,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Protocol {
    /// Returns whether `bytes`, which a client sent over a connection of its own, hold all of `call`.
    pub(crate) fn has_request(self, bytes: &[u8], call: &Call) -> bool {
        match self {
            Self::Http1 | Self::Chunked => bytes.len() >= self.request(call).len(),
            Self::Http2 => bytes.get(PREFACE..).is_some_and(|frames| http2_frames(frames).any(|frame| frame.is_last)),
        }
    }

    /// Returns whether a client has cancelled its request. The request may have run all the same, without an answer.
    pub(crate) fn is_taken_back(self, bytes: &[u8]) -> bool {
        self == Self::Http2
            && bytes.get(PREFACE..).is_some_and(|frames| http2_frames(frames).any(|frame| frame.is_reset))
    }

    /// Returns whether `bytes`, which a server sent, begin an answer.
    pub(crate) fn has_answer_begun(self, bytes: &[u8]) -> bool {
        match self {
            Self::Http1 | Self::Chunked => !bytes.is_empty(),
            Self::Http2 => http2_frames(bytes).any(|frame| frame.is_headers),
        }
    }

    /// Returns whether `bytes`, which a server sent, hold a whole answer.
    pub(crate) fn has_answer(self, bytes: &[u8]) -> bool {
        match self {
            Self::Http1 | Self::Chunked => !answers(bytes).is_empty(),
            Self::Http2 => http2_frames(bytes).any(|frame| frame.is_last),
        }
    }

    /// Returns the bytes of a request over HTTP/1.1.
    pub(crate) fn request(self, call: &Call) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: pay.example\r\n", call.method, call.path);
        for (name, value) in &call.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = &call.body;
        match self {
            Self::Http1 => format!("{head}content-length: {}\r\n\r\n{body}", body.len()),
            Self::Chunked => {
                let (first, second) = body.split_at(body.len() / 2);
                let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
                format!("{head}transfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(first), chunk(second))
            }
            Self::Http2 => panic!("hyper writes them"),
        }
        .into_bytes()
    }
}

/// The length of the bytes that an HTTP/2 client sends first.
const PREFACE: usize = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A frame of the connection's one stream.
struct Frame {
    is_headers: bool,
    /// `true` if the frame ends its side of the stream.
    is_last: bool,
    is_reset: bool,
}

/// Returns the whole frames, without those of the connection itself.
fn http2_frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame> {
    const HEAD: usize = 9;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const END_STREAM: u8 = 1;
    let frames = std::iter::from_fn(move || {
        let (&[high, middle, low, kind, flags, ref stream @ ..], _) = bytes.split_first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, high, middle, low]);
        bytes = bytes.get(HEAD + usize::try_from(length).ok()?..)?;
        let is_last = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        let frame = Frame { is_headers: kind == HEADERS, is_last, is_reset: kind == RST_STREAM };
        Some((*stream != [0; 4]).then_some(frame))
    });
    frames.flatten()
}
