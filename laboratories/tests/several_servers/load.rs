//! Clients that charge for as long as a run takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use testkit::dice::time_below;
use tokio::task::JoinSet;

use crate::client::Clients;
use crate::fleet::SERVERS;

const CLIENTS: usize = 24;
/// The longest time between two keys of a client.
const PAUSE: Duration = Duration::from_millis(300);
/// The interval of the checks how many keys are settled.
const LOOK: Duration = Duration::from_millis(10);

/// Clients that charge, one key after the other, until it is enough.
pub(crate) struct Load {
    clients: Clients,
    settled: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
    sending: JoinSet<Vec<String>>,
}

/// The way in which a client sends a charge until it is settled.
type Way = fn(Clients, String) -> BoxFuture<'static, ()>;

impl Load {
    /// Starts clients that send each charge once, and again while the answers ask for that.
    pub(crate) fn start(clients: &Clients) -> Self {
        let once = |clients: Clients, key: String| async move { drop(clients.until_settled(&key).await) }.boxed();
        Self::on(clients, once)
    }

    /// Starts clients that send each charge one to five times, and wait for no server for long.
    pub(crate) fn in_haste(clients: &Clients) -> Self {
        Self::on(clients, |clients, key| async move { clients.one_to_five_in_haste(&key).await }.boxed())
    }

    fn on(clients: &Clients, way: Way) -> Self {
        let (settled, enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let mut sending = JoinSet::new();
        for name in 0..CLIENTS {
            let (clients, settled, enough) = (clients.clone(), Arc::clone(&settled), Arc::clone(&enough));
            sending.spawn(async move {
                let mut keys = Vec::new();
                while !enough.load(Ordering::SeqCst) {
                    let key = format!("client-{name}-charge-{}", keys.len());
                    way(clients.clone(), key.clone()).await;
                    settled.fetch_add(1, Ordering::SeqCst);
                    keys.push(key);
                    tokio::time::sleep(time_below(PAUSE)).await;
                }
                keys
            });
        }
        Self { clients: clients.clone(), settled, enough, sending }
    }

    /// Waits until `count` more keys are settled, or one is stuck: the report then names that key.
    pub(crate) async fn more(&self, count: usize) {
        let (began, before) = (Instant::now(), self.clients.stuck().len());
        let until = self.settled.load(Ordering::SeqCst) + count;
        while self.settled.load(Ordering::SeqCst) < until && self.clients.stuck().len() == before {
            assert!(began.elapsed() < self.clients.longest() * 2, "no client goes on");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the clients, and asks every server for every key: a server must read the keys that another one remembers.
    pub(crate) async fn end(self) -> Vec<String> {
        let Self { clients, enough, sending, .. } = self;
        enough.store(true, Ordering::SeqCst);
        let keys: Vec<String> = sending.join_all().await.into_iter().flatten().collect();
        ask_for(&clients, &keys).await;
        keys
    }
}

/// Asks every server for every key.
pub(crate) async fn ask_for(clients: &Clients, keys: &[String]) {
    join_all(keys.iter().map(|key| clients.ask_all(SERVERS, key))).await;
}
