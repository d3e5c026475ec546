//! The processes: shops, which put orders in and relay their calls, the payment server, and perhaps `idem proxy`'s
//! proxy in front of it; and the network between.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::dice::{below, free_address, time_below};
use testkit::payment_server::{Server, Setup};
use testkit::process::Process;
use testkit::proxy::{Cut, Proxy};
use tokio::time::sleep;

use crate::cut::byte_of;
use crate::front::{LISTEN, RECORDS, UPSTREAM};
use crate::shop::{CALLS, CHARGES, PLACE, Place, SHOP, SHOPS};

/// The most time between two kills, where the machine is fast.
const MOST_TIME: Duration = Duration::from_millis(600);
/// How many connections there are between two kills: a slow machine has done something, too.
const BETWEEN_KILLS: usize = 6;
/// How long a run may take for each call, and besides.
const FOR_EACH: Duration = Duration::from_millis(200);
const BESIDES: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct Kills {
    pub(crate) shops: usize,
    pub(crate) servers: usize,
    pub(crate) fronts: usize,
}

pub(crate) struct World {
    place: Place,
    calls: u32,
    child: String,
    shops: Vec<Option<Process>>,
    setup: Setup,
    server: Server,
    front: Option<Front>,
    network: Proxy,
    cuts: Arc<AtomicUsize>,
    /// How many connections there were.
    connections: Arc<AtomicUsize>,
    directory: TempDir,
}

/// The proxy in front of the server.
struct Front {
    listen: SocketAddr,
    /// The network between it and the server.
    behind: Proxy,
    process: Option<Process>,
}

impl World {
    /// `child`: the test that the process of a shop runs, or of the proxy in front.
    pub(crate) async fn start(place: Place, shops: usize, calls: u32, has_front: bool, child: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The same address after each kill.
        let listen = free_address();
        let setup = Setup::new(directory.path()).listening(listen).with("--atomic --on-interrupted rerun");
        let server = setup.start();
        let [cuts, connections] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let network = async |to| {
            let (counted, made) = (Arc::clone(&cuts), Arc::clone(&connections));
            let fate = move |number| {
                made.fetch_add(1, Ordering::SeqCst);
                Some(Cut::new(byte_of(number), &counted))
            };
            Proxy::to(to, fate).await
        };
        let front = match has_front {
            true => Some(Front { listen: free_address(), behind: network(listen).await, process: None }),
            false => None,
        };
        let network = network(front.as_ref().map_or(listen, |front| front.listen)).await;
        let mut world = Self {
            place,
            calls,
            child: child.to_owned(),
            shops: Vec::new(),
            setup,
            server,
            front,
            network,
            cuts,
            connections,
            directory,
        };
        world.start_front();
        world.shops = (0..shops).map(|number| Some(world.shop(number, shops))).collect();
        world
    }

    /// Starts the proxy in front, once the one before is gone.
    fn start_front(&mut self) {
        let mut command = self.this_program();
        let Some(front) = &mut self.front else { return };
        drop(front.process.take());
        command.env(LISTEN, front.listen.to_string()).env(UPSTREAM, format!("http://{}", front.behind.address()));
        command.env(RECORDS, format!("sled:{}", self.directory.path().join("front").display()));
        front.process = Some(Process(command.spawn().expect("this program can be started again")));
    }

    fn this_program(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
        command.args(["--exact", &self.child, "--nocapture", "--test-threads=1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn shop(&self, number: usize, shops: usize) -> Process {
        let mut command = self.this_program();
        command.env(PLACE, self.place.to_string()).env(SHOP, number.to_string()).env(SHOPS, shops.to_string());
        command
            .env(CALLS, self.calls.to_string())
            .env(CHARGES, format!("http://{}/v1/charges", self.network.address()));
        Process(command.spawn().expect("this program can be started again"))
    }

    /// Kills one process after the other, and starts it again, until each shop has ended by itself: all of its orders
    /// are put in, and each call has an end.
    pub(crate) async fn kill_until_all_is_done(&mut self) -> Kills {
        let (mut kills, began) = (Kills::default(), Instant::now());
        let bound = BESIDES + FOR_EACH * self.calls;
        let (shops, mut before) = (self.shops.len(), 0);
        while self.shops.iter().any(Option::is_some) {
            assert!(began.elapsed() < bound, "the calls have no end: {kills:?}");
            sleep(time_below(MOST_TIME)).await;
            for shop in &mut self.shops {
                if let Some(status) = shop.as_mut().and_then(|shop| shop.0.try_wait().expect("its own child")) {
                    assert!(status.success(), "a shop has failed: {status}");
                    *shop = None;
                }
            }
            let made = self.connections.load(Ordering::SeqCst);
            if made < before + BETWEEN_KILLS {
                continue;
            }
            before = made;
            let victim = below(shops + 1 + usize::from(self.front.is_some()));
            if victim > shops {
                self.start_front();
                kills.fronts += 1;
            } else if victim == shops {
                self.server.kill();
                self.server = self.setup.start();
                kills.servers += 1;
            } else if let Some(shop) = self.shops[victim].take() {
                kills.shops += 1;
                drop(shop);
                self.shops[victim] = Some(self.shop(victim, shops));
            }
        }
        kills
    }

    /// The charges that were made, the oldest first, and how many connections were cut.
    pub(crate) async fn end(self) -> (Vec<Value>, usize) {
        let mut charges = self.server.charges().await;
        charges.reverse();
        self.server.stop().await;
        (charges, self.cuts.load(Ordering::SeqCst))
    }
}
