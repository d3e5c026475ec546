//! Three payment servers with one set of records, and a balancer in front of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::dice::loopback;
use testkit::history::History;
use testkit::payment_server::{Server, Setup};
use testkit::postgres::FakeClock;
use testkit::process::{Output, memory};

use crate::balancer::Balancer;

/// The number of servers.
pub(crate) const SERVERS: usize = 3;
/// The time after which the test gives up waiting for a state that must come about.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The servers. Each has a ledger of its own, which keeps its charges whatever happens to the server.
pub(crate) struct Fleet {
    pub(crate) balancer: Balancer,
    /// The address at which the servers listen, each at a port of its own.
    address: IpAddr,
    places: Vec<Place>,
    /// The log of each process, also of those that have ended.
    logs: Vec<(usize, Output)>,
    _directory: TempDir,
}

/// The variable that names a directory in which the servers' logs are kept.
const LOGS: &str = "SERVER_LOGS";

/// A place where server follows server, with one ledger.
struct Place {
    setup: Setup,
    /// The servers' clock, if they have one of their own.
    clock: Option<FakeClock>,
    server: Option<Server>,
}

impl Fleet {
    /// Starts the servers. `arguments` returns the arguments of server `number`.
    pub(crate) async fn start(arguments: impl Fn(usize) -> String) -> Self {
        Self::launch(arguments, false).await
    }

    /// Does the same, each with a [clock of its own](Self::set_clock).
    pub(crate) async fn with_clocks(arguments: impl Fn(usize) -> String) -> Self {
        Self::launch(arguments, true).await
    }

    async fn launch(arguments: impl Fn(usize) -> String, have_clocks: bool) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = IpAddr::from(loopback());
        let listen = SocketAddr::from((address, 0));
        let place = |number: usize| {
            let home = directory.path().join(number.to_string());
            std::fs::create_dir(&home).expect("a directory");
            // The servers log at DEBUG, so that the test counts the events that INFO leaves out, too.
            let setup = Setup::new(&home).listening(listen).with(&arguments(number));
            let setup = setup.log("info,sled=warn,payment_server=debug,tower_idempotency=debug");
            let clock = have_clocks.then(|| FakeClock::new(&home).expect("the database has one"));
            let setup = setup.under(clock.iter().flat_map(FakeClock::wrapper));
            Place { setup, clock, server: None }
        };
        let places = (0..SERVERS).map(place).collect();
        let mut fleet = Self { balancer: Balancer::new(), address, places, logs: Vec::new(), _directory: directory };
        for number in 0..SERVERS {
            fleet.start_again(number).await;
        }
        fleet
    }

    /// Starts a server that is down, on its ledger. It listens at another port than the last one.
    pub(crate) async fn start_again(&mut self, number: usize) {
        let place = &mut self.places[number];
        assert!(place.server.is_none(), "server {number} is up");
        let server = place.setup.launch().listening().await.unwrap_or_else(|why| panic!("{why}"));
        self.balancer.put(number, server.address);
        self.logs.push((number, server.log.clone()));
        place.server = Some(server);
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        self.places[number].server.as_ref().expect("it is up")
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self, number: usize) {
        self.places[number].server.take().expect("it is up").kill();
    }

    /// Sends SIGTERM, and waits for the server's end.
    pub(crate) async fn stop(&mut self, number: usize) {
        self.places[number].server.take().expect("it is up").stop().await;
    }

    /// Sets a server's clock `ahead` seconds ahead of the machine's, or behind it.
    pub(crate) fn set_clock(&self, number: usize, ahead: i64) {
        self.places[number].clock.as_ref().expect("it has a clock of its own").set(ahead);
    }

    /// Starts all servers that are down.
    pub(crate) async fn start_all(&mut self) {
        for number in 0..SERVERS {
            if self.places[number].server.is_none() {
                self.start_again(number).await;
            }
        }
    }

    /// Returns the number of charges of each key, in all ledgers. Starts the servers that are down.
    pub(crate) async fn effects(&mut self) -> BTreeMap<String, usize> {
        self.start_all().await;
        let mut effects = BTreeMap::new();
        for number in 0..SERVERS {
            for charge in self.server(number).charges().await {
                let key = charge["description"].as_str().expect("its key");
                *effects.entry(key.to_owned()).or_default() += 1;
            }
        }
        effects
    }

    /// Adds all charges of all ledgers to the history.
    pub(crate) async fn count_effects(&mut self, history: &History) {
        for (key, effects) in self.effects().await {
            (0..effects).for_each(|_| history.effect(&key));
        }
    }

    /// Returns how often a word is in the logs of all servers so far.
    pub(crate) fn logged(&self, word: &str) -> usize {
        self.logs.iter().map(|(_, log)| log.text().matches(word).count()).sum()
    }

    /// Returns the most memory that each server has had, in MiB.
    pub(crate) fn memory(&self) -> [usize; SERVERS] {
        std::array::from_fn(|number| (memory(self.server(number).id(), "VmHWM:") >> 20) as usize)
    }

    /// Returns the number of operations that a server lists as interrupted. Polls while there are fewer than expected,
    /// because a server that has just started takes no other for dead.
    pub(crate) async fn interrupted(&self, number: usize, expected: usize) -> usize {
        let began = Instant::now();
        loop {
            let listed = self.server(number).interrupted().await.len();
            if listed >= expected || began.elapsed() > GIVE_UP {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let Some(directory) = std::env::var_os(LOGS) else { return };
        let name = std::thread::current().name().unwrap_or("a run").replace("::", "-");
        // Some runs have several fleets, and each listens at another address.
        let fleet = self.address;
        for (life, (number, log)) in self.logs.iter().enumerate() {
            let path = Path::new(&directory).join(format!("{name}-{fleet}-{life}-of-server-{number}.log"));
            std::fs::write(path, log.text()).expect("it can be written");
        }
    }
}
