//! A way to the database that counts round trips: whenever a client has sent all of something and waits for the answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// The way, for as long as the runtime lives.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    trips: AtomicU64,
    aside: AtomicU64,
}

impl Proxy {
    /// A way to the server at this address.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let (address, counts) = (listener.local_addr().expect("it has one"), Arc::<Counts>::default());
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { return };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let ((from, mut back), (mut answers, to)) = (client.into_split(), server.into_split());
                tokio::spawn(forward(from, to, Arc::clone(&counted)));
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
            }
        });
        Self { address, counts }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    /// The round trips so far for which somebody waits. Nobody does on connections that listen for notifications or
    /// send them, and where nothing is asked: so sqlx tries each connection when it is given back.
    pub(crate) fn trips(&self) -> u64 {
        self.counts.trips.load(Ordering::SeqCst)
    }

    /// The others.
    pub(crate) fn aside(&self) -> u64 {
        self.counts.aside.load(Ordering::SeqCst)
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counts: Arc<Counts>) {
    let (mut messages, mut chunk) = (Messages::default(), vec![0; 1 << 16]);
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        // Before it is sent: whoever has the answer finds it counted.
        messages.count(&chunk[..length], &counts);
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

/// What a client sends: after the first message, each has a letter and its length.
#[derive(Debug, Default)]
struct Messages {
    unread: Vec<u8>,
    has_begun: bool,
    /// Whether something is asked since the last round trip began.
    asks: bool,
    is_aside: bool,
}

impl Messages {
    /// Counts the round trips that begin in these bytes.
    fn count(&mut self, bytes: &[u8], counts: &Counts) {
        self.unread.extend_from_slice(bytes);
        loop {
            let letter = usize::from(self.has_begun);
            let Some(length) = self.unread.get(letter..letter + 4) else { return };
            let end = letter + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if self.unread.len() < end {
                return;
            }
            let message: Vec<u8> = self.unread.drain(..end).collect();
            if !std::mem::replace(&mut self.has_begun, true) {
                continue;
            }
            let says = |word: &[u8]| message.windows(word.len()).any(|part| part == word);
            self.is_aside |= matches!(message[0], b'Q' | b'P') && (says(b"LISTEN ") || says(b"pg_notify"));
            // A query that is sent at once, or the end of one that was sent in parts.
            let asks = std::mem::replace(&mut self.asks, message[0] != b'S') || message[0] == b'Q';
            if matches!(message[0], b'Q' | b'S') {
                let count = if asks && !self.is_aside { &counts.trips } else { &counts.aside };
                count.fetch_add(1, Ordering::SeqCst);
                self.asks = false;
            }
        }
    }
}
