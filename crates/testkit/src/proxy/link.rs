//! A connection's way through the proxy, as the test sees it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::plan::Plan;
use super::planned::Planned;
use super::traffic::Traffic;
use super::way::Proxy;

/// After how long something is given up that must come about.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A way to the server, for one connection. Cut off when dropped.
#[derive(Debug)]
pub struct Link {
    /// The address to which the client has to connect.
    pub address: SocketAddr,
    pub plan: Plan,
    traffic: watch::Receiver<Traffic>,
    _way: Proxy,
}

impl Link {
    pub async fn to(server: SocketAddr, plan: Plan) -> Self {
        let (sender, traffic) = watch::channel(Traffic::default());
        let mut planned = Some(Planned::new(plan.clone(), sender));
        let way = Proxy::to(server, move |_| planned.take()).await;
        Self { address: way.address(), plan, traffic, _way: way }
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
