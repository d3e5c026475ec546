//! A connection, and what is sent over it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::answer::Answer;
use super::call::Call;

/// A client's connection. Closed when dropped, whatever is under way.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    driver: Arc<Driver>,
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

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    pub async fn http1(address: SocketAddr) -> Result<Self, Failure> {
        let (sender, connection) = http1::handshake(stream(address).await?).await?;
        Ok(Self::spawned(Sender::One(sender), connection))
    }

    /// With prior knowledge.
    pub async fn http2(address: SocketAddr) -> Result<Self, Failure> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream(address).await?).await?;
        Ok(Self::spawned(Sender::Two(sender), connection))
    }

    fn spawned<T>(sender: Sender, connection: impl Future<Output = T> + Send + 'static) -> Self {
        let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        Self { sender, driver: Arc::new(driver) }
    }

    /// Another sender over the same connection, for a concurrent request. The connection must be HTTP/2.
    pub fn another(&self) -> Self {
        let Sender::Two(sender) = &self.sender else { panic!("HTTP/1.1 takes one request after the other") };
        Self { sender: Sender::Two(sender.clone()), driver: Arc::clone(&self.driver) }
    }

    /// Sends a request and reads its answer to the end.
    pub async fn send(&mut self, call: &Call) -> Result<Answer, Failure> {
        let request = match &self.sender {
            Sender::One(_) => call.request(&call.path).header("host", call.host()),
            Sender::Two(_) => call.request(&format!("http://{}{}", call.host(), call.path)),
        };
        self.exchange(request.body(Full::from(call.body.clone()))?).await
    }

    /// The same, with a request as it is.
    pub async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
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
