//! A connection's way through the proxy, as the test sees it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::carry::carry;
use super::plan::Plan;
use super::traffic::Traffic;

/// After how long something is given up that must come about.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A way to the server, for one connection. Cut off when dropped.
#[derive(Debug)]
pub struct Link {
    /// Where the client has to connect to.
    pub address: SocketAddr,
    pub plan: Plan,
    traffic: watch::Receiver<Traffic>,
    carrier: JoinHandle<()>,
}

impl Link {
    pub async fn to(server: SocketAddr, plan: Plan) -> Self {
        let listener = TcpListener::bind((loopback(), 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (sender, traffic) = watch::channel(Traffic::default());
        let carrier = tokio::spawn(carry(listener, server, plan.clone(), sender));
        Self { address, plan, traffic, carrier }
    }

    pub fn traffic(&self) -> watch::Ref<'_, Traffic> {
        self.traffic.borrow()
    }

    /// Waits until that much has come about.
    pub async fn sees(&self, what: &str, enough: impl FnMut(&Traffic) -> bool) {
        let mut traffic = self.traffic.clone();
        let seen = timeout(GIVE_UP, traffic.wait_for(enough)).await;
        assert!(seen.is_ok_and(|seen| seen.is_ok()), "it never came about: {what}: {self:#?}");
    }

    /// Waits until the connection has ended on both sides.
    pub async fn is_over(&self) {
        self.sees("the connection ends", |traffic| traffic.is_over).await;
    }
}

/// Where nobody knocks but our own clients: those of another test may still try the port of a server that is gone.
/// Linux has millions of loopback addresses.
fn loopback() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    if cfg!(target_os = "linux") { Ipv4Addr::new(127, 64 | high, middle, low) } else { Ipv4Addr::LOCALHOST }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}
