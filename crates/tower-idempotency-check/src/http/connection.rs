//! One connection to the server.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sse_stream::SseStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Address;
use super::failure::{ANSWER_TIMEOUT, Failure};
use super::message::{Answer, Message, is_rpc_answer};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that ends its connection waits for the server to see that.
const SEEN_TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes of a stream after its head when its client hangs up.
const BEGIN: usize = 24;

/// The most bytes of an answer's body.
const MAX_BODY: usize = 16 << 20;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects, TLS included.
async fn connect(address: &Address) -> Result<Box<dyn Stream>, Failure> {
    let failed = |error: io::Error| Failure::NotConnected(error.to_string());
    let host = address.host.trim_matches(['[', ']']);
    let connecting = async {
        let stream = TcpStream::connect((host, address.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if address.is_tls {
            return super::tls::connect(stream, host).await.map(|stream| Box::new(stream) as _);
        }
        Ok(Box::new(stream) as _)
    };
    let too_late = |_| Failure::NotConnected("it took too long".to_owned());
    timeout(CONNECT_TIMEOUT, connecting).await.map_err(too_late)?
}

/// A connection over which requests go one after the other.
pub(crate) struct Connection {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(address: &Address) -> Result<Self, Failure> {
        let stream = connect(address).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| Failure::NotConnected(error.to_string()))?;
        tokio::spawn(connection);
        Ok(Self { host: address.authority(), sender })
    }

    /// Sends a request, and reads its answer to the end.
    pub(crate) async fn send(&mut self, message: &Message) -> Result<Answer, Failure> {
        timeout(ANSWER_TIMEOUT, self.exchange(message)).await.unwrap_or(Err(Failure::TooLate))
    }

    async fn exchange(&mut self, message: &Message) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(&message.method).uri(&message.target).header(HOST, &self.host);
        for (name, value) in &message.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(message.body.clone()));
        let request = request.map_err(|error| Failure::NotSendable(error.to_string()))?;
        let ended = |error: hyper::Error| Failure::Ended(error.to_string());
        self.sender.ready().await.map_err(ended)?;
        let (head, body) = self.sender.send_request(request).await.map_err(ended)?.into_parts();
        if message.id.is_some() && is_stream(&head.headers) {
            let body = answer_in(body).await?;
            let mut headers = head.headers;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return Ok(Answer { version: head.version, status: head.status, headers, body, ..Answer::default() });
        }
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| Failure::Ended(error.to_string()))?;
        let (trailers, body) = (body.trailers().cloned(), body.to_bytes());
        let (version, status, headers) = (head.version, head.status, head.headers);
        Ok(Answer { version, status, headers, body, trailers, ..Answer::default() })
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    kind.is_some_and(|kind| kind.starts_with(EVENTS))
}

const EVENTS: &[u8] = b"text/event-stream";

/// Reads a stream up to the answer to a call, which is JSON. The stream may stay open after that, or end without one.
async fn answer_in(body: Incoming) -> Result<Bytes, Failure> {
    let mut events = SseStream::new(Limited::new(body, MAX_BODY).map_err(io::Error::other));
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| Failure::Ended(error.to_string()))?;
        if let Some(answer) =
            event.data.filter(|data| serde_json::from_str(data).is_ok_and(|message| is_rpc_answer(&message)))
        {
            return Ok(answer.into());
        }
    }
    Ok(Bytes::new())
}

/// When a client hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HangUp {
    /// After the head and half of the body.
    InTheBody,
    /// So long after the whole request is sent.
    After(Duration),
    /// When the answer comes: it is swallowed.
    AtTheAnswer,
    /// When a stream has begun.
    InTheStream,
}

/// Sends a request, and hangs up.
pub(crate) async fn hang_up(address: &Address, message: &Message, when: HangUp) -> Result<(), Failure> {
    let mut stream = connect(address).await?;
    let mut bytes = message.head(&address.authority(), message.body.len()).into_bytes();
    let body = match when {
        HangUp::InTheBody => &message.body.as_bytes()[..message.body.len() / 2],
        HangUp::After(_) | HangUp::AtTheAnswer | HangUp::InTheStream => message.body.as_bytes(),
    };
    bytes.extend_from_slice(body);
    let ended = |error: io::Error| Failure::Ended(error.to_string());
    let sending = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    timeout(ANSWER_TIMEOUT, sending).await.map_err(|_| Failure::TooLate)?.map_err(ended)?;
    match when {
        // What follows is sent once the server has seen the end: it closes too, or answers.
        HangUp::InTheBody => {
            stream.shutdown().await.map_err(ended)?;
            let _ = timeout(SEEN_TIMEOUT, stream.read_u8()).await;
        }
        HangUp::After(pause) => tokio::time::sleep(pause).await,
        HangUp::AtTheAnswer => {
            let first = timeout(ANSWER_TIMEOUT, stream.read_u8()).await.map_err(|_| Failure::TooLate)?;
            first.map_err(ended)?;
        }
        HangUp::InTheStream => {
            timeout(ANSWER_TIMEOUT, begin_of_stream(&mut stream)).await.map_err(|_| Failure::TooLate)??;
        }
    }
    Ok(())
}

/// Reads the head of a stream, and the beginning of its events.
async fn begin_of_stream(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
    let (mut read, mut head) = (Vec::new(), None);
    while head.is_none_or(|head| read.len() < head + BEGIN) {
        if stream.read_buf(&mut read).await.map_err(|error| Failure::Ended(error.to_string()))? == 0 {
            break;
        }
        head = head.or_else(|| read.windows(4).position(|four| four == b"\r\n\r\n"));
    }
    let head = read[..head.unwrap_or_default()].to_ascii_lowercase();
    let is_stream = head.windows(EVENTS.len()).any(|part| part == EVENTS);
    if is_stream { Ok(()) } else { Err(Failure::NoStream) }
}
