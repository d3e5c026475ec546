//! A run: servers, customers and the alien, and the verdict at the end.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::alien::{Alien, send};
use crate::bank::{Charge, Failure, now};
use crate::counts::{Belief, Side, Story, charged_twice, lost};
use crate::customer::{Customer, layer};
use crate::fate::{Blow, blow};
use crate::processes::Server;

/// How often the ledgers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long to wait for a server that is away, when its ledger is read at the end.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// What the alien is asked to do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Settings {
    /// For how many seconds customers pay.
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Ends when each side has had so many payments, however long it takes.
    #[arg(long)]
    pub(crate) payments: Option<u64>,
    /// How many customers pay at once, on each side.
    #[arg(long, default_value_t = 50)]
    pub(crate) customers: u32,
    /// The alien's decisions follow from it.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// How many of a hundred attempts meet mischief.
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(0..=95))]
    pub(crate) evil: u64,
    /// Where the layer keeps its records: `sled`, `memory` (no process is killed then), or a URL of PostgreSQL (with
    /// three servers).
    #[arg(long, default_value = "sled")]
    pub(crate) store: String,
    /// The second server has no layer either: `idem proxy`'s proxy is in front of it, with its records in sled.
    #[arg(long, conflicts_with = "store")]
    pub(crate) proxy: bool,
}

/// What has come of a side.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) ledger: Vec<Charge>,
    pub(crate) beliefs: HashMap<String, Belief>,
    pub(crate) twice: BTreeMap<String, usize>,
    pub(crate) lost: Vec<String>,
    /// The payments whose end their customers do not know.
    pub(crate) unknown: Vec<String>,
}

impl Verdict {
    /// Whether no payment was charged twice, and no acknowledged charge is missing.
    pub(crate) fn is_right(&self) -> bool {
        self.twice.is_empty() && self.lost.is_empty()
    }
}

/// Runs, and shows each moment by `show`.
pub(crate) async fn run(
    settings: &Settings,
    story: &Story,
    mut show: impl FnMut(&Story) -> io::Result<()>,
) -> Result<[Verdict; 2], Failure> {
    let directory = tempfile::tempdir()?;
    let is_memory = settings.store == "memory";
    let schema = format!("alien_{}_{}", settings.seed, now());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let ledger = |name: &str| if is_memory { "memory".to_owned() } else { path(name) };
    let mut ours = Vec::new();
    if settings.proxy {
        let service = Server::start(true, &ledger("ours"), &schema)?;
        ours.extend([service.proxy(&path("proxy"))?, service]);
    } else if settings.store.starts_with("postgres") {
        for _ in 0..3 {
            ours.push(Server::start(false, &settings.store, &schema)?);
        }
    } else if is_memory || settings.store == "sled" {
        ours.push(Server::start(false, &ledger("ours"), &schema)?);
    } else {
        return Err("--store is sled, memory, or a URL that begins with postgres://".into());
    }
    let servers = [vec![Server::start(true, &ledger("naive"), &schema)?], ours];
    let addresses = servers.each_ref().map(|side| side.iter().map(|server| server.address).collect::<Arc<[_]>>());
    let addresses = match (settings.proxy, addresses) {
        // All come through it.
        (true, [naive, ours]) => [naive, ours[..1].into()],
        (false, addresses) => addresses,
    };
    let servers = servers.map(|side| Arc::new(Mutex::new(side)));
    for side in &servers {
        for server in &mut *side.lock().await {
            server.listens().await?;
        }
    }

    let (rests, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut customers = JoinSet::new();
    for side in Side::BOTH {
        // One API, one layer.
        let (layer, begun) = (layer(), Arc::new(AtomicU64::new(0)));
        for number in 0..settings.customers {
            let servers = Arc::clone(&addresses[side as usize]);
            let (seed, evil) = (settings.seed, settings.evil);
            let alien = Alien { seed, evil, rests: Arc::clone(&rests), servers, side, story: story.clone() };
            let customer = Customer { number, alien, layer: layer.clone() };
            let (begun, most, ends) = (Arc::clone(&begun), settings.payments, Arc::clone(&ends));
            let goes_on = move || match most {
                Some(most) => begun.fetch_add(1, Ordering::SeqCst) < most,
                None => !ends.load(Ordering::SeqCst),
            };
            customers.spawn(customer.pay_while(goes_on));
        }
    }

    let blows = tokio::spawn(strike_on(servers.clone(), settings.clone(), story.clone()));
    let (began, mut unknown) = (Instant::now(), Vec::new());
    loop {
        tokio::select! {
            paid = customers.join_next() => match paid {
                Some(paid) => unknown.push(paid?),
                None => break,
            },
            () = sleep(LOOK_EVERY) => {}
        }
        for side in Side::BOTH {
            // One that is away is looked at later.
            let moment = story.moment(side);
            if let Ok(Ok(charges)) = timeout(LOOK_EVERY, charges(addresses[side as usize][0])).await {
                story.sample(side, &moment, &charges);
            }
        }
        show(story)?;
        if settings.payments.is_none() && began.elapsed() > Duration::from_secs(settings.seconds) {
            ends.store(true, Ordering::SeqCst);
        }
    }
    // The alien has had its fun: what is unknown is asked for once more, with the same keys.
    rests.store(true, Ordering::SeqCst);
    blows.abort();
    let _ = blows.await;
    for side in &servers {
        for server in &mut *side.lock().await {
            server.resume();
            server.listens().await?;
        }
    }
    let mut asking = JoinSet::new();
    for (customer, payments) in unknown {
        asking.spawn(async move {
            for payment in payments {
                customer.ask_again(&payment).await;
            }
        });
    }
    while asking.join_next().await.is_some() {}
    let mut verdicts = Vec::new();
    for side in Side::BOTH {
        let moment = story.moment(side);
        let ledger = timeout(READ_WITHIN, steady(addresses[side as usize][0])).await??;
        story.sample(side, &moment, &ledger);
        let beliefs = moment.beliefs;
        let is_unknown = |(_, belief): &(&String, &Belief)| matches!(belief, Belief::Unknown(_));
        let unknown = beliefs.iter().filter(is_unknown).map(|(key, _)| key.clone()).collect();
        let (twice, lost) = (charged_twice(&ledger), lost(&beliefs, &ledger));
        verdicts.push(Verdict { ledger, beliefs, twice, lost, unknown });
    }
    show(story)?;
    verdicts.try_into().map_err(|_| "there are two sides".into())
}

/// Strikes the servers of both sides at the same moments, for ever.
async fn strike_on(servers: [Arc<Mutex<Vec<Server>>>; 2], settings: Settings, story: Story) {
    let most = servers[Side::Ours as usize].lock().await.len();
    let is_memory = settings.store == "memory";
    let mut acknowledged = 0;
    for number in 0.. {
        let (after, server, blow) = blow(settings.seed, number, most);
        sleep(after).await;
        // However slow the machine is, a blow leaves no more payments unknown than were acknowledged before it.
        while story.acknowledged(Side::Ours) < acknowledged + settings.customers as usize {
            sleep(LOOK_EVERY).await;
        }
        acknowledged = story.acknowledged(Side::Ours);
        // What is only in memory would be forgotten, which no layer can help.
        let blow = if is_memory && blow == Blow::Kill { Blow::Pause(300) } else { blow };
        let strike = async |servers: &Mutex<Vec<Server>>| -> io::Result<String> {
            let mut servers = servers.lock().await;
            let at = server % servers.len();
            match blow {
                Blow::Kill => {
                    servers[at].kill()?;
                    // A busy machine takes long to start it. It is to have served for a while before the next blow.
                    servers[at].listens().await?;
                    Ok(format!("server {} is killed", at + 1))
                }
                Blow::Pause(time) => {
                    servers[at].pause();
                    sleep(Duration::from_millis(time)).await;
                    servers[at].resume();
                    Ok(format!("server {} was stopped for {time} ms", at + 1))
                }
            }
        };
        let [naive, ours] = &servers;
        let (_, struck) = tokio::join!(strike(naive), strike(ours));
        story.strike(struck.unwrap_or_else(|error| format!("a server can't be started again: {error}")));
    }
}

/// Reads a ledger that changes no more: what was sent twice may still be under way.
async fn steady(server: SocketAddr) -> Result<Vec<Charge>, Failure> {
    let mut before = None;
    loop {
        let now = charges(server).await.ok();
        if now.is_some() && now == before {
            return Ok(now.unwrap_or_default());
        }
        before = now;
        sleep(Duration::from_secs(1)).await;
    }
}

/// Reads a ledger.
async fn charges(server: SocketAddr) -> Result<Vec<Charge>, Failure> {
    let request = Request::get("/ledger").header("host", "pay.example").body(Full::default())?;
    let body = send(server, request).await?.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
