//! A way to the server on which puts are held back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Stands between a backend and the server. It ends when it is dropped.
///
/// It knows a put by the name of its function, which only a backend [`behind_pooler`] sends with every call.
///
/// [`behind_pooler`]: tower_idempotency_postgres::PostgresBackendBuilder::behind_pooler
#[derive(Debug)]
pub(crate) struct Proxy {
    url: String,
    is_held: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Proxy {
    /// A way to the server of `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let (before, rest) = url.split_once('@').unwrap();
        let (server, after) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{before}@{}/{after}", listener.local_addr().unwrap());
        let is_held = watch::Sender::new(false);
        let waiting: Arc<AtomicUsize> = Arc::default();
        let (server, held, waits) = (server.to_owned(), is_held.subscribe(), Arc::clone(&waiting));
        let task = tokio::spawn(async move {
            // What is in it ends with it.
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                ways.spawn(pass_on(client, server.clone(), held.clone(), Arc::clone(&waits)));
            }
        });
        Self { url, is_held, waiting, task: task.abort_handle() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on no put arrives, until what this returns is called.
    pub(crate) fn hold(&self) -> impl FnOnce() + Send + use<> {
        let is_held = self.is_held.clone();
        is_held.send_replace(true);
        move || {
            is_held.send_replace(false);
        }
    }

    /// How many puts are held back.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes on what both say. An error: one of them has gone.
async fn pass_on(
    client: TcpStream,
    server: String,
    mut held: watch::Receiver<bool>,
    waiting: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let ((mut asks, mut is_answered), (mut answers, mut is_asked)) = (client.into_split(), server.into_split());
    let there = async {
        let mut bytes = vec![0; 1 << 16];
        loop {
            let count = asks.read(&mut bytes).await?;
            if count == 0 {
                return is_asked.shutdown().await;
            }
            if bytes[..count].windows(4).any(|word| word == b"put_") {
                waiting.fetch_add(1, Ordering::SeqCst);
                // An error: the proxy is gone.
                let _ = held.wait_for(|is_held| !is_held).await;
                waiting.fetch_sub(1, Ordering::SeqCst);
            }
            is_asked.write_all(&bytes[..count]).await?;
        }
    };
    let back = async { copy(&mut answers, &mut is_answered).await.map(drop) };
    tokio::try_join!(there, back).map(drop)
}
