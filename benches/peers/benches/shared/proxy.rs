//! A link to the database that counts round trips: each time that a client has sent all its bytes and waits for the
//! answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use testkit::proxy::{Fate, Pass, Way};

/// The link, and its counts.
#[derive(Debug)]
pub(crate) struct Proxy {
    way: testkit::proxy::Proxy,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    trips: AtomicU64,
    aside: AtomicU64,
}

impl Proxy {
    /// Makes a link to the server at this address.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        let fate = move |_| Some(Counting { counts: Arc::clone(&counted), messages: Mutex::default() });
        Self { way: testkit::proxy::Proxy::to(server, fate).await, counts }
    }

    pub(crate) fn url(&self) -> String {
        self.way.url()
    }

    /// Returns the round trips so far that a request waits for. Those on connections that listen for notifications or
    /// send them do not count, nor do those without a query: sqlx tests each connection in this way when it is given
    /// back.
    pub(crate) fn trips(&self) -> u64 {
        self.counts.trips.load(Ordering::SeqCst)
    }

    /// Returns the number of the other round trips.
    pub(crate) fn aside(&self) -> u64 {
        self.counts.aside.load(Ordering::SeqCst)
    }
}

/// One connection of the link.
struct Counting {
    counts: Arc<Counts>,
    messages: Mutex<Messages>,
}

impl Fate for Counting {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        // The count comes before the bytes are sent, so that a client that has its answer is counted.
        let mut messages = self.messages.lock().expect("counting does not panic");
        match way {
            Way::Request => messages.count(bytes, &self.counts),
            Way::Response => messages.is_under_way = false,
        }
        Pass::On
    }
}

/// The messages of a client: after the first message, each has a letter and its length.
#[derive(Debug, Default)]
struct Messages {
    unread: Vec<u8>,
    has_begun: bool,
    /// `true` if the client has asked something since the last round trip began.
    asks: bool,
    /// `true` if the client has asked something since the last answer. What it sends then belongs to the same round
    /// trip.
    is_under_way: bool,
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
            // The message is a query that is sent at once, or the end of one that was sent in parts.
            let asks = std::mem::replace(&mut self.asks, message[0] != b'S') || message[0] == b'Q';
            if matches!(message[0], b'Q' | b'S') {
                let count = if asks && !self.is_aside { &counts.trips } else { &counts.aside };
                let is_new = !std::mem::replace(&mut self.is_under_way, true);
                count.fetch_add(u64::from(is_new), Ordering::SeqCst);
                self.asks = false;
            }
        }
    }
}
