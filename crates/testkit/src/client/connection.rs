//! A connection, and what is sent over it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::answer::Answer;
use super::call::Call;

/// Said where a connection has ended.
const ENDED: &str = "the connection has ended";

/// A client's connection. Closed when dropped, whatever is under way.
#[derive(Debug)]
pub struct Connection {
    /// `None` once the driver has ended while an answer was awaited.
    sender: Option<Sender>,
    driver: Arc<Driver>,
    /// Changes when the driver ends.
    ended: watch::Receiver<()>,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// The stream that carries the bytes.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Answering = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;
/// More than a server's answer has, unless a test wants so.
const MAX_HEADERS: usize = 1_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    pub async fn http1(address: SocketAddr) -> Result<Self, Failure> {
        Self::over_stream(stream(address).await?).await
    }

    /// Over a connection that is there.
    pub async fn over(stream: TcpStream) -> Result<Self, Failure> {
        Self::over_stream(TokioIo::new(stream)).await
    }

    async fn over_stream(stream: TokioIo<TcpStream>) -> Result<Self, Failure> {
        let (sender, connection) = http1::Builder::new().max_headers(MAX_HEADERS).handshake(stream).await?;
        Ok(Self::spawned(Sender::One(sender), connection))
    }

    /// With prior knowledge.
    pub async fn http2(address: SocketAddr) -> Result<Self, Failure> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream(address).await?).await?;
        Ok(Self::spawned(Sender::Two(sender), connection))
    }

    fn spawned<T>(sender: Sender, connection: impl Future<Output = T> + Send + 'static) -> Self {
        let (ending, ended) = watch::channel(());
        let driver = Driver(tokio::spawn(async move {
            drop(connection.await);
            drop(ending);
        }));
        Self { sender: Some(sender), driver: Arc::new(driver), ended }
    }

    /// Another sender over the same connection, for a concurrent request. The connection must be HTTP/2.
    pub fn another(&self) -> Self {
        let sender = self.sender.as_ref().map(|sender| match sender {
            Sender::One(_) => panic!("HTTP/1.1 takes one request after the other"),
            Sender::Two(sender) => Sender::Two(sender.clone()),
        });
        Self { sender, driver: Arc::clone(&self.driver), ended: self.ended.clone() }
    }

    /// Sends a request and reads its answer to the end.
    pub async fn send(&mut self, call: &Call) -> Result<Answer, Failure> {
        let request = match self.sender.as_ref().ok_or(ENDED)? {
            Sender::One(_) => call.request(&call.path).header("host", call.host()),
            Sender::Two(_) => call.request(&format!("http://{}{}", call.host(), call.path)),
        };
        self.exchange(request.body(Full::from(call.body.clone()))?).await
    }

    /// The same, with a request as it is.
    pub async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let mut answering: Answering = match self.sender.as_mut().ok_or(ENDED)? {
            Sender::One(sender) => {
                sender.ready().await?;
                Box::pin(sender.send_request(request))
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                Box::pin(sender.send_request(request))
            }
        };
        let response = tokio::select! {
            biased;
            response = &mut answering => response?,
            _ = self.ended.changed() => {
                // A request that comes while the driver ends may be left in hyper's channel between them, unread. The
                // channel drops it with its last sender, and then there is an error in place of an answer.
                self.sender = None;
                answering.await?
            }
        };
        Ok(Answer::read(response).await?)
    }
}

async fn stream(address: SocketAddr) -> std::io::Result<TokioIo<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}
