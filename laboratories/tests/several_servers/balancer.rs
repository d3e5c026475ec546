//! The balancer in front of the servers. It sends each request to any one of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::dice::below;
use testkit::{Answer, Call, Connection};
use tokio::sync::Semaphore;

/// The number of requests under way at once.
const AT_ONCE: usize = 48;
/// The time after which a client stops waiting for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// The time for which a connection is used again. A server closes one on which nothing comes for ten seconds.
const FRESH: Duration = Duration::from_secs(5);

/// A handle to the balancer. Clones share it.
#[derive(Clone)]
pub(crate) struct Balancer(Arc<Inner>);

struct Inner {
    /// The last address of each server. One that is down stays in the list.
    servers: Mutex<Vec<SocketAddr>>,
    idle: Mutex<Vec<Idle>>,
    room: Semaphore,
    requests: AtomicUsize,
    passed_on: AtomicUsize,
}

struct Idle {
    to: SocketAddr,
    since: Instant,
    connection: Connection,
}

impl Balancer {
    pub(crate) fn new() -> Self {
        let (servers, idle, requests, passed_on) = Default::default();
        Self(Arc::new(Inner { servers, idle, room: Semaphore::new(AT_ONCE), requests, passed_on }))
    }

    /// Sets the address of server `number`. The numbers come in order.
    pub(crate) fn put(&self, number: usize, address: SocketAddr) {
        let mut servers = self.0.servers.lock().unwrap();
        if number == servers.len() {
            servers.push(address);
        } else {
            servers[number] = address;
        }
        self.0.idle.lock().unwrap().retain(|idle| servers.contains(&idle.to));
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Returns how often a request went to a second or third server, because the one before gave it back.
    pub(crate) fn passed_on(&self) -> usize {
        self.0.passed_on.load(Ordering::Relaxed)
    }

    /// Sends a request to any server. Returns `None` if no answer came.
    pub(crate) async fn send(&self, call: &Call) -> Option<Answer> {
        let number = below(self.0.servers.lock().unwrap().len());
        self.send_to(number, call).await
    }

    /// Sends a request with a key to one server after the other, until one takes it: a server that is gone, or shuts
    /// down, gives it back. Without a key, that would not be safe.
    pub(crate) async fn send_on(&self, call: &Call) -> Option<Answer> {
        let mut left: Vec<usize> = (0..self.0.servers.lock().unwrap().len()).collect();
        loop {
            let number = left.swap_remove(below(left.len()));
            let answer = self.send_to(number, call).await;
            if left.is_empty() || answer.as_ref().is_some_and(|answer| answer.problem() != "shutting-down") {
                return answer;
            }
            self.0.passed_on.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) async fn send_to(&self, number: usize, call: &Call) -> Option<Answer> {
        let _room = self.0.room.acquire().await.expect("it is never closed");
        tokio::time::timeout(TIMEOUT, self.exchange(number, call)).await.ok().flatten()
    }

    /// Sends a request outside of the limit of requests at once, and waits for it however long it takes.
    pub(crate) async fn send_alone(&self, number: usize, call: &Call) -> Option<Answer> {
        self.exchange(number, call).await
    }

    async fn exchange(&self, number: usize, call: &Call) -> Option<Answer> {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let address = self.0.servers.lock().unwrap()[number];
        let mut connection = match self.idle(address) {
            Some(connection) => connection,
            None => Connection::http1(address).await.ok()?,
        };
        let answer = connection.send(call).await.ok()?;
        self.0.idle.lock().unwrap().push(Idle { to: address, since: Instant::now(), connection });
        Some(answer)
    }

    fn idle(&self, address: SocketAddr) -> Option<Connection> {
        let mut idle = self.0.idle.lock().unwrap();
        idle.retain(|idle| idle.since.elapsed() < FRESH);
        let place = idle.iter().rposition(|idle| idle.to == address)?;
        Some(idle.swap_remove(place).connection)
    }
}
