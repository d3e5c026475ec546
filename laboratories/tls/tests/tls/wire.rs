//! A way to the server on which somebody listens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// By which a client asks whether the server encrypts.
pub(crate) const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Passes on what a client and the server say, and keeps it. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    task: AbortHandle,
}

/// What was said on a connection.
#[derive(Debug, Clone, Default)]
struct Heard {
    by_client: Bytes,
    by_server: Bytes,
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let keeps = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            // What is in it ends with it.
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let heard = Heard::default();
                keeps.lock().unwrap().push(heard.clone());
                ways.spawn(async move {
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = TcpStream::connect(server).await?.into_split();
                    let there = pass_on(from_client, to_server, heard.by_client);
                    let back = pass_on(from_server, to_client, heard.by_server);
                    tokio::try_join!(there, back).map(drop)
                });
            }
        });
        Self { address, heard, task: task.abort_handle() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients have said, a connection each.
    pub(crate) fn by_clients(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().iter().map(|heard| heard.by_client.lock().unwrap().clone()).collect()
    }

    /// Whether somebody has said this in plain.
    pub(crate) fn has_heard(&self, text: &str) -> bool {
        let has = |bytes: &Bytes| bytes.lock().unwrap().windows(text.len()).any(|part| part == text.as_bytes());
        self.heard.lock().unwrap().iter().any(|heard| has(&heard.by_client) || has(&heard.by_server))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, heard: Bytes) -> std::io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        heard.lock().unwrap().extend_from_slice(&bytes[..count]);
        to.write_all(&bytes[..count]).await?;
    }
}
