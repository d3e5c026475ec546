//! A connection to the server that records its bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use testkit::proxy::{Fate, Pass, Proxy, Way};

/// The bytes by which a client asks whether the server encrypts.
pub(crate) const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Passes on the bytes of clients and the server, and keeps them. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    proxy: Proxy,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// The bytes of a connection.
#[derive(Debug, Clone, Default)]
struct Heard {
    by_client: Arc<Mutex<Vec<u8>>>,
    by_server: Arc<Mutex<Vec<u8>>>,
}

impl Fate for Heard {
    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let heard = if way == Way::Request { &self.by_client } else { &self.by_server };
        heard.lock().unwrap().extend_from_slice(bytes);
        Pass::On
    }
}

impl Wire {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let keeps = Arc::clone(&heard);
        let fate = move |_| {
            let heard = Heard::default();
            keeps.lock().unwrap().push(heard.clone());
            Some(heard)
        };
        Self { proxy: Proxy::to(server, fate).await, heard }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// The bytes that clients have sent, by connection.
    pub(crate) fn by_clients(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().iter().map(|heard| heard.by_client.lock().unwrap().clone()).collect()
    }

    /// Returns whether this text was sent unencrypted.
    pub(crate) fn has_heard(&self, text: &str) -> bool {
        let has =
            |bytes: &Mutex<Vec<u8>>| bytes.lock().unwrap().windows(text.len()).any(|part| part == text.as_bytes());
        self.heard.lock().unwrap().iter().any(|heard| has(&heard.by_client) || has(&heard.by_server))
    }
}
