//! A way to a server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::carry::{State, carry};
use super::fate::Fate;
use crate::dice::loopback;

/// A way to a server, which any number of connections take. It ends when this is dropped, and they with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// The server to which new connections lead.
    server: Arc<Mutex<SocketAddr>>,
    state: watch::Sender<State>,
    task: AbortHandle,
}

impl Proxy {
    /// A way to the server at this address. `fate` says what becomes of each connection, beginning with number 0; one
    /// without a fate is closed.
    pub async fn to<F: Fate>(server: SocketAddr, mut fate: impl FnMut(usize) -> Option<F> + Send + 'static) -> Self {
        let listener = TcpListener::bind((loopback(), 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (state, watched) = watch::channel(State::default());
        let place = Arc::new(Mutex::new(server));
        let server = Arc::clone(&place);
        let task = tokio::spawn(async move {
            // What is in it ends with it.
            let mut ways = JoinSet::new();
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                if watched.borrow().is_closed {
                    continue;
                }
                if let Some(fate) = fate(number) {
                    let server = *server.lock().expect("nothing panics with it");
                    ways.spawn(carry(client, server, fate, watched.clone()));
                }
                number += 1;
                while ways.try_join_next().is_some() {}
            }
        });
        Self { address, server: place, state, task: task.abort_handle() }
    }

    /// The end at which it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, where the server is one of [`postgres`](crate::postgres).
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }

    /// Leads new connections to another server, as a name does that moves. Those that are there stay.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().expect("nothing panics with it") = server;
    }

    /// Ends all connections, new ones included.
    pub fn close(&self) {
        self.state.send_modify(|state| state.is_closed = true);
    }

    /// Keeps connections open without passing anything on. They end when the way is open again.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.is_stalled = true);
    }

    /// Ends what [`close`](Self::close) or [`stall`](Self::stall) has begun.
    pub fn open(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts, ..State::default() });
    }

    /// Resets all connections there are.
    pub fn cut_all(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
