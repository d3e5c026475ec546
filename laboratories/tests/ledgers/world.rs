//! The processes: shops, which put orders in and relay their calls, and the payment server; and the network between.

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
use crate::shop::{CALLS, CHARGES, PLACE, Place, SHOP, SHOPS};

/// The most time between two kills.
const MOST_TIME: Duration = Duration::from_millis(600);
/// How long a run may take for each call, and besides.
const FOR_EACH: Duration = Duration::from_millis(200);
const BESIDES: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct Kills {
    pub(crate) shops: usize,
    pub(crate) servers: usize,
}

pub(crate) struct World {
    place: Place,
    calls: u32,
    child: String,
    shops: Vec<Option<Process>>,
    setup: Setup,
    server: Server,
    proxy: Proxy,
    cuts: Arc<AtomicUsize>,
    _directory: TempDir,
}

impl World {
    pub(crate) async fn start(place: Place, shops: usize, calls: u32, child: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The same address after each kill.
        let listen = free_address();
        let setup = Setup::new(directory.path()).listening(listen).with("--atomic --on-interrupted rerun");
        let server = setup.start();
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cuts);
        let proxy = Proxy::to(listen, move |number| Some(Cut::new(byte_of(number), &counted))).await;
        let mut world = Self {
            place,
            calls,
            child: child.to_owned(),
            shops: Vec::new(),
            setup,
            server,
            proxy,
            cuts,
            _directory: directory,
        };
        world.shops = (0..shops).map(|number| Some(world.shop(number, shops))).collect();
        world
    }

    fn shop(&self, number: usize, shops: usize) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
        command.args(["--exact", &self.child, "--nocapture", "--test-threads=1"]);
        command.env(PLACE, self.place.to_string()).env(SHOP, number.to_string()).env(SHOPS, shops.to_string());
        command.env(CALLS, self.calls.to_string()).env(CHARGES, format!("http://{}/v1/charges", self.proxy.address()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Process(command.spawn().expect("this program can be started again"))
    }

    /// Kills one process after the other, and starts it again, until each shop has ended by itself: all of its orders
    /// are put in, and each call has an end.
    pub(crate) async fn kill_until_all_is_done(&mut self) -> Kills {
        let (mut kills, began) = (Kills::default(), Instant::now());
        let bound = BESIDES + FOR_EACH * self.calls;
        let shops = self.shops.len();
        while self.shops.iter().any(Option::is_some) {
            assert!(began.elapsed() < bound, "the calls have no end: {kills:?}");
            sleep(time_below(MOST_TIME)).await;
            for shop in &mut self.shops {
                if let Some(status) = shop.as_mut().and_then(|shop| shop.0.try_wait().expect("its own child")) {
                    assert!(status.success(), "a shop has failed: {status}");
                    *shop = None;
                }
            }
            let victim = below(shops + 1);
            if victim == shops {
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
