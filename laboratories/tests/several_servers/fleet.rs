//! Three payment servers with one set of records, and a balancer before them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::dice::loopback;
use testkit::history::History;
use testkit::payment_server::{Server, Setup};
use testkit::postgres::{FakeClock, state};
use testkit::process::{Output, eventually, signal};

use crate::balancer::Balancer;

/// How many servers there are.
pub(crate) const SERVERS: usize = 3;
/// After how long something is given up that has to come about.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Within what time that is read which a server has logged.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The servers. Each has a ledger of its own, in which its charges are, whatever becomes of it.
pub(crate) struct Fleet {
    pub(crate) balancer: Balancer,
    /// Where its servers listen, each at a port of its own.
    address: IpAddr,
    places: Vec<Place>,
    /// What each process has logged, also those that have ended.
    logs: Vec<(usize, Output)>,
    _directory: TempDir,
}

/// The variable that names a directory for the servers' logs, if they are to be kept.
const LOGS: &str = "SERVER_LOGS";

/// Where server follows server, with one ledger.
struct Place {
    setup: Setup,
    /// The servers' clock, if they have one of their own.
    clock: Option<FakeClock>,
    server: Option<Server>,
}

impl Fleet {
    /// Starts the servers with these arguments: those of server `number`.
    pub(crate) async fn start(arguments: impl Fn(usize) -> String) -> Self {
        Self::launch(arguments, false).await
    }

    /// The same, each with a [clock of its own](Self::set_clock).
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
            // What is left out of the log above DEBUG is counted, too.
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

    /// Starts a server that is down, on its ledger. It listens elsewhere than the last one.
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

    /// SIGKILL.
    pub(crate) fn kill(&mut self, number: usize) {
        self.places[number].server.take().expect("it is up").kill();
    }

    /// SIGTERM, and waits for its end.
    pub(crate) async fn stop(&mut self, number: usize) {
        self.places[number].server.take().expect("it is up").stop().await;
    }

    /// Stops the process where it is, until it is [resumed](Self::resume).
    pub(crate) async fn pause(&self, number: usize) {
        let process = self.server(number).id();
        signal(process, "STOP");
        let stands = || (state(process) == Some('T')).then_some(());
        eventually("the server stands still", stands).await;
    }

    pub(crate) fn resume(&self, number: usize) {
        signal(self.server(number).id(), "CONT");
    }

    /// Sets a server's clock so many seconds ahead of the machine's, or behind it.
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

    /// Returns how many charges there are of each key, in all ledgers. Starts the servers that are down.
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

    /// Counts a word in the logs of all servers so far.
    pub(crate) fn logged(&self, word: &str) -> usize {
        self.logs.iter().map(|(_, log)| log.text().matches(word).count()).sum()
    }

    /// The same, looked at for a while as long as it is less than expected: what a server logs is read a little later.
    pub(crate) async fn soon_logged(&self, word: &str, expected: usize) -> usize {
        let began = Instant::now();
        loop {
            let logged = self.logged(word);
            if logged >= expected || began.elapsed() > READ_WITHIN {
                return logged;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The most memory that each server has had, in MiB.
    pub(crate) fn memory(&self) -> [usize; SERVERS] {
        std::array::from_fn(|number| {
            let peak = status(self.server(number).id(), "VmHWM:").expect("the process is there");
            peak.split_whitespace().next().and_then(|peak| peak.parse::<usize>().ok()).expect("kibibytes") / 1024
        })
    }

    /// The number of operations that a server lists as interrupted. Polls as long as there are fewer than expected,
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

    /// The operations that a server lists as disputed: id and fence.
    pub(crate) async fn disputed(&self, number: usize) -> Vec<(String, String)> {
        let list = self.server(number).get("/admin/disputed").await.json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let lines = list["data"].as_array().expect("a list").iter();
        lines.map(|line| (text(&line["id"]), text(&line["fence"]))).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let Some(directory) = std::env::var_os(LOGS) else { return };
        let name = std::thread::current().name().unwrap_or("a run").replace("::", "-");
        // Some runs have several fleets, which all listen somewhere else.
        let fleet = self.address;
        for (life, (number, log)) in self.logs.iter().enumerate() {
            let path = Path::new(&directory).join(format!("{name}-{fleet}-{life}-of-server-{number}.log"));
            std::fs::write(path, log.text()).expect("it can be written");
        }
    }
}

/// What the system says of a process.
fn status(process: u32, what: &str) -> Option<String> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    Some(line.trim().to_owned())
}
